"""API Gateway (REST, v1) → the HTTP API in api.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from mangum import Mangum

from functions.query.api import app
from functions.query.initialisation import initialise
from functions.query.telemetry import logger, metrics
from rag import wiring

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from rag.types import JSON

# Made before Mangum looks for one and, on newer Pythons, warns that there is none.
loop = initialise(app)
adapter = Mangum(app, lifespan="off", text_mime_types=["application/json", "application/problem+json", "text/"])


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
@metrics.log_metrics
def handler(event: JSON, context: LambdaContext) -> Any:
    metrics.add_metric("Requests", MetricUnit.Count, 1)
    wiring.until_the_end(context, margin_seconds=wiring.LAST_SECONDS, most_seconds=wiring.settings().request_seconds)
    # Mangum takes the thread's: since Python 3.12 nobody makes one by itself, and whoever calls asyncio.run removes it.
    asyncio.set_event_loop(loop)
    return adapter(event, context)  # type: ignore[arg-type]  # Mangum types the context with writable fields
