"""The function that streams: the real API under its own runtime loop in a real sandbox, behind the gateway."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from functions.table import ANSWER
from local.code import of_repository
from tests import fake_model
from tests.integration.deployment import Deployment, deployed, sample
from tests.integration.streaming import Streaming, streaming

pytestmark = pytest.mark.slow

CODE = of_repository()
SAYS = "Refunds are paid within nine working days. [1] Parcels take three. [1]"
PLAIN = "Refunds are paid within nine working days. Parcels take three."
STREAM_SECONDS = 30
# How a line of metrics begins (CloudWatch's embedded metric format).
METRICS = '{"_aws"'


@dataclass
class Answering(Streaming):
    deployment: Deployment

    def script(self, reply: fake_model.Reply) -> None:
        """What the chat model says next, once the question is embedded."""
        self.deployment.model.script = [_embed, reply]

    def chats(self) -> int:
        return len([request for request in self.deployment.model.requests if "messages" in request])


def _embed(handler: Any, body: dict[str, Any]) -> None:
    vectors = [fake_model.unit(text, 4) for text in body["input"]]
    fake_model.send_json(handler, fake_model.embeddings(vectors))


@pytest.fixture(scope="module")
def answering(
    module_database: Any, aws: Any, valkey_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Answering]:
    folder = tmp_path_factory.mktemp("answer")
    with deployed(module_database, aws, valkey_server.url) as deployment:
        deployment.model.says = SAYS
        deployment.put("refunds.md", "Refunds are paid within nine working days. Parcels take three.")
        with _streaming(folder, deployment, seconds=STREAM_SECONDS) as running:
            yield Answering(running.url, running.function, running.log, running.loop, deployment)


def _streaming(folder: Path, deployment: Deployment, *, seconds: int) -> AbstractContextManager[Streaming]:
    assert ANSWER.wrapper is not None
    variables = {
        **deployment.settings,
        "RAG_DATABASE_URL": deployment.database.dsn(ANSWER.role),
        "RAG_STREAM_SECONDS": str(seconds),
        "PATH": os.defpath,
        **CODE.environment,
        "AWS_LAMBDA_FUNCTION_NAME": "answer",
        "AWS_LAMBDA_EXEC_WRAPPER": str(CODE.task_root / ANSWER.wrapper),
    }
    return streaming(folder, variables, task_root=CODE.task_root, tenant=deployment.tenant)


@pytest.fixture(autouse=True)
def _scripted(answering: Answering) -> Iterator[None]:
    answering.deployment.model.script = []
    answering.deployment.model.cut_off.clear()
    yield
    assert answering.deployment.model.script == []


def lasting(body: dict[str, Any]) -> dict[str, Any]:
    """What is the same in an answer that is given again."""
    return {
        name: value for name, value in body.items() if name not in {"timings_ms", "request_id", "cached", "question"}
    }


@pytest.mark.parametrize("name", ["answer/ask.json", "answer/stream.json"])
def test_a_sample_request_is_answered_with_a_prelude_and_what_follows_it(answering: Answering, name: str) -> None:
    event = sample(name)
    event["requestContext"]["authorizer"]["tenant_id"] = str(answering.deployment.tenant)
    invocation = answering.invoke(event)
    assert invocation.function_error is None
    prelude, body = invocation.payload.split(bytes(8))
    media_type = "text/event-stream; charset=utf-8" if "stream" in name else "application/json"
    headers = json.loads(prelude)["headers"]
    assert (json.loads(prelude)["statusCode"], headers["content-type"]) == (200, media_type)
    assert "content-length" not in headers
    assert b"nine working days" in body


def test_the_first_words_are_there_before_the_last_are_made(answering: Answering) -> None:
    heard = threading.Event()
    waited: list[bool] = []

    def at(number: int) -> None:
        if number == 3:
            waited.append(heard.wait(25))

    answering.script(fake_model.speak(SAYS, at=at))
    with answering.asking(question="How long until refunds come?") as telling:
        name, found = next(telling)
        assert (name, [hit["key"] for hit in found["hits"]]) == ("hits", ["refunds.md"])
        assert next(telling) == ("delta", {"text": "Refunds "})
        heard.set()
        rest = list(telling)
    assert waited == [True]
    assert [name for name, _ in rest][-2:] == ["delta", "answer"]


def test_the_last_event_is_what_the_same_question_gets_without_stream(answering: Answering) -> None:
    told = answering.told(question="How are refunds paid?", explain=True)
    answered = answering.ask(question="How are refunds paid?", explain=True)
    assert answered.headers["content-type"] == "application/json"
    final = told[-1][1]
    assert (final["cached"], answered.json()["cached"]) == (False, True)
    assert set(final) == set(answered.json())
    assert {**lasting(final), "explanation": None} == {**lasting(answered.json()), "explanation": None}
    assert final["usage"] == {"prompt_tokens": 10, "completion_tokens": 5}
    assert [citation["key"] for citation in final["citations"]] == ["refunds.md"] * len(final["citations"]) != []
    assert told[0][1]["hits"] == final["hits"]
    assert "".join(data["text"] for name, data in told if name == "delta") == PLAIN


def test_what_was_said_before_comes_at_once_and_costs_no_model_call(answering: Answering) -> None:
    answering.ask(question="Are refunds paid at all?")
    chats = answering.chats()
    told = answering.told(question="Are refunds paid at all?")
    assert [name for name, _ in told] == ["hits", "delta", "delta", "answer"]
    assert (told[1][1]["text"] + told[2][1]["text"], told[3][1]["cached"]) == (PLAIN, True)
    assert answering.chats() == chats


def test_what_nothing_answers_is_no_delta(answering: Answering) -> None:
    [(first, found), (last, answer)] = answering.told(question="zeppelins", mode="lexical")
    assert (first, found, last) == ("hits", {"hits": []}, "answer")
    assert (answer["model"], answer["citations"]) == (None, [])


def test_a_model_that_breaks_off_leaves_the_passages_and_nothing_is_kept(answering: Answering) -> None:
    answering.script(fake_model.speak("Refunds are", whole=False))
    told = answering.told(question="Do refunds break?")
    assert [data["text"] for name, data in told if name == "delta"] == ["Refunds "]
    assert (told[-1][0], told[-1][1]["degraded"]) == ("answer", "retrieval_only")
    assert answering.told(question="Do refunds break?")[-1][1]["cached"] is False


def test_a_model_that_is_too_slow_ends_at_the_deadline_of_streams(answering: Answering, tmp_path: Path) -> None:
    seconds = 5
    with _streaming(tmp_path, answering.deployment, seconds=seconds) as hurried:
        hurried.ask(question="How are refunds paid?")  # the sandbox is there
        answering.script(fake_model.speak("on " * 100, seconds=1))
        started = time.monotonic()
        told = hurried.told(question="Are refunds slow?")
        assert seconds - 1 < time.monotonic() - started < 50
    assert told[-1][1]["degraded"] == "retrieval_only"
    assert answering.deployment.model.cut_off.wait(60)


def test_a_conversation_goes_on_as_a_stream(answering: Answering) -> None:
    first = answering.told(question="How are refunds paid to me?", conversation=True)[-1][1]
    answering.deployment.model.script = [lambda h, _: fake_model.send_json(h, fake_model.chat("How are parcels paid?"))]
    again = answering.told(question="And parcels?", conversation_id=first["conversation_id"])[-1][1]
    assert again["conversation_id"] == first["conversation_id"]
    assert again["rewritten_question"] == "How are parcels paid?"


@pytest.mark.parametrize("options", [{}, {"stream": True}], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"question": 5}, 422),
        ({"question": "x", "collection": "absent"}, 404),
        ({"question": "x", "conversation_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}, 404),
        ({"question": "x" * 200_000}, 413),
    ],
    ids=["unfit", "no collection", "no conversation", "too large"],
)
def test_what_is_refused_is_a_problem_with_its_status(
    answering: Answering, body: dict[str, Any], status: int, options: dict[str, Any]
) -> None:
    response = answering.ask(**body, **options)
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"


def test_nobody_is_answered_without_a_key(answering: Answering) -> None:
    response = httpx.post(
        f"{answering.url}/v1/query", json={"question": "x", "stream": True}, trust_env=False, timeout=60
    )
    assert (response.status_code, response.headers["content-type"]) == (401, "application/problem+json")


def test_what_nobody_foresaw_is_told_and_leaves_the_body_broken_off(answering: Answering) -> None:
    def break_the_schema(number: int) -> None:
        if number == 1:
            with psycopg.connect(answering.deployment.database.superuser_dsn(), autocommit=True) as connection:
                connection.execute("alter table conversations rename to elsewhere")

    answering.script(fake_model.speak(SAYS, at=break_the_schema))
    told: list[tuple[str, Any]] = []
    try:
        with (
            pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
            answering.asking(question="Will refunds be kept?", conversation=True) as telling,
        ):
            told.extend(telling)  # what came before the break stays
    finally:
        with psycopg.connect(answering.deployment.database.superuser_dsn(), autocommit=True) as connection:
            connection.execute("alter table elsewhere rename to conversations")
    assert told[0][0] == "hits"
    assert (told[-1][0], told[-1][1]["status"]) == ("error", 500)
    assert "elsewhere" not in json.dumps(told[-1][1])
    assert "Error Type: UndefinedTable" in answering.log.read_text()
    assert answering.told(question="Will refunds be kept?")[-1][0] == "answer"


def test_a_client_who_leaves_ends_the_model_s_work_and_frees_the_sandbox(answering: Answering) -> None:
    before = answering.sandboxes()
    answering.script(fake_model.speak("on " * 100, seconds=1))
    with answering.asking(question="Are refunds left alone?") as telling:
        assert [next(telling)[0], next(telling)[0]] == ["hits", "delta"]
    assert answering.deployment.model.cut_off.wait(STREAM_SECONDS / 2)
    assert answering.told(question="Are refunds left alone?")[-1][1]["cached"] is False
    assert answering.sandboxes() == before
    assert '"message":"the client left"' in answering.log.read_text()


def test_what_a_client_was_told_before_it_left_is_counted(answering: Answering) -> None:
    def counted() -> Any:
        told = "select coalesce(sum(completion_tokens), 0) from model_usage where tenant_id = %s"
        with psycopg.connect(answering.deployment.database.superuser_dsn()) as connection:
            return connection.execute(told, [answering.deployment.tenant]).fetchone()

    before = counted()
    answering.script(fake_model.speak("one two three", seconds=2))
    with answering.asking(question="Who pays for refunds that nobody hears of?") as telling:
        assert [next(telling)[0], next(telling)[0]] == ["hits", "delta"]
    wait_until(lambda: counted() > before)


def test_every_invocation_has_its_metrics_and_its_report(answering: Answering, tmp_path: Path) -> None:
    with _streaming(tmp_path, answering.deployment, seconds=60) as alone:  # whose log no other test writes into
        told = [alone.told(question=f"How are refunds counted {times}?") for times in ("once", "twice")]
        assert [events[-1][0] for events in told] == ["answer"] * 2
        # The client has everything before the invocation has ended.
        wait_until(lambda: [len(_lines(alone.log, start)) for start in (METRICS, "REPORT")] == [2, 2])
        counted = [json.loads(line) for line in _lines(alone.log, METRICS)]
    assert [(each["Requests"], each["QueryRequests"], each["CacheMisses"]) for each in counted] == [
        ([1.0], [1.0], [1.0])
    ] * 2


def _lines(log: Path, start: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith(start)]


def wait_until(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_module_that_cannot_be_imported_is_an_error_of_the_init(tmp_path: Path, answering: Answering) -> None:
    assert ANSWER.wrapper is not None
    root = CODE.task_root
    variables = {"PATH": os.defpath, "AWS_LAMBDA_EXEC_WRAPPER": str(root / ANSWER.wrapper), "PYTHONNOUSERSITE": "1"}
    variables["PYTHONPATH"] = str(tmp_path)
    (tmp_path / "mangum.py").write_text("raise ImportError('it is broken')")
    with streaming(tmp_path, variables, task_root=root, tenant=answering.deployment.tenant) as running:
        for _ in range(2):
            invocation = running.invoke({})
            assert invocation.error_type == "Runtime.ImportModuleError"
            assert "it is broken" in invocation.payload.decode()
        assert running.ask(question="x").status_code == 502
