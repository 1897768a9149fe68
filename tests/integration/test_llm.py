"""The model edge against a server that misbehaves."""

from __future__ import annotations

import math
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rag import llm
from rag.deadline import Deadline
from rag.errors import DeadlineError, ModelError, UnavailableError
from rag.llm import LLM
from rag.metering import Metered, Places
from rag.spending import Reservation, Settlement
from rag.types import Usage
from tests import fake_model
from tests.fake_model import FakeModel, send, send_json, unit

pytestmark = pytest.mark.slow
TENANT = uuid.UUID(int=7)


@pytest.fixture
def model() -> Iterator[FakeModel]:
    with fake_model.serving(FakeModel()) as served:
        yield served


class Unlimited:
    """The ledger of a tenant without a budget, which nobody reads."""

    def require(self, tenant_id: uuid.UUID, principal: str) -> None:
        return

    def reserve(
        self, tenant_id: uuid.UUID, principal: str, model: str, *, prompt_tokens: int, completion_tokens: int
    ) -> Reservation:
        return Reservation()

    def settle(self, settlement: Settlement) -> None:
        return


def edge(model: FakeModel) -> LLM:
    return LLM(
        model.url,
        lambda: "key",
        embedding_model="fake",
        dimensions=model.dimensions,
        chat_model="fake",
        answer_tokens=50,
    )


def directed(text: str) -> Any:
    """The fake's vector at length 1."""
    vector = unit(text, 4)
    return pytest.approx([value / math.hypot(*vector) for value in vector], rel=1e-6)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_vectors_of_any_length_keep_their_direction(model: FakeModel, scale: float) -> None:
    model.script = [lambda h, _: send_json(h, fake_model.embeddings([[scale * value for value in unit("one", 4)]]))]
    [vector] = edge(model).embed(["one"], soon())
    assert list(vector) == directed("one")


def soon() -> Deadline:
    return Deadline.after(60)


def test_vectors_come_back_in_the_order_of_the_texts(model: FakeModel) -> None:
    vectors = edge(model).embed(["one", "two"], soon())
    assert [list(vector) for vector in vectors] == [directed("one"), directed("two")]
    assert model.requests[0]["encoding_format"] == "base64"


EMBED = """
import sys
from rag.deadline import Deadline
from rag.llm import LLM
from rag.types import Usage
model = LLM(sys.argv[1], lambda: "key", embedding_model="fake", dimensions=4, chat_model="fake", answer_tokens=50)
model.embed(["one"], Deadline.after(60))
assert any(model.alive() for _ in range(5))
print("openai" in sys.modules)
"""


