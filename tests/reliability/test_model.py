"""The model fails in every way there is (group F): nothing wrong is stored, nobody waits for ever or pays twice."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import psycopg
import pytest

from rag import llm
from rag.deadline import Deadline
from rag.errors import BusyError, DeclinedError, EndlessError, UnavailableError
from rag.llm import LLM
from rag.types import Usage
from tests import fake_model
from tests.fake_model import FakeModel, Reply, send, send_json, unit
from tests.integration.deployment import BUCKET, Context, Deployment, notification, sample

RecordFault = Callable[..., None]

SMALL_CHUNKS = {"RAG_CHUNK_TOKENS": "20", "RAG_CHUNK_MAX_TOKENS": "60"}
ASKED = [{"role": "user", "content": "How long do refunds take?"}]


@pytest.fixture
def model() -> Iterator[FakeModel]:
    with fake_model.serving(FakeModel()) as served:
        yield served


def edge(model: FakeModel) -> LLM:
    return LLM(model.url, lambda: "key", embedding_model="fake", dimensions=4, chat_model="fake", answer_tokens=50)


def rows(deployment: Deployment, query: str) -> list[tuple[Any, ...]]:
    """What a superuser sees, behind row-level security."""
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return connection.execute(query.encode()).fetchall()


class Inbox:
    """The local queue, with the loop of the event source: what is done is deleted, what failed comes back."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._sqs = deployment.aws.client("sqs")
        attributes = {"VisibilityTimeout": "600"}
        self.url = self._sqs.create_queue(QueueName=f"model-{deployment.tenant}", Attributes=attributes)["QueueUrl"]
        deployment.settings["RAG_QUEUE_URL"] = self.url

    def send(self, *object_keys: str) -> None:
        for object_key in object_keys:
            self._sqs.send_message(QueueUrl=self.url, MessageBody=notification(object_key))

    def work_off(self, count: int, seconds: float) -> int:
        """Have the handler get what there is until so many documents are ready; return how often it got something."""
        from functions.ingest.handler import handler
        from local.event_source import record

        until, batches, ready = time.monotonic() + seconds, 0, 0
        with self._deployment.function("rag_ingest"):
            while ready < count:
                assert time.monotonic() < until
                messages = self._sqs.receive_message(
                    QueueUrl=self.url,
                    MaxNumberOfMessages=10,
                    WaitTimeSeconds=1,
                    AttributeNames=["All"],
                    MessageAttributeNames=["All"],
                ).get("Messages", [])
                if not messages:
                    continue
                batches += 1
                done = handler({"Records": [record(message) for message in messages]}, Context())
                failed = {item["itemIdentifier"] for item in done["batchItemFailures"]}
                for message in messages:
                    if message["MessageId"] not in failed:
                        self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                ready = rows(self._deployment, "select count(*) from documents where status = 'ready'")[0][0]
        return batches


@pytest.fixture
def inbox(deployment: Deployment) -> Iterator[Inbox]:
    opened = Inbox(deployment)
    yield opened
    opened._sqs.delete_queue(QueueUrl=opened.url)


def store(deployment: Deployment, key: str, text: str) -> str:
    object_key = f"{deployment.tenant}/default/{key}"
    deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=text)
    return object_key


@pytest.mark.faults_fast
def test_a_wait_that_fits_is_waited_for_given_in_seconds_or_as_a_date(
    model: FakeModel, record_fault: RecordFault
) -> None:
    waits = []

    def dated(handler: Any, body: dict[str, Any]) -> None:
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        fake_model.status(429, Retry_After=format_datetime(at, usegmt=True))(handler, body)

    given = {"seconds": fake_model.status(429, Retry_After="1"), "a date": dated, "nothing": fake_model.status(429)}
    for asked, reply in given.items():
        least = 0.0 if asked == "nothing" else 1.0
        model.script, model.arrivals = [reply], []
        assert len(edge(model).embed(["one"], Deadline.after(60))) == 1
        first, second = model.arrivals
        waits.append(second - first)
        assert second - first >= least, asked
    record_fault("F1", injected=3, violations=0, figure=f"waited {', '.join(f'{wait:.2f} s' for wait in waits)}")


