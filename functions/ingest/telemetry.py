"""The logger and the metrics that all of ingest shares."""

from rag import telemetry

logger = telemetry.logger()
metrics = telemetry.metrics()
