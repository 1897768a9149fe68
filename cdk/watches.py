"""What is watched: queues, functions, the API, the database and the cache, each with its threshold."""

from __future__ import annotations

import aws_cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sqs as sqs

from cdk.alarms import Alarms
from cdk.cache import Cache
from cdk.database import Database
from cdk.function import Function
from cdk.stages import Stage

_MINUTE = aws_cdk.Duration.minutes(1)
_FIVE_MINUTES = aws_cdk.Duration.minutes(5)
_MEBIBYTE = 1024**2
_GIBIBYTE = 1024**3
# As rag.telemetry names it, which only functions import.
# Fewer requests in five minutes are too few to speak of rates.
_FEW_REQUESTS = 20


def dead_letters(alarms: Alarms, queues: dict[str, sqs.IQueue]) -> None:
    for name, queue in queues.items():
        alarms.add(
            "dead-letters",
            # Not by the minute: whoever looks into the queue hides what is there for a moment.
            queue.metric_approximate_number_of_messages_visible(period=_FIVE_MINUTES, statistic="max"),
            "Messages were given up and wait for a person.",
            of=name,
            above=0,
        )


def waiting(alarms: Alarms, queues: dict[str, sqs.IQueue]) -> None:
    for name, queue in queues.items():
        alarms.add(
            "queue-age",
            queue.metric_approximate_age_of_oldest_message(period=_FIVE_MINUTES, statistic="max"),
            "A message waits for more than half an hour: more comes in than is worked off, or it keeps failing.",
            of=name,
            above=1800,
        )


def notifications(alarms: Alarms, watched: Function) -> None:
    """Whether what became of documents is told."""
    alarms.add(
        "notifications-waiting",
        _counted(watched, "OldestNotificationSeconds", "max"),
        "What became of a document could not be told for ten minutes: the bus or the webhook does not take it.",
        above=600,
    )
    alarms.add(
        "notifications-given-up",
        _counted(watched, "NotificationsGivenUp"),
        "The webhook did not take for a day what became of documents: it is told no more.",
        above=0,
    )


def arrivals(alarms: Alarms, watched: Function) -> None:
    """Whether something is uploaded that nobody will find, or that would be ingested as what was made of it."""
    alarms.add(
        "nobodys-documents",
        _counted(watched, "DocumentsWithoutTenant"),
        "Objects came in below the id of a tenant that there is not: they are in the bucket, and in no index.",
        above=0,
    )
    alarms.add(
        "own-objects",
        _counted(watched, "OwnObjectsRefused"),
        "Objects came in below a folder .rag, which only the product writes: they are refused.",
        above=0,
    )


def erasing(alarms: Alarms, watched: Function) -> None:
    """Whether what is to be erased goes."""
    alarms.add(
        "erasures",
        _counted(watched, "ErasuresFailed"),
        "Something that was to be erased is still there in part.",
        above=0,
    )


def auditing(alarms: Alarms, watched: Function) -> None:
    """Whether what is done is written down."""
    alarms.add(
        "audit",
        _counted(watched, "AuditFailures"),
        "Rows of the audit log could not be written; they are in the function's own log.",
        of=watched.row.name,
        above=0,
    )


def function(alarms: Alarms, watched: Function) -> None:
    """Whether it fails, and whether it is turned away."""
    alarms.add(
        "function-errors",
        watched.function.metric_errors(period=_FIVE_MINUTES, statistic="sum"),
        "The function crashed, ran out of time or of memory.",
        of=watched.row.name,
        above=0,
    )
    alarms.add(
        "function-throttles",
        watched.function.metric_throttles(period=_FIVE_MINUTES, statistic="sum"),
        "Calls were refused: the function has as many sandboxes as it may.",
        of=watched.row.name,
        above=0,
    )


def models(alarms: Alarms, watched: Function) -> None:
    """Whether the models answer."""
    errors = cloudwatch.MathExpression(
        expression=f"IF(requests >= {_FEW_REQUESTS}, 100 * FILL(errors, 0) / requests, 0)",
        using_metrics={"errors": _counted(watched, "ModelErrors"), "requests": _counted(watched, "ModelRequests")},
        period=_FIVE_MINUTES,
        label="Per cent of the requests to models",
    )
    of = watched.row.name
    alarms.add("model-errors", errors, "More than a tenth of the requests to the models fail.", of=of, above=10)
    alarms.add(
        "model-left-alone",
        _counted(watched, "ModelSpared"),
        "A model failed again and again and is not asked: questions get passages only, and documents wait.",
        of=of,
        above=0,
    )