@pytest.mark.faults_full
def test_a_wait_that_does_not_fit_is_the_queues_and_nobody_calls_before_it_is_over(
    deployment: Deployment, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, record_fault: RecordFault
) -> None:
    monkeypatch.setattr(llm, "PATIENCE_SECONDS", 0.5)
    # Those that are at work at once have called before anybody is told to wait.
    deployment.settings["RAG_INGEST_THREADS"] = "1"
    count, asked = 4, 4
    deployment.model.script = [fake_model.status(429, Retry_After=str(asked))]
    inbox.send(*(store(deployment, f"{n}.txt", f"Note {n} about rivers.") for n in range(count)))
    inbox.work_off(count, seconds=240)
    arrivals = deployment.model.arrivals
    early = [at for at in arrivals[1:] if at - arrivals[0] < asked]
    assert early == []
    assert len(arrivals) == count + 1
    assert rows(deployment, "select max(attempts) from documents")[0][0] <= 2
    figure = f"{len(arrivals) / count:.2f} calls per document, the next call after {arrivals[1] - arrivals[0]:.1f} s"
    record_fault("F1", injected=1, violations=len(early), figure=f"{figure} of {asked}")


FAULTS: dict[str, Reply] = {
    "500": fake_model.status(500),
    "502": fake_model.status(502),
    "503": fake_model.status(503),
    "reset": fake_model.reset,
    "half a body": fake_model.half,
}


@pytest.mark.faults_fast
@pytest.mark.parametrize("reply", FAULTS.values(), ids=FAULTS)
def test_a_model_that_always_fails_is_asked_three_times(model: FakeModel, reply: Reply) -> None:
    model.always = reply
    used = Usage()
    with pytest.raises(UnavailableError):
        edge(model).embed(["one"], Deadline.after(60), used)
    assert (len(model.requests), used.requests, used.errors) == (3, 3, 3)


@pytest.mark.faults_fast
def test_a_server_that_speaks_no_tls_is_a_typed_error(model: FakeModel) -> None:
    model.url = model.url.replace("http:", "https:")
    with pytest.raises(UnavailableError):
        edge(model).embed(["one"], Deadline.after(60))


@pytest.mark.faults_fast
def test_one_fault_in_ten_costs_little_and_fails_nobody(
    model: FakeModel, seed: int, monkeypatch: pytest.MonkeyPatch, record_fault: RecordFault
) -> None:
    monkeypatch.setattr(llm, "BACKOFF_SECONDS", 0.01)
    drawn, calls, injected = random.Random(seed), 300, 0
    kinds = list(FAULTS.values())

    def reply(handler: Any, body: dict[str, Any]) -> None:
        nonlocal injected
        if drawn.random() < 0.1:
            injected += 1
            drawn.choice(kinds)(handler, body)
        else:
            send_json(handler, fake_model.embeddings([unit(text, 4) for text in body["input"]]))

    model.always = reply
    used, opened, failed = Usage(), edge(model), 0
    for n in range(calls):
        try:
            opened.embed([f"text {n}"], Deadline.after(60), used)
        except UnavailableError:
            failed += 1
    amplification = len(model.requests) / calls
    assert used.requests == len(model.requests)
    assert amplification <= 1.2
    assert failed <= calls * 0.1**3 * 5
    record_fault(
        "F2", injected=injected, violations=0, figure=f"amplification {amplification:.2f}, {failed} of {calls} failed"
    )


def _by_embed(used: LLM, deadline: Deadline) -> None:
    used.embed(["one"], deadline)


def _by_stream(used: LLM, deadline: Deadline) -> None:
    used.stream(ASKED, deadline, lambda _: None)


def _by_complete(used: LLM, deadline: Deadline) -> None:
    used.complete(ASKED, deadline)


WORDS = b"data: " + json.dumps(fake_model.chunk({"content": ""})).encode() + b"\n\n"
SLOW: dict[str, tuple[Reply, Callable[[LLM, Deadline], None]]] = {
    "slow header": (fake_model.late(60), _by_embed),
    "dripping body": (fake_model.drip(60), _by_embed),
    "dripping answer": (fake_model.drip(60), _by_complete),
    "slow header of a stream": (fake_model.late(60), _by_stream),
    "endless stream": (fake_model.endless(WORDS, "text/event-stream"), _by_stream),
    "dripping stream": (fake_model.speak("word " * 1000, seconds=0.05), _by_stream),
}