def test_a_client_that_is_opened_again_does_not_read_again_who_is_trusted(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = edge(model)
    opened.embed(["one"], soon())
    opened._end()
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", None)
    assert len(opened.embed(["two"], soon())) == 1


def test_who_only_embeds_never_imports_the_sdk(model: FakeModel) -> None:
    done = subprocess.run([sys.executable, "-c", EMBED, model.url], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_shuffled_vectors_are_put_in_order_of_their_index(model: FakeModel) -> None:
    model.script = [lambda h, b: send_json(h, fake_model.embeddings([unit(t, 4) for t in b["input"]], order=[1, 0]))]
    vectors = edge(model).embed(["one", "two"], soon())
    assert [list(vector) for vector in vectors] == [directed("one"), directed("two")]


@pytest.mark.parametrize(
    "vectors",
    [
        [],
        [[1.0, 2.0, 3.0, 4.0]],
        [[1.0, 2.0, 3.0]] * 2,
        [[0.0] * 4, [1.0] * 4],
        [[float("nan")] * 4, [1.0] * 4],
        [[float("inf")] * 4, [1.0] * 4],
        [[1.0] * 4] * 3,
    ],
    ids=["none", "too few", "too narrow", "zero", "not a number", "infinite", "too many"],
)
def test_vectors_that_are_not_what_was_asked_for_are_refused(model: FakeModel, vectors: list[list[float]]) -> None:
    model.script = [lambda h, _: send_json(h, fake_model.embeddings(vectors))] * 3
    with pytest.raises(ModelError):
        edge(model).embed(["one", "two"], soon())


@pytest.mark.parametrize(
    "reply",
    [
        lambda h, _: send(h, b"<html>hello</html>", 200, "text/html"),
        lambda h, _: send(h, b'{"data": [', 200, "application/json"),
        lambda h, _: send_json(h, {"data": "nothing"}),
        lambda h, _: send_json(h, []),
        lambda h, _: send_json(h, {"data": [{"index": 0, "embedding": "***"}]}),
    ],
    ids=["html", "cut json", "wrong type", "wrong shape", "not base64"],
)
def test_an_answer_that_is_no_list_of_embeddings_is_a_typed_error(model: FakeModel, reply: Any) -> None:
    model.script = [reply] * 3
    with pytest.raises(UnavailableError):
        edge(model).embed(["one"], soon())


def test_a_server_error_is_tried_again_and_a_refusal_is_not(model: FakeModel) -> None:
    model.script = [fake_model.status(503), fake_model.status(500)]
    assert len(edge(model).embed(["one"], soon())) == 1
    assert len(model.requests) == 3
    model.script = [fake_model.status(400)]
    with pytest.raises(UnavailableError, match="400"):
        edge(model).embed(["one"], soon())
    assert len(model.requests) == 4


def test_retry_after_is_obeyed_when_it_fits_and_passed_on_when_not(model: FakeModel) -> None:
    model.script = [fake_model.status(429, Retry_After="1")]
    started = time.monotonic()
    edge(model).embed(["one"], soon())
    assert time.monotonic() - started >= 1
    model.script = [fake_model.status(429, Retry_After="50")]
    with pytest.raises(UnavailableError) as failed:
        edge(model).embed(["one"], soon())
    assert failed.value.retry_after_seconds == 50


def test_batches_at_once_wait_for_a_model_that_asks_one_of_them_to(model: FakeModel) -> None:
    model.script = [fake_model.status(429, Retry_After="1")] * 3
    metered = Metered(edge(model), Unlimited(), TENANT, "ingest", Places(3))
    answers = list(metered.embed_each([["one"], ["two"], ["three"]], soon()))
    assert [(number, list(vector)) for number, [vector] in answers] == [
        (0, directed("one")),
        (1, directed("two")),
        (2, directed("three")),
    ]
    assert (metered.used.throttled, metered.used.requests) == (3, 6)


@pytest.mark.parametrize("nonsense", ["nan", "-1", "inf", "soon"])
def test_a_retry_after_that_is_no_time_is_ignored(model: FakeModel, nonsense: str) -> None:
    model.script = [fake_model.status(429, Retry_After=nonsense)]
    assert len(edge(model).embed(["one"], soon())) == 1


def test_a_dripping_answer_ends_at_the_deadline(model: FakeModel) -> None:
    model.script = [fake_model.drip(60)]
    started = time.monotonic()
    with pytest.raises(DeadlineError):
        edge(model).embed(["one"], Deadline.after(0.5))
    assert time.monotonic() - started < 30


def test_a_server_that_is_away_is_a_typed_error_and_not_alive() -> None:
    away = FakeModel()
    away.url = "http://127.0.0.1:1/v1"
    with pytest.raises(UnavailableError):
        edge(away).embed(["one"], soon())
    assert not edge(away).alive()


def test_a_completion_carries_its_text_and_usage(model: FakeModel) -> None:
    said = edge(model).complete([{"role": "user", "content": "hi"}], soon())
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("A plain sentence [1].", 10, 5)


@pytest.mark.parametrize("body", [fake_model.chat(None), fake_model.chat("  "), {"choices": []}, {}])
def test_a_model_that_says_nothing_is_a_typed_error(model: FakeModel, body: dict[str, Any]) -> None:
    model.script = [lambda h, _: send_json(h, body)] * 3
    with pytest.raises(UnavailableError):
        edge(model).complete([{"role": "user", "content": "hi"}], soon())


ASKED = [{"role": "user", "content": "hi"}]


def test_a_streamed_completion_is_said_piece_by_piece_and_is_the_same_in_the_end(model: FakeModel) -> None:
    model.says = "Refunds are paid. [1]"
    said: list[str] = []
    whole = edge(model).stream(ASKED, soon(), said.append)
    assert [piece for piece in said if piece] == ["Refunds", " are", " paid.", " [1]"]
    assert whole == edge(model).complete(ASKED, soon())
    streamed, plain = model.requests
    assert streamed == {**plain, "stream": True, "stream_options": {"include_usage": True}}


def test_the_first_piece_is_said_before_the_last_is_made(model: FakeModel) -> None:
    first = threading.Event()
    heard: list[bool] = []
    model.script = [fake_model.speak("one two", at=lambda number: heard.append(number == 0 or first.wait(30)))]
    edge(model).stream(ASKED, soon(), lambda piece: first.set() if piece == "one" else None)
    assert heard == [True, True]


def test_a_stream_that_is_refused_is_made_again_until_a_word_was_said(model: FakeModel) -> None:
    model.script = [fake_model.status(503), fake_model.speak("", whole=False)]
    said: list[str] = []
    assert edge(model).stream(ASKED, soon(), said.append).text == "A plain sentence [1]."
    assert len(model.requests) == 3
    model.script = [fake_model.speak("Half of", whole=False)]
    used = Usage()
    with pytest.raises(ModelError, match="broke off"):
        edge(model).stream(ASKED, soon(), said.append, used=used)
    assert len(model.requests) == 4
    assert (used.requests, used.errors, used.unfinished) == (1, 1, 1)


@pytest.mark.parametrize(
    "reply",
    [
        lambda h, _: send(h, b"<html>hello</html>", 200, "text/html"),
        lambda h, _: send(h, b"data: {\n\n", 200, "text/event-stream"),
        lambda h, _: send(h, b'data: {"choices": 1}\n\n', 200, "text/event-stream"),
        lambda h, _: send(h, b'data: {"error": {"message": "no"}}\n\n', 200, "text/event-stream"),
        fake_model.speak(" \0 "),
    ],
    ids=["html", "cut json", "wrong shape", "error", "nothing said"],
)
def test_a_stream_that_is_no_completion_is_a_typed_error(model: FakeModel, reply: Any) -> None:
    model.script = [reply] * 3
    with pytest.raises(UnavailableError):
        edge(model).stream(ASKED, soon(), lambda _: None)


@pytest.mark.parametrize("words", ["one two three", ""], ids=["midway", "before the first word"])
def test_whoever_hears_a_silent_model_can_end_its_request(model: FakeModel, words: str) -> None:
    def silent(handler: Any, body: dict[str, Any]) -> None:
        model.requests.append({"left": fake_model.left(handler, 60)})
        handler.close_connection = True

    model.script = [fake_model.speak(words, seconds=60) if words else silent]
    said: list[str] = []
    started = time.monotonic()

    def leave(piece: str) -> None:
        said.append(piece)
        if said[-2:] == ["", ""] and model.requests and any(said) == bool(words):
            raise InterruptedError

    one, used = edge(model), Usage()
    with pytest.raises(InterruptedError):
        one.stream(ASKED, soon(), leave, used=used)
    assert (used.requests, used.errors, used.unfinished) == (1, 0, 1)
    if words:
        assert model.cut_off.wait(30)
    else:
        wait_until(lambda: {"left": True} in model.requests)
    assert time.monotonic() - started < 50
    assert one.stream(ASKED, soon(), lambda _: None).text == "A plain sentence [1]."


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_stream_that_drips_ends_at_the_deadline_with_its_request(model: FakeModel) -> None:
    llm.preload()
    model.script = [fake_model.speak("on " * 300, seconds=0.2)]
    said: list[str] = []
    used = Usage()
    with pytest.raises(DeadlineError):
        edge(model).stream(ASKED, Deadline.after(4), said.append, used=used)
    assert any(said)
    assert used.unfinished == 1
    assert model.cut_off.wait(30)