def models_closely(alarms: Alarms, watched: Function) -> None:
    """Whether somebody has what was agreed, with the model server or with the tenant."""
    of = watched.row.name
    alarms.add(
        "model-throttled",
        _counted(watched, "ModelThrottled"),
        "The model server refuses requests, because there are too many for what was agreed with it.",
        of=of,
        above=_FEW_REQUESTS,
    )
    alarms.add(
        "budget",
        _counted(watched, "BudgetRefusals"),
        "A tenant has used up what it may use of the models today, and is refused.",
        of=of,
        above=0,
    )


def rates(alarms: Alarms, watched: Function) -> None:
    """Whether somebody asks again and again beyond what was agreed."""
    alarms.add(
        "rate-limit",
        _counted(watched, "RateLimitHits"),
        "More than a hundred requests of keys or tenants that have made as many as they may.",
        of=watched.row.name,
        above=100,
    )


def attacks(alarms: Alarms, watched: Function) -> None:
    """Whether documents or questions are made to have an effect that they do not have."""
    alarms.add(
        "answers-withheld",
        _counted(watched, "AnswersWithheld"),
        "The model told its rules, and the answer was withheld: by order of a document, or of who asks.",
        above=0,
    )
    alarms.add(
        "answers-neutralised",
        _counted(watched, "AnswersNeutralised"),
        "The model wrote addresses that stand in nothing it was shown, and they were left out of more than 20 answers.",
        above=20,
    )


def function_closely(alarms: Alarms, watched: Function, reserved: int | None) -> None:
    """Whether it comes near its limits."""
    alarms.add(
        "function-duration",
        watched.function.metric_duration(period=_FIVE_MINUTES, statistic="max"),
        "A run took more than 80 % of the time that it may.",
        of=watched.row.name,
        above=0.8 * watched.row.timeout_seconds * 1000,
    )
    if reserved and reserved > 1:
        alarms.add(
            "function-concurrency",
            watched.function.metric(
                "ConcurrentExecutions", period=_FIVE_MINUTES, statistic="max", label="Sandboxes at once"
            ),
            "More than 80 % of the sandboxes that it may have are busy.",
            of=watched.row.name,
            above=0.8 * reserved,
            periods=3,
        )


def reconciling(alarms: Alarms, watched: Function) -> None:
    """Whether events are lost, documents wait in vain, or the chain is broken, and whether anybody looks."""
    # Of a run that does not begin there is no value: neither of this metric nor of those below.
    alarms.add(
        "reconcile-silent",
        _counted(watched, "ReconcileRuns"),
        "Bucket and index have not been compared for a quarter of an hour: drift, stuck documents and a broken chain "
        "would not be seen.",
        below=1,
        periods=3,  # one that begins a little late leaves a period empty
        missing=cloudwatch.TreatMissingData.BREACHING,
    )
    alarms.add(
        "drift",
        _counted(watched, "ReconcileDrift"),
        "The index was not as the bucket is: an event was lost, and its key has been named to ingest again.",
        above=0,
    )
    alarms.add(
        "documents-stuck",
        _counted(watched, "DocumentsStuck"),
        "Documents failed because nobody brought them, though they were asked for twice.",
        above=0,
    )
    alarms.add(
        "canary-upload",
        _counted(watched, "CanaryFailed"),
        "A document that proves the chain was not ready, or not gone, in time.",
        above=0,
    )


def api_failures(alarms: Alarms, rest: apigateway.RestApi) -> None:
    alarms.add(
        "api-5xx",
        _share(rest.metric_server_error(period=_FIVE_MINUTES, statistic="sum"), rest),
        "More than 5 % of the requests fail on our side.",
        above=5,
    )


def api_closely(alarms: Alarms, rest: apigateway.RestApi) -> None:
    alarms.add(
        "api-4xx",
        _share(rest.metric_client_error(period=_FIVE_MINUTES, statistic="sum"), rest),
        "Half of the requests are refused: a client is broken, or somebody tries things out.",
        above=50,
        periods=2,
    )
    alarms.add(
        "api-latency",
        rest.metric_latency(period=_MINUTE, statistic="p95"),
        "One request in twenty takes more than 5 seconds.",
        above=5000,
        periods=2,
    )