@pytest.mark.faults_fast
def test_whatever_is_slow_ends_at_the_deadline(model: FakeModel, record_fault: RecordFault) -> None:
    overshoots: dict[str, float] = {}
    for kind, (reply, ask) in SLOW.items():
        model.always = None
        opened = edge(model)
        opened.embed(["one"], Deadline.after(60))  # the SDK is there
        model.always = reply
        late: list[float] = []
        while len(late) < 3 or (min(late) > 0.25 and len(late) < 8):
            deadline = Deadline.after(0.5)
            with pytest.raises(UnavailableError):
                ask(opened, deadline)
            late.append(-deadline.remaining())
        # Of several: what a busy machine adds is none of ours.
        overshoots[kind] = min(late)
    slowest = max(overshoots, key=lambda kind: overshoots[kind])
    assert overshoots[slowest] <= 0.25
    record_fault(
        "F3", injected=3 * len(SLOW), violations=0, figure=f"overshoot {overshoots[slowest]:.3f} s ({slowest})"
    )


def _vectors(vectors: Callable[[list[str]], list[list[float]]]) -> Reply:
    return lambda handler, body: send_json(handler, fake_model.embeddings(vectors(body["input"])))


def _duplicate(handler: Any, body: dict[str, Any]) -> None:
    answer = fake_model.embeddings([unit(text, 4) for text in body["input"]])
    answer["data"] = [answer["data"][0] for _ in answer["data"]]
    send_json(handler, answer)


BAD: dict[str, Reply] = {
    "HTML": lambda h, _: send(h, b"<html>hello</html>", 200, "text/html"),
    "cut JSON": lambda h, _: send(h, b'{"data": [', 200, "application/json"),
    "wrong type": lambda h, _: send_json(h, {"data": "nothing"}),
    "short list": _vectors(lambda texts: [unit(text, 4) for text in texts[1:]]),
    "long list": _vectors(lambda texts: [unit(text, 4) for text in [*texts, "more"]]),
    "empty list": _vectors(lambda _: []),
    "same index twice": _duplicate,
    "too narrow": _vectors(lambda texts: [[1.0] * 3 for _ in texts]),
    "too wide": _vectors(lambda texts: [[1.0] * 5 for _ in texts]),
    "not a number": _vectors(lambda texts: [[float("nan")] * 4 for _ in texts]),
    "infinite": _vectors(lambda texts: [[float("inf")] * 4 for _ in texts]),
    "zero": _vectors(lambda texts: [[0.0] * 4 for _ in texts]),
    "denormal": _vectors(lambda texts: [[1e-45] * 4 for _ in texts]),
    "endless": fake_model.endless(b" " * 1_000_000),
    "packed": fake_model.packed,
}


@pytest.mark.faults_full
def test_nothing_that_is_not_what_was_asked_for_is_stored(
    deployment: Deployment, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, record_fault: RecordFault
) -> None:
    monkeypatch.setattr(llm, "BACKOFF_SECONDS", 0.0)
    deployment.settings |= SMALL_CHUNKS
    places = ("trains", "canals", "bridges")
    text = "\n\n".join(f"# On {place}\n\n" + f"The {place} were measured. " * 9 for place in places)
    event = notification(store(deployment, "note.md", text))
    wrong = 0
    for kind, reply in BAD.items():
        deployment.model.always = reply
        assert deployment.ingest(event)["batchItemFailures"], kind
        wrong += rows(
            deployment, "select (select count(*) from embeddings) + (select count(*) from pending_embeddings)"
        )[0][0]
        assert deployment.documents()["note.md"]["status"] == "processing", kind
    assert wrong == 0
    deployment.model.always = lambda h, b: send_json(
        h, fake_model.embeddings([unit(each, 4) for each in b["input"]], order=list(range(len(b["input"])))[::-1])
    )
    assert deployment.ingest(event) == {"batchItemFailures": []}
    for content in places:
        [hit, *_] = deployment.ask("POST", "/v1/search", {"query": f"The {content} were measured."}).json["hits"]
        assert content in hit["content"]
    record_fault(
        "F4",
        injected=len(BAD) + 1,
        violations=wrong,
        figure=f"{wrong} wrong vectors stored, shuffled ones put in order",
    )


@pytest.mark.faults_fast
def test_more_bytes_than_any_batch_has_are_not_taken_and_not_asked_for_again(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "MOST_BYTES", 5_000_000)
    for reply in (
        fake_model.endless(b" " * 1_000_000),
        fake_model.packed,
        lambda h, _: send(h, b" " * 6_000_000, 200, "application/json"),
    ):
        model.always, model.requests = reply, []
        with pytest.raises(EndlessError):
            edge(model).embed(["one"], Deadline.after(60))
        assert len(model.requests) == 1


