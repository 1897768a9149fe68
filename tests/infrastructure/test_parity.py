"""What a laptop wires is what the templates wire, but for the differences listed here, each with its reason."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from cdk.stages import STAGES, Stage
from cdk.templates import Templates
from functions.table import ERASE, FUNCTIONS, INGEST, MAINTAIN
from local import aws, environment
from local.plan import Announcement, Plan, Queue, Source, of_the_table
from tests.infrastructure.deployed import Deployed
from tests.infrastructure.reading import starting

# field → why the two may differ in it. Everything else of a plan is equal.
DIFFERENT = {
    "FunctionRow.warm": "a stage that pays for no SnapStart starts its sandboxes with the first event",
    "FunctionRow.temporary_mib": "a function with SnapStart cannot have more than 512 MiB",
    "Queue.retention_seconds": "a laptop may be off for two weeks; its wakings of maintenance are worth nothing",
    "Queue.visibility_seconds": "on AWS a minute is added, in which a batch may fill",
    "Queue.max_receives": "whoever tries out kill -9 by hand should not fill the dead letters by it",
    "Source.concurrency": "two cores here; a stage grants what its database bears",
    "Plan.concurrency": "two cores here; a stage reserves it, or leaves it to the account",
    "Plan.verdict_seconds": "verdicts are kept here, for two cores (decision 16)",
    "Plan.routes": "here the application says what there is; on AWS each of its routes is a resource",
    "Plan.settings_of": "values differ; that the names are the same is tested in test_settings",
}
ADDRESSES = environment.Addresses("http://aws", "q", "m", "e", 1, 2, aws.Credentials("id", "secret"))
MODEL = environment.local_model("http://model/v1")


@pytest.fixture(params=STAGES, ids=lambda stage: stage.name)
def stage(request: pytest.FixtureRequest) -> Stage:
    chosen: Stage = request.param
    return chosen


@pytest.fixture
def deployed(templates: Templates, stage: Stage) -> Plan:
    return Deployed(stage.name, templates[stage.name]).plan


@pytest.fixture(scope="module")
def local() -> Plan:
    return of_the_table()


def named(plan: Plan, stage: str) -> Plan:
    """The plan with the names of the laptop's resources in the place of the stage's."""
    ours = f"rag-{stage}-"

    def renamed(name: str) -> str:
        return name.replace(ours, "rag-local-").removesuffix(f"-{aws.ACCOUNT_ID}-{aws.REGION}")

    return replace(
        plan,
        bucket=replace(
            plan.bucket,
            name=renamed(plan.bucket.name),
            announcements=tuple(replace(each, queue=renamed(each.queue)) for each in plan.bucket.announcements),
        ),
        queues=tuple(
            replace(each, name=renamed(each.name), dead_letters=each.dead_letters and renamed(each.dead_letters))
            for each in plan.queues
        ),
        sources=tuple(replace(each, queue=renamed(each.queue)) for each in plan.sources),
    )


def alike(rows: Iterable[Any]) -> set[Any]:
    """The rows without the fields in which they may differ."""
    cleared = {
        field: {name.partition(".")[2]: None for name in DIFFERENT if name.startswith(f"{field}.")}
        for field in ("FunctionRow", "Queue", "Source")
    }
    return {replace(row, **cleared[type(row).__name__]) for row in rows}


def test_the_laptops_wiring_is_the_stages(deployed: Plan, local: Plan, stage: Stage) -> None:
    there = named(deployed, stage.name)
    assert alike(there.functions) == alike(local.functions) == alike(FUNCTIONS)
    assert there.bucket == local.bucket
    assert alike(there.queues) == alike(local.queues)
    assert alike(there.sources) == alike(local.sources)
    assert len(there.queues) == len(local.queues)


def test_what_starts_ahead_does_where_the_stage_pays_for_it(deployed: Plan, stage: Stage) -> None:
    assert [row.warm for row in deployed.functions] == [
        stage.snap_start and next(ours.warm for ours in FUNCTIONS if ours.name == row.name)
        for row in deployed.functions
    ]


def test_a_message_is_hidden_six_times_as_long_as_its_function_may_take(deployed: Plan, local: Plan) -> None:
    for row in (INGEST, MAINTAIN, ERASE):
        assert local.queue_of(row).visibility_seconds == 6 * row.timeout_seconds
        assert deployed.queue_of(row).visibility_seconds == 6 * row.timeout_seconds + 60


def test_each_route_of_a_stage_leads_to_the_same_function_on_a_laptop(deployed: Plan, local: Plan) -> None:
    ranked = sorted(local.routes, key=lambda route: route.weight)
    for route in deployed.routes:
        here = next(each for each in ranked if each.parameters(route.method, route.path) is not None)
        facts = [(each.function, each.authorized, each.streams, each.timeout_seconds) for each in (here, route)]
        assert facts[0] == facts[1], route
    assert {route.path for route in deployed.routes if not route.authorized} == {
        route.path for route in local.routes if not route.authorized
    }


def test_what_is_not_replaced_is_told_as_the_template_says(deployed: Plan, local: Plan) -> None:
    for row in deployed.functions:
        ours = next(each for each in local.functions if each.name == row.name)
        there, here = (plan.settings_of(each, ADDRESSES, MODEL) for plan, each in ((deployed, row), (local, ours)))
        assert {name for name in there if name.startswith("RAG_")} == set(here)


def test_a_difference_that_is_listed_is_one(templates: Templates, local: Plan) -> None:
    """A reason whose difference has gone goes too."""
    plans = [named(Deployed(stage.name, templates[stage.name]).plan, stage.name) for stage in STAGES]
    for field in DIFFERENT:
        owner, _, name = field.partition(".")
        assert any(_values(plan, owner, name) != _values(local, owner, name) for plan in plans), field


def _values(plan: Plan, owner: str, name: str) -> Any:
    rows = {"FunctionRow": plan.functions, "Queue": plan.queues, "Source": plan.sources}.get(owner)
    return getattr(plan, name) if rows is None else {_key(row): getattr(row, name) for row in rows}


def _key(row: Any) -> str:
    return str(row.function if isinstance(row, Source) else row.name)


def test_what_the_template_says_is_what_is_planned(templates: Templates) -> None:
    changed = copy.deepcopy(templates["dev"])
    told = starting(changed["data"], "AWS::S3::Bucket", "bucketsdocuments")["Properties"]["NotificationConfiguration"]
    told["QueueConfigurations"][0]["Filter"] = {"S3Key": {"Rules": [{"Name": "suffix", "Value": ".pdf"}]}}
    starting(changed["data"], "AWS::SQS::Queue", "arrivalsingestAC")["Properties"]["VisibilityTimeout"] = 99
    source = starting(changed["service"], "AWS::Lambda::EventSourceMapping", "Ingest")["Properties"]
    source |= {"BatchSize": 3, "MaximumBatchingWindowInSeconds": 7, "FunctionResponseTypes": []}
    source["ScalingConfig"] = {"MaximumConcurrency": 5}
    starting(changed["service"], "AWS::Lambda::Function", "Ingest")["Properties"]["Timeout"] = 77
    schedule = starting(changed["service"], "AWS::Scheduler::Schedule", "SchedulesMaintain")["Properties"]
    schedule["ScheduleExpression"] = "rate(2 hours)"
    starting(changed["service"], "AWS::ApiGateway::Method", "ApiRestv1search")["Properties"]["AuthorizationType"] = (
        "NONE"
    )
    plan = Deployed("dev", changed).plan
    assert plan.bucket.announcements[0] == Announcement("rag-dev-ingest", "s3:ObjectCreated:*", suffix=".pdf")
    assert plan.queue_of(INGEST) == Queue("rag-dev-ingest", 4 * 24 * 3600, 99, "rag-dev-ingest-dead-letters", 5)
    assert Source("ingest", "rag-dev-ingest", 3, 5, window_seconds=7, reports_failures=False) in plan.sources
    rows = {row.name: row for row in plan.functions}
    assert (rows["ingest"].timeout_seconds, rows["maintain"].schedule_seconds) == (77, 7200)
    assert "/v1/search" in {route.path for route in plan.routes if not route.authorized}


def test_a_value_that_cannot_be_resolved_is_an_error_and_no_guess(templates: Templates) -> None:
    with pytest.raises(NotImplementedError, match="Fn::Cidr"):
        Deployed("dev", templates["dev"]).value({"Fn::Cidr": ["10.0.0.0/16", 2]})