def database(alarms: Alarms, watched: Database, stage: Stage) -> None:
    def metric(name: str, statistic: str = "avg", identifier: str | None = None) -> cloudwatch.Metric:
        one = identifier or watched.instance.instance_identifier
        return cloudwatch.Metric(
            namespace="AWS/RDS",
            metric_name=name,
            dimensions_map={"DBInstanceIdentifier": one},
            statistic=statistic,
            period=_FIVE_MINUTES,
        )

    alarms.add(
        "database-cpu", metric("CPUUtilization"), "The database is busy for more than 80 %.", above=80, periods=3
    )
    alarms.add(
        "database-storage",
        metric("FreeStorageSpace", "min"),
        "Less than a tenth of the first storage is free, and growing by itself has not helped.",
        below=0.1 * stage.database_gib * _GIBIBYTE,
    )
    alarms.add(
        "database-memory",
        metric("FreeableMemory", "min"),
        "Less than 100 MiB of memory are left.",
        below=100 * _MEBIBYTE,
        periods=3,
    )
    alarms.add(
        "database-connections",
        metric("DatabaseConnections", "max"),
        "More than 80 % of the connections are taken.",
        above=0.8 * stage.database_connections,
        periods=2,
    )
    if watched.replica:
        alarms.add(
            "database-replica-lag",
            metric("ReplicaLag", "max", watched.replica.instance_identifier),
            "The replica is more than a minute behind.",
            above=60,
            periods=3,
        )
    if watched.proxy:
        pinned = cloudwatch.MathExpression(
            expression="100 * pinned / FILL(IF(open > 0, open), 1)",
            using_metrics={
                name: cloudwatch.Metric(
                    namespace="AWS/RDS",
                    metric_name=metric_name,
                    dimensions_map={"ProxyName": watched.proxy.db_proxy_name},
                    statistic="max",
                    period=_FIVE_MINUTES,
                )
                for name, metric_name in (
                    ("pinned", "DatabaseConnectionsCurrentlySessionPinned"),
                    ("open", "DatabaseConnections"),
                )
            },
            period=_FIVE_MINUTES,
            label="Pinned connections, %",
        )
        alarms.add(
            "database-pinning",
            pinned,
            "More than 5 % of the proxy's connections belong to one client each.",
            above=5,
            periods=3,
        )


def cache(alarms: Alarms, watched: Cache, stage: Stage) -> None:
    """A serverless cache is one resource; of nodes each has metrics of its own."""
    serverless = stage.cache == "serverless"
    names = [watched.cluster_id] if serverless else _nodes(watched, stage)
    dimension = "clusterId" if serverless else "CacheClusterId"
    for number, name in enumerate(names, start=1):
        of = "" if serverless else f"node-{number}"

        def metric(metric_name: str, statistic: str, dimensions: dict[str, str]) -> cloudwatch.Metric:
            return cloudwatch.Metric(
                namespace="AWS/ElastiCache",
                metric_name=metric_name,
                dimensions_map=dimensions,
                statistic=statistic,
                period=_FIVE_MINUTES,
            )

        place = {dimension: name}
        alarms.add(
            "cache-evictions",
            metric("Evictions", "sum", place),
            "Answers are thrown out to make room for others.",
            of=of,
            above=0,
            periods=3,
        )
        alarms.add(
            "cache-authentication",
            metric("AuthenticationFailures", "sum", place),
            "Somebody tries passwords, or a function has an old one.",
            of=of,
            above=0,
        )
        if not serverless:
            alarms.add(
                "cache-cpu",
                metric("EngineCPUUtilization", "avg", place),
                "The cache is busy for more than 80 %.",
                of=of,
                above=80,
                periods=3,
            )
            alarms.add(
                "cache-memory",
                metric("DatabaseMemoryUsagePercentage", "max", place),
                "More than 90 % of the cache's memory are full.",
                of=of,
                above=90,
                periods=3,
            )
            alarms.add(
                "cache-replication-lag",
                metric("ReplicationLag", "max", place),
                "The standby is more than ten seconds behind.",
                of=of,
                above=10,
                periods=3,
            )


def _counted(watched: Function, name: str, statistic: str = "sum") -> cloudwatch.Metric:
    """What the function itself counts."""
    return cloudwatch.Metric(
        namespace=watched.row.environment["POWERTOOLS_METRICS_NAMESPACE"],
        metric_name=name,
        dimensions_map={"service": watched.function.function_name},
        statistic=statistic,
        period=_FIVE_MINUTES,
    )


def _nodes(watched: Cache, stage: Stage) -> list[str]:
    """As ElastiCache names the nodes of a replication group."""
    return [f"{watched.cluster_id}-{number:03}" for number in range(1, stage.cache_nodes + 1)]


def _share(failures: cloudwatch.Metric, rest: apigateway.RestApi) -> cloudwatch.MathExpression:
    """Per cent of the requests, where there are enough to speak of it."""
    return cloudwatch.MathExpression(
        expression=f"IF(requests >= {_FEW_REQUESTS}, 100 * failures / requests, 0)",
        using_metrics={
            "failures": failures,
            "requests": rest.metric_count(period=_FIVE_MINUTES, statistic="sum"),
        },
        period=_FIVE_MINUTES,
        label="Per cent of the requests",
    )
