"""The Monitoring stack: who is told when something is wrong."""

from __future__ import annotations

from constructs import Construct

from cdk import watches
from cdk.alarms import Alarms
from cdk.budget import budget
from cdk.data import DataStack
from cdk.database_events import DatabaseEvents
from cdk.service import ServiceStack
from cdk.stack import StageStack
from cdk.stages import Stage
from cdk.topic import Topic, own_key
from functions.table import ANSWER, ASKING, QUERY, TENANTS


class MonitoringStack(StageStack):
    """Alarms, events, a budget, and the topic that they go to."""

    def __init__(self, scope: Construct, name: str, *, stage: Stage, data: DataStack, service: ServiceStack) -> None:
        super().__init__(scope, name, stage=stage, description="RAG: alarms and budget")
        key = data.keys.data or own_key(self, "Key")
        topic = Topic(self, "Topic", stage=stage, key=key)
        alarms = Alarms(self, "Alarms", stage=stage.name, topic=topic)
        arrivals, rest = data.arrivals, service.api.rest
        watches.dead_letters(
            alarms,
            {
                "ingest": arrivals.dead_letters,
                "maintain": arrivals.maintenance_dead_letters,
                "erase": arrivals.erasure_dead_letters,
                "failures": service.failures,
            },
        )
        watches.api_failures(alarms, rest)
        for function in service.functions:
            watches.function(alarms, function)
            if function.row in ASKING:
                watches.models(alarms, function)
            if function.row in {QUERY, ANSWER, TENANTS}:
                watches.auditing(alarms, function)
        watches.notifications(alarms, service.notify)
        watches.arrivals(alarms, service.ingest)
        watches.erasing(alarms, service.erase)
        watches.reconciling(alarms, service.reconcile)
        watches.database(alarms, data.database, stage)
        DatabaseEvents(self, "DatabaseEvents", stage=stage.name, database=data.database, topic=topic)
        watches.cache(alarms, data.cache, stage)
        if stage.watch_closely:
            watches.waiting(
                alarms,
                {"ingest": arrivals.queue, "maintain": arrivals.maintenance_queue, "erase": arrivals.erasure_queue},
            )
            watches.api_closely(alarms, rest)
            for function in service.functions:
                watches.function_closely(alarms, function, service.given.reserved(function.row))
                if function.row in ASKING:
                    watches.models_closely(alarms, function)
                if function.row.folder == QUERY.folder:
                    watches.rates(alarms, function)
                if function.row == ANSWER:
                    watches.attacks(alarms, function)
        budget(self, "Budget", stage=stage, topic=topic)
