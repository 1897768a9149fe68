"""Bring the database to this code's schema, before the code takes traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag import migrations, telemetry, wiring
from rag.types import JSON

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = telemetry.logger()


@logger.inject_lambda_context
def handler(event: JSON, context: LambdaContext) -> JSON:  # noqa: ARG001 (Lambda's signature)
    """Apply new migrations, let the roles log in, make the embedding space known; harmless when run again.

    `warnings` say what may go wrong with the database's pgvector, and what to do about it.
    """
    settings = wiring.settings()
    password = wiring.password(settings.database_secret)
    applied = migrations.migrate(settings.database_url, password)
    passwords = {role: wiring.password(name) for role, name in settings.role_secrets.items()}
    migrations.set_passwords(settings.database_url, passwords, password)
    migrations.grant_iam(settings.database_url, settings.iam_roles, password)
    migrations.ensure_space(settings.database_url, wiring.embedding_space(), password)
    warnings = migrations.warnings(settings.database_url, password)
    for warning in warnings:
        logger.warning(warning)
    logger.info("migrated", applied=applied)
    return {"applied": applied, "warnings": warnings}
