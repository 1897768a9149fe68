"""The logger and the metrics that the routes and the handler share."""

from rag import telemetry

logger = telemetry.logger()
metrics = telemetry.metrics()