@pytest.mark.faults_full
def test_only_the_batches_that_are_missing_are_embedded_again(
    deployment: Deployment, inbox: Inbox, record_fault: RecordFault
) -> None:
    embedded: Counter[str] = Counter()

    def reply(handler: Any, body: dict[str, Any]) -> None:
        embedded.update(body["input"])
        send_json(handler, fake_model.embeddings([unit(text, 4) for text in body["input"]]))

    tale = (
        "tells how the trains of the county went on time, by which line and at what cost, and who had paid for it, in"
    )
    text = "\n\n".join(f"# Part {n}\n\nPart {n} {tale} the year {1000 + n}." for n in range(300))
    deployment.model.always = reply
    deployment.model.script = [reply, reply, fake_model.status(400, Retry_After="1")]
    deployment.settings |= SMALL_CHUNKS | {"RAG_BATCH_SIZE": "60"}
    inbox.send(store(deployment, "parts.md", text))
    assert inbox.work_off(1, seconds=240) == 2
    calls, batches = len(deployment.model.requests), len(embedded) // 60
    again = sum(count - 1 for count in embedded.values())
    assert (len(embedded), again, calls) == (300, 0, batches + 1)
    record_fault(
        "F5",
        injected=1,
        violations=again,
        figure=f"{again} of {len(embedded)} chunks embedded again, {calls} calls for {batches} batches",
    )


@pytest.mark.faults_fast
def test_an_answer_that_is_cut_in_the_middle_is_not_kept(deployment: Deployment, record_fault: RecordFault) -> None:
    deployment.model.says = "Refunds are paid within nine working days. [1]"
    deployment.put("refunds.md", "Refunds are paid within nine working days.")
    cut = [fake_model.half, fake_model.reset, fake_model.status(400)]
    kept = 0
    for n, reply in enumerate(cut):
        question = {"question": f"How long do refunds take, asked for the time {n}?"}
        assert deployment.ask("POST", "/v1/search", {"query": question["question"]}).status == 200
        deployment.model.script = [reply] * (1 if n == 2 else 3)
        broken = deployment.ask("POST", "/v1/query", question).json
        assert (broken["degraded"], broken["model"], broken["citations"]) == ("retrieval_only", None, [])
        whole = deployment.ask("POST", "/v1/query", question).json
        kept += whole["cached"]
        assert whole["answer"] == deployment.model.says
    assert kept == 0
    record_fault("F6", injected=len(cut), violations=kept, figure=f"{kept} cached partials")


def _choice(message: dict[str, Any], finish_reason: str = "stop") -> Reply:
    answer = fake_model.chat("")
    answer["choices"] = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}]
    return lambda handler, _: send_json(handler, answer)


ODD: dict[str, tuple[Reply, type[UnavailableError], int]] = {
    "nothing": (_choice({"content": None}), UnavailableError, 3),
    "blanks": (_choice({"content": " \n "}), UnavailableError, 3),
    "refusal": (_choice({"content": None, "refusal": "I will not."}), DeclinedError, 1),
    "filtered": (_choice({"content": "Half of"}, "content_filter"), DeclinedError, 1),
    "a million tokens": (_choice({"content": "word " * 1_000_000}), EndlessError, 1),
}


@pytest.mark.faults_fast
def test_a_model_that_says_nothing_declines_or_never_ends_is_told_from_an_answer(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch, record_fault: RecordFault
) -> None:
    monkeypatch.setattr(llm, "BACKOFF_SECONDS", 0.0)
    for kind, (reply, error, calls) in ODD.items():
        model.always, model.requests = reply, []
        with pytest.raises(error):
            edge(model).complete(ASKED, Deadline.after(60), most_tokens=40)
        assert len(model.requests) == calls, kind
        assert {request["max_tokens"] for request in model.requests} == {40}
    model.always, model.requests = fake_model.speak("word " * 100_000), []
    said: list[str] = []
    with pytest.raises(EndlessError):
        edge(model).stream(ASKED, Deadline.after(60), said.append, most_tokens=40)
    assert len("".join(said)) <= 40 * 32
    assert len(model.requests) == 1
    record_fault(
        "F7", injected=len(ODD) + 1, violations=0, figure=f"{len(ODD) + 1}/{len(ODD) + 1} told apart, none endless"
    )


