"""The dev templates drive a run: by their queues, events, functions and routes a document comes to its answer.

The functions run out of the repository; that their packages run too is `test_packaged_functions`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdk.templates import Template, Templates
from tests.acceptance.platform_process import PlatformProcess, assert_problem, platform_process, wait_for
from tests.infrastructure.reading import properties, starting

pytestmark = pytest.mark.slow

POLICY = "A customer may return a lamp within thirty days. The refund is paid to the card that was used."
QUESTION = {"question": "How many days may a customer take to return a lamp?"}
BUCKET = "rag-dev-documents-123456789012-us-east-1"


@pytest.fixture(scope="module")
def dev(templates: Templates) -> dict[str, Template]:
    return templates["dev"]


@pytest.fixture(scope="module")
def driven(dev: dict[str, Template], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    file = tmp_path_factory.mktemp("templates") / "dev.json"
    file.write_text(json.dumps(dev))
    with platform_process(
        command=[sys.executable, "-m", "tests.infrastructure.driven", "--templates", str(file)]
    ) as platform:
        yield platform


def test_every_queue_of_the_template_is_there_with_its_attributes(
    driven: PlatformProcess, dev: dict[str, Template]
) -> None:
    sqs = driven.client("sqs")
    found = properties(dev["data"], "AWS::SQS::Queue")
    assert {queue["QueueName"] for queue in found} > {"rag-dev-ingest", "rag-dev-maintain", "rag-dev-erase"}
    for queue in found:
        url = sqs.get_queue_url(QueueName=queue["QueueName"])["QueueUrl"]
        has = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert int(has["MessageRetentionPeriod"]) == queue["MessageRetentionPeriod"]
        assert int(has["VisibilityTimeout"]) == queue.get("VisibilityTimeout", 30)
        redrive = json.loads(has.get("RedrivePolicy", "{}"))
        assert int(redrive.get("maxReceiveCount", 0)) == queue.get("RedrivePolicy", {}).get("maxReceiveCount", 0)
        assert redrive.get("deadLetterTargetArn", "").endswith("-dead-letters") == ("RedrivePolicy" in queue)


def test_the_bucket_of_the_template_is_versioned_and_announces_its_events(
    driven: PlatformProcess, dev: dict[str, Template]
) -> None:
    s3 = driven.client("s3")
    bucket = starting(dev["data"], "AWS::S3::Bucket", "bucketsdocuments")["Properties"]
    assert driven.ready["bucket"] == BUCKET
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == bucket["VersioningConfiguration"]["Status"]
    told = s3.get_bucket_notification_configuration(Bucket=BUCKET)["QueueConfigurations"]
    wanted = bucket["NotificationConfiguration"]["QueueConfigurations"]
    assert [each["Events"] for each in told] == [[each["Event"]] for each in wanted]


def test_a_document_that_is_uploaded_comes_through_the_queue_and_is_cited(driven: PlatformProcess) -> None:
    with driven.api() as api:
        document = api.upload("refunds.md", POLICY.encode())
        api.wait_until_ready("default", {"refunds.md"})
        assert api.get(f"/v1/documents/{document}").json()["key"] == "refunds.md"
        answer = api.post("/v1/query", QUESTION)
        assert answer.status_code == 200, answer.text
        [citation] = answer.json()["citations"]
        assert citation["quote"] in POLICY
        assert "thirty days" in citation["quote"]
        streamed = api.post("/v1/query", QUESTION | {"stream": True})
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert api.http.delete(f"/v1/documents/{document}").status_code < 300
        wait_for(lambda: api.documents("default") == {})


def test_only_the_routes_of_the_template_exist_and_only_the_public_ones_need_no_key(driven: PlatformProcess) -> None:
    with driven.api(key="") as api:
        assert api.get("/health").status_code == 200
        assert_problem(api.get("/v1/documents"), 401)
        assert_problem(api.post("/v1/query", QUESTION), 401)
        assert_problem(api.get("/v1/nowhere"), 404)
    with driven.api() as api:
        assert_problem(api.get("/v1/nowhere"), 404)
        assert_problem(api.http.put("/v1/documents"), 404)


def test_a_sandbox_is_told_what_the_template_tells_the_function(
    driven: PlatformProcess, dev: dict[str, Template]
) -> None:
    with driven.api() as api:
        assert api.get("/v1/documents").status_code == 200
    for name in ("authorize", "query"):
        [function] = [
            each
            for each in properties(dev["service"], "AWS::Lambda::Function")
            if each["FunctionName"] == f"rag-dev-{name}"
        ]
        told = _environment(driven.sandboxes(name)[0])
        written = {
            key: value
            for key, value in function["Environment"]["Variables"].items()
            if isinstance(value, str) and key.startswith(("POWERTOOLS", "RAG_STAGE"))
        }
        assert written.items() <= told.items()
        assert told["_HANDLER"] == function["Handler"]
        assert told["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == str(function["MemorySize"])
        assert told.get("RAG_BUCKET") == (BUCKET if "RAG_BUCKET" in function["Environment"]["Variables"] else None)


def test_a_poisoned_event_is_among_the_dead_letters_after_as_many_deliveries_as_the_template_says(
    driven: PlatformProcess, dev: dict[str, Template]
) -> None:
    ready, sqs = driven.ready, driven.client("sqs")
    body = json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {}}]})
    message = sqs.send_message(QueueUrl=ready["queue_url"], MessageBody=body)["MessageId"]
    dead: list[Any] = []

    def died() -> bool:
        got = sqs.receive_message(QueueUrl=ready["dead_letter_queue_url"], WaitTimeSeconds=1)
        dead.extend(got.get("Messages", []))
        return bool(dead)

    wait_for(died, lambda: _ingest_log(driven)[-2000:])
    assert [each["Body"] for each in dead] == [body]
    [queue] = [each for each in properties(dev["data"], "AWS::SQS::Queue") if each["QueueName"] == "rag-dev-ingest"]
    failed = [line for line in _ingest_log(driven).splitlines() if "the message failed" in line and message in line]
    assert len(failed) == queue["RedrivePolicy"]["maxReceiveCount"]


def _environment(pid: int) -> dict[str, str]:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(variable.split("=", 1) for variable in variables if variable)


def _ingest_log(driven: PlatformProcess) -> str:
    return (driven.directory / "logs" / "ingest.log").read_text()
