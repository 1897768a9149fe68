"""What is deployed does its work: each packaged function under Lambda's runtime client, against real services.

Under Python 3.13, with its own folder, its layers, the runtime's packages and nothing else to import.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cdk.packaging import layers_of
from functions.table import FUNCTIONS, FunctionRow
from local import code
from local.cli.demo import SAMPLES
from local.code import Code
from local.environment import BUCKET
from tests.acceptance.platform_process import ROOT, PlatformProcess, platform_process
from tests.infrastructure import unpacking
from tests.integration.streaming import events

pytestmark = pytest.mark.slow

EVENTS = ROOT / "events"
# The tenant, the bucket and the key that the sample events speak of.
SAMPLE_TENANT = "0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11"
SAMPLE_BUCKET = "rag-dev-documents"
SAMPLE_KEY = "rag_aB3dE5gH.secret"
STATUS = {"ask": 200, "create_document": 201, "health": 200, "list_documents": 200, "search": 200}

POLICY = """# Refunds

A customer may return a lamp within thirty days. The refund is paid to the card that was used.

# Shipping

Parcels leave the warehouse in Tromso on weekdays.
"""


@dataclass(frozen=True)
class Packaged:
    folder: Path
    listing: Path
    platform: PlatformProcess

    @property
    def code(self) -> dict[str, Code]:
        return code.of_packages(self.listing)

    def invoke(self, name: str, event: Any) -> tuple[Any, str | None]:
        """What the function returned, and Lambda's header for an error."""
        answer = self.sent(name, event)
        return answer.json(), answer.headers.get("x-amz-function-error")

    def sent(self, name: str, event: Any) -> httpx.Response:
        ready = self.platform.ready
        url = f"{ready['admin_url']}/2015-03-31/functions/{name}/invocations"
        headers = {"authorization": f"Bearer {ready['admin_token']}"}
        answer = httpx.post(url, json=event, headers=headers, timeout=120, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer

    def event(self, name: str) -> Any:
        """A sample, of the tenant, the bucket and the key that are here."""
        ready, text = self.platform.ready, (EVENTS / name).read_text()
        for sample, ours in (
            (SAMPLE_TENANT, ready["tenant_id"]),
            (SAMPLE_BUCKET, BUCKET),
            (SAMPLE_KEY, ready["api_key"]),
        ):
            text = text.replace(sample, ours)
        return json.loads(text)

    def files(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.folder.rglob("*")}


@pytest.fixture(scope="module")
def packaged() -> Iterator[Packaged]:
    folder = Path(tempfile.mkdtemp(prefix="rag-packages-")) / "lambda"
    try:
        listing = unpacking.unpack(folder)
        command = [sys.executable, "-m", "local.platform", "--packages", str(listing)]
        with platform_process(command=command) as platform:
            yield Packaged(folder, listing, platform)
    finally:
        unpacking.remove(folder.parent)


@pytest.fixture(scope="module")
def files_before(packaged: Packaged) -> dict[str, int]:
    return packaged.files()


def samples(*functions: str) -> list[str]:
    return [str(path.relative_to(EVENTS)) for name in functions for path in sorted((EVENTS / name).glob("*.json"))]


@pytest.mark.usefixtures("files_before")
def test_a_document_that_is_uploaded_is_ingested_through_the_queue_and_cited(packaged: Packaged) -> None:
    with packaged.platform.api() as api:
        api.upload("refunds.md", POLICY.encode())
        api.wait_until_ready("default", {"refunds.md"})
        question = {"question": "How many days may a customer take to return a lamp?"}
        answer = api.post("/v1/query", question)
        assert answer.status_code == 200, answer.text
        [citation] = answer.json()["citations"]
        assert "thirty days" in citation["quote"]
        assert citation["quote"] in POLICY
        assert api.post("/v1/query", {"question": "How many days may a customer take to return a lamp?"}).json()[
            "cached"
        ]


def test_an_answer_is_streamed_through_the_gateway_with_its_citation(packaged: Packaged) -> None:
    question = {"question": "From where do parcels leave, and on which days?", "stream": True}
    with packaged.platform.api() as api, api.http.stream("POST", "/v1/query", json=question) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        told = list(events(response.iter_text()))
    names = [name for name, _ in told]
    assert (names[0], names[-1]) == ("hits", "answer")
    assert names.count("delta") >= 1
    [*_, (_, answer)] = told
    assert any("Tromso" in citation["quote"] for citation in answer["citations"])
    assert all(citation["quote"] in POLICY for citation in answer["citations"])
    assert packaged.platform.sandboxes("answer")


def test_every_kind_of_document_is_read(packaged: Packaged) -> None:
    documents = {path.name: path for path in SAMPLES.iterdir() if path.name != "README.md"}
    with packaged.platform.api() as api:
        assert api.post("/v1/collections", {"name": "samples"}).status_code in {200, 201}
        for name, path in documents.items():
            api.upload(name, path.read_bytes(), collection="samples")
        api.wait_until_ready("samples", set(documents))


def test_a_request_without_a_key_is_turned_away_by_the_packaged_authorizer(packaged: Packaged) -> None:
    with packaged.platform.api(key="") as api:
        assert api.get("/v1/documents").status_code == 401
    with packaged.platform.api(key=SAMPLE_KEY) as api:
        assert api.get("/v1/documents").status_code == 401


@pytest.mark.parametrize("name", samples("query"))
def test_every_request_is_answered(packaged: Packaged, name: str) -> None:
    answer, error = packaged.invoke("query", packaged.event(name))
    assert error is None, answer
    assert answer["statusCode"] == STATUS[Path(name).stem], answer


@pytest.mark.parametrize("name", samples("answer"))
def test_every_question_is_answered_with_a_prelude_and_what_follows_it(packaged: Packaged, name: str) -> None:
    answer = packaged.sent("answer", packaged.event(name))
    assert "x-amz-function-error" not in answer.headers, answer.text
    prelude, body = answer.content.split(bytes(8))
    media_type = "text/event-stream; charset=utf-8" if "stream" in name else "application/json"
    assert json.loads(prelude)["statusCode"] == 200
    assert json.loads(prelude)["headers"]["content-type"] == media_type
    assert b"citations" in body


@pytest.mark.parametrize("name", sorted({*samples("authorize")} - {"authorize/token.json"}))
def test_a_key_that_exists_is_allowed_and_one_that_does_not_is_not(packaged: Packaged, name: str) -> None:
    policy, error = packaged.invoke("authorize", packaged.event(name))
    assert error is None, policy
    assert policy["context"]["tenant_id"] == packaged.platform.ready["tenant_id"]
    assert policy["policyDocument"]["Statement"][0]["Effect"] == "Allow"
    refusal, error = packaged.invoke("authorize", json.loads((EVENTS / name).read_text()))
    assert (refusal["errorMessage"], error) == ("Unauthorized", "Unhandled")


def test_a_token_that_nobody_signed_is_refused_by_the_packaged_verifier(packaged: Packaged) -> None:
    refusal, error = packaged.invoke("authorize", packaged.event("authorize/token.json"))
    assert (refusal["errorMessage"], error) == ("Unauthorized", "Unhandled")


@pytest.mark.parametrize("name", samples("ingest"))
def test_every_batch_is_worked_off_but_for_its_poison(packaged: Packaged, name: str) -> None:
    event = packaged.event(name)
    poison = [record["messageId"] for record in event["Records"] if not is_json(record["body"])]
    assert len(poison) == ("poison" in name)
    answer, error = packaged.invoke("ingest", event)
    assert error is None, answer
    assert [failure["itemIdentifier"] for failure in answer["batchItemFailures"]] == poison


@pytest.mark.parametrize("name", samples("maintain"))
def test_maintenance_runs(packaged: Packaged, name: str) -> None:
    answer, error = packaged.invoke("maintain", packaged.event(name))
    assert error is None, answer
    assert answer.keys() == {"changes", "recalls", "chunks_weighed", "statistics_added_up", "audit_rows_dropped"}


@pytest.mark.parametrize("name", samples("notify"))
def test_what_became_of_documents_is_told(packaged: Packaged, name: str) -> None:
    answer, error = packaged.invoke("notify", packaged.event(name))
    assert error is None, answer
    assert answer.keys() == {"buried", "told", "left", "given_up"}


@pytest.mark.parametrize("name", samples("reconcile"))
def test_bucket_and_index_are_compared(packaged: Packaged, name: str) -> None:
    answer, error = packaged.invoke("reconcile", packaged.event(name))
    assert error is None, answer
    assert answer.keys() == {"compared", "swept", "canary"}


@pytest.mark.parametrize("name", samples("migrate"))
def test_a_second_migration_has_nothing_to_do(packaged: Packaged, name: str) -> None:
    assert packaged.invoke("migrate", packaged.event(name)) == ({"applied": [], "warnings": []}, None)


def test_a_tenant_is_made_has_its_limits_and_is_erased(packaged: Packaged) -> None:
    made, error = packaged.invoke("tenants", packaged.event("tenants/create.json"))
    assert error is None, made
    with packaged.platform.api(key=made["api_key"]) as api:
        assert api.get("/v1/documents").json()["documents"] == []

    def sent(name: str) -> Any:
        answer, error = packaged.invoke("tenants", packaged.event(name) | {"tenant_id": made["tenant_id"]})
        assert error is None, answer
        return answer

    assert sent("tenants/limit.json")["tokens_per_day"] == 2_000_000
    assert sent("tenants/erase.json")["status"] == "pending"
    until = time.monotonic() + 240
    while (statuses := [each["status"] for each in sent("tenants/erasures.json")["erasures"]]) != ["done"]:
        assert time.monotonic() < until, statuses
        time.sleep(0.5)


@pytest.mark.parametrize("name", samples("erase"))
def test_what_is_erased_already_is_no_work(packaged: Packaged, name: str) -> None:
    answer, error = packaged.invoke("erase", packaged.event(name))
    assert error is None, answer
    assert answer in ({"batchItemFailures": []}, {"unfinished": 0})


def test_every_function_was_sent_its_events() -> None:
    tested = {
        "query",
        "answer",
        "authorize",
        "ingest",
        "maintain",
        "migrate",
        "notify",
        "reconcile",
        "tenants",
        "erase",
    }
    assert {path.name for path in EVENTS.iterdir()} == tested


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row.name)
def test_a_function_can_import_its_package_and_what_the_runtime_brings_and_nothing_else(
    packaged: Packaged, row: FunctionRow
) -> None:
    ran = packaged.code[row.name]
    program = "import json, sys; print(json.dumps([sys.path, sys.prefix, sys.base_prefix, sys.version_info[:2]]))"
    told = subprocess.run([ran.python, "-c", program], env=ran.environment, cwd="/", stdout=subprocess.PIPE, check=True)
    path, prefix, base, version = json.loads(told.stdout)
    assert version == [3, 13]
    library = [f"{base}/lib/{name}" for name in ("python313.zip", "python3.13", "python3.13/lib-dynload")]
    runtime = f"{prefix}/lib/python3.13/site-packages"
    assert path == ["", str(ran.task_root), *map(str, ran.layers), *library, runtime]
    assert prefix != base
    assert (ran.layers[0] / "kreuzberg").is_dir() == ("parsers" in {layer.name for layer in layers_of(row.folder)})


@pytest.mark.parametrize("name", ["authorize", "ingest", "query", "answer"])
def test_native_code_comes_from_the_layers_the_runtime_and_the_system_alone(packaged: Packaged, name: str) -> None:
    # The libraries of this machine's Python itself: libpython and its standard library's.
    interpreter = packaged.code[name].python
    program = "import sys; print(sys.base_prefix)"
    base = subprocess.run([interpreter, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    allowed = (str(packaged.folder), str(interpreter.parents[1]), base, "/usr/lib", "/lib")
    sandboxes = packaged.platform.sandboxes(name)
    assert sandboxes
    for pid in sandboxes:
        mapped = set(re.findall(r"(/\S+\.so\S*)$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE))
        assert any(path.startswith(str(packaged.folder)) for path in mapped)
        assert {path for path in mapped if not path.startswith(allowed)} == set()


def test_nothing_was_written_beside_the_code(packaged: Packaged, files_before: dict[str, int]) -> None:
    assert packaged.files() == files_before


def is_json(body: str) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