@pytest.mark.faults_full
def test_a_model_that_is_down_is_left_alone_and_found_again_when_it_is_back(
    deployment: Deployment, record_fault: RecordFault
) -> None:
    from functions.query.handler import handler

    deployment.model.says = "Refunds are paid within nine working days. [1]"
    deployment.put("refunds.md", "Refunds are paid within nine working days.")
    event = sample("query/ask.json") | {"body": json.dumps({"question": "How long do refunds take?"})}
    event["requestContext"]["authorizer"] |= {"tenant_id": str(deployment.tenant), "role": "admin"}

    def ask() -> dict[str, Any]:
        reply = handler(event, Context())
        assert reply["statusCode"] == 200
        return dict(json.loads(reply["body"]))

    deployment.model.always = fake_model.status(503)
    deployment.model.requests.clear()
    deployment.model.arrivals.clear()
    degraded: Counter[Any] = Counter()
    took: list[float] = []
    down_seconds = 17.0
    with deployment.function("rag_query"):
        started = time.monotonic()
        while time.monotonic() < started + down_seconds:
            asked = time.monotonic()
            degraded[ask()["degraded"]] += 1
            took.append(time.monotonic() - asked)
            time.sleep(0.1)
        assert set(degraded) == {"retrieval_only"}
        at: dict[str, list[float]] = {"embedding": [], "chat": []}
        for request, arrived in zip(deployment.model.requests, deployment.model.arrivals, strict=True):
            at["embedding" if "input" in request else "chat"].append(arrived)
        deployment.model.always = None
        healed = time.monotonic()
        while ask()["degraded"] is not None:
            assert time.monotonic() < healed + 60
            time.sleep(0.1)
        to_close = time.monotonic() - healed
    open_calls = {}
    for each, times in at.items():
        opened = times[llm.FAILURES - 1]
        while_open = [arrived for arrived in times if arrived > opened]
        open_calls[each] = len(while_open)
        gaps = [later - before for before, later in zip([opened, *while_open], while_open, strict=False)]
        assert all(gap >= llm.PAUSE_SECONDS for gap in gaps), each
    assert to_close <= 2 * llm.PAUSE_SECONDS + 10
    figure = f"{open_calls} calls in {down_seconds:.0f} s open, closed {to_close:.1f} s after it was back"
    median = sorted(took)[len(took) // 2]
    record_fault(
        "F8", injected=len(took), violations=0, figure=f"{figure}, {1000 * median:.0f} ms per question meanwhile"
    )


@pytest.mark.faults_fast
def test_who_is_refused_while_a_model_is_left_alone_is_told_when_to_come_again(model: FakeModel) -> None:
    model.always = fake_model.status(503)
    opened = edge(model)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            opened.embed(["one"], Deadline.after(60))
    assert len(model.requests) == llm.FAILURES
    used = Usage()
    with pytest.raises(BusyError) as busy:
        opened.embed(["one"], Deadline.after(60), used)
    assert 0 < (busy.value.retry_after_seconds or 0) <= llm.PAUSE_SECONDS
    assert (used.requests, used.spared) == (0, 1)
    # Its chat model is another one, and nobody has asked it yet.
    model.always = None
    assert opened.complete(ASKED, Deadline.after(60)).text


@pytest.mark.faults_fast
def test_what_is_wrong_with_a_request_says_nothing_about_the_model(model: FakeModel) -> None:
    model.always = fake_model.status(400)
    opened = edge(model)
    for _ in range(2 * llm.FAILURES):
        with pytest.raises(UnavailableError, match="400"):
            opened.embed(["one"], Deadline.after(60))
    assert len(model.requests) == 2 * llm.FAILURES


@pytest.mark.faults_full
@pytest.mark.usefixtures("one_day")
def test_a_tenant_that_used_up_its_budget_is_refused_alone(deployment: Deployment, record_fault: RecordFault) -> None:
    other, _ = deployment.tenants.create("second")
    for tenant in (deployment.tenant, other):
        deployment.put("refunds.md", "Refunds are paid within nine working days.", tenant=tenant)
    deployment.settings["RAG_TENANT_REQUESTS_PER_DAY"] = "8"
    statuses: dict[Any, Counter[int]] = {deployment.tenant: Counter(), other: Counter()}
    for n in range(12):
        for tenant, told in statuses.items():
            if tenant == deployment.tenant or n < 3:
                body = {"question": f"How long do refunds take, asked for the time {n}?"}
                told[deployment.ask("POST", "/v1/query", body, tenant=tenant).status] += 1
    assert statuses[deployment.tenant] == {200: 3, 429: 9}
    assert statuses[other] == {200: 3}
    errors = sum(count for status, count in statuses[other].items() if status != 200)
    record_fault("F9", injected=9, violations=errors, figure=f"{errors} errors of others, 9 of 12 refused with 429")
