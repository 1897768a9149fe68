from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import time
import urllib.request
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from local.model_service import ModelServer
from rag.prompting import NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

EMBEDDINGS = "all-MiniLM-L6-v2"
CHAT = "extractive-minilm-not-an-llm"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    started = ModelServer(tmp_path_factory.mktemp("logs"))
    started.start()
    yield started
    started.stop()


@pytest.fixture
def client(server: ModelServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as opened:
        yield opened


def _asking(question: str, *passages: str) -> Any:
    lines = [
        json.dumps({"n": n, "title": "Book", "heading": None, "page": n, "text": text})
        for n, text in enumerate(passages, 1)
    ]
    user = "\n".join(["Passages (JSON lines):", *lines, "", f"Question: {json.dumps(question)}"])
    return [{"role": "system", "content": "Answer from the passages."}, {"role": "user", "content": user}]


PLANETS = _asking(
    "How long does Saturn take to orbit the Sun?",
    "Mars has two small moons. A year on Mars lasts 687 days.",
    "Saturn is a gas giant. It takes Saturn 29 years to orbit the Sun. Its rings are made of ice.",
)


def test_both_encodings_carry_the_same_vectors_in_the_order_of_the_input(client: openai.OpenAI) -> None:
    texts = ["a much longer text than the other one, which is short", "short", "of middling length"]
    floats = client.embeddings.create(model=EMBEDDINGS, input=texts, encoding_format="float")
    packed = client.embeddings.create(model=EMBEDDINGS, input=texts)  # the client asks for base64 by itself
    assert [item.index for item in floats.data] == [0, 1, 2]
    for one, other in zip(floats.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(x * x for x in one.embedding) == pytest.approx(1, abs=1e-5)
    alone = client.embeddings.create(model=EMBEDDINGS, input="short").data[0].embedding
    assert floats.data[1].embedding == pytest.approx(alone, abs=1e-6)
    assert floats.usage.total_tokens > 20


def test_base64_is_little_endian_float32_of_384_numbers(server: ModelServer) -> None:
    import base64

    body = {"model": EMBEDDINGS, "input": ["hello"], "encoding_format": "base64"}
    item = httpx.post(f"{server.url}/embeddings", json=body, timeout=60).json()["data"][0]
    numbers = struct.unpack("<384f", base64.b64decode(item["embedding"]))
    assert sum(x * x for x in numbers) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "about"),
    [
        ({"model": EMBEDDINGS, "input": ""}, 400, "empty"),
        ({"model": EMBEDDINGS, "input": ["fine", ""]}, 400, "input[1]"),
        ({"model": EMBEDDINGS, "input": []}, 400, "at least one"),
        ({"model": EMBEDDINGS, "input": [[101, 102]]}, 400, "token arrays"),
        ({"model": EMBEDDINGS, "input": [101, 102]}, 400, "token arrays"),
        ({"model": EMBEDDINGS, "input": ["x"] * 2049}, 400, "2048"),
        ({"model": EMBEDDINGS, "input": "x", "dimensions": 256}, 400, "384"),
        ({"model": EMBEDDINGS, "input": "x", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"model": "text-embedding-3-small", "input": "x"}, 404, EMBEDDINGS),
        ({"input": "x"}, 400, "model"),
        ([], 400, "object"),
    ],
)
def test_a_wrong_embedding_request_is_refused_in_openai_s_form(
    server: ModelServer, body: Any, status: int, about: str
) -> None:
    response = httpx.post(f"{server.url}/embeddings", json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, "invalid_request_error")
    assert about in error["message"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"model": "gpt-4o"}, 404),
        ({"messages": []}, 400),
        ({"messages": [{"content": "no role"}]}, 400),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
        ({"max_tokens": 0}, 400),
        ({"n": 2}, 400),
    ],
)
def test_a_wrong_chat_request_is_refused(server: ModelServer, changes: dict[str, Any], status: int) -> None:
    response = httpx.post(
        f"{server.url}/chat/completions", json={"model": CHAT, "messages": PLANETS, **changes}, timeout=60
    )
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_unknown_routes_methods_and_bodies_are_errors_of_the_same_form(server: ModelServer) -> None:
    answers = [
        httpx.get(f"{server.url}/nothing", timeout=60),
        httpx.get(f"{server.url}/embeddings", timeout=60),
        httpx.post(f"{server.url}/embeddings", content=b"{not json", timeout=60),
        httpx.post(
            f"{server.url}/embeddings", content=b'{"model": "all-MiniLM-L6-v2", "input": "\\ud800"}', timeout=60
        ),
    ]
    assert [answer.status_code for answer in answers] == [404, 405, 400, 200]
    assert all("message" in answer.json()["error"] for answer in answers[:3])


def test_the_answer_is_the_sentence_that_answers_with_its_marker(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model=CHAT, messages=PLANETS)
    assert (completion.choices[0].message.content or "").startswith("It takes Saturn 29 years to orbit the Sun. [2]")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == CHAT
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_passages_that_do_not_answer_get_the_agreed_phrase(client: openai.OpenAI) -> None:
    messages = _asking("Who painted the Mona Lisa?", "Mars has two small moons.", "Bread is baked from flour.")
    for asked in (messages, _asking("Who painted the Mona Lisa?")):
        completion = client.chat.completions.create(model=CHAT, messages=asked)
        assert completion.choices[0].message.content == NO_ANSWER


def test_anything_else_is_told_that_this_is_no_language_model(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "Write me a poem."}]}]
    completion = client.chat.completions.create(model=CHAT, messages=messages)
    assert "not a language model" in (completion.choices[0].message.content or "")


def test_max_tokens_cuts_the_answer_and_says_so(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model=CHAT, messages=PLANETS, max_tokens=4)
    assert completion.choices[0].message.content == "It takes Saturn 29"
    assert completion.choices[0].finish_reason == "length"


def test_the_streamed_answer_is_the_same_answer_and_ends_with_its_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=PLANETS)
    chunks = list(
        client.chat.completions.create(
            model=CHAT, messages=PLANETS, stream=True, stream_options={"include_usage": True}
        )
    )
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(words) > 5
    assert "".join(words) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage


def test_without_being_asked_for_usage_the_stream_carries_none(server: ModelServer) -> None:
    body = {"model": CHAT, "messages": PLANETS, "stream": True}
    events = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60)
    assert events.headers["content-type"].startswith("text/event-stream")
    assert "usage" not in events.text
    assert events.text.endswith("data: [DONE]\n\n")


def test_the_asynchronous_client_is_served_too(server: ModelServer) -> None:
    async def ask() -> list[int]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="any") as client:
            asking = [client.embeddings.create(model=EMBEDDINGS, input=f"text {n}") for n in range(5)]
            return [len(answer.data[0].embedding) for answer in await asyncio.gather(*asking)]

    assert asyncio.run(ask()) == [384] * 5


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [EMBEDDINGS, CHAT]


def test_a_question_overtakes_a_batch(server: ModelServer, client: openai.OpenAI) -> None:
    ended: list[str] = []

    def embed(name: str, texts: list[str]) -> None:
        client.embeddings.create(model=EMBEDDINGS, input=texts)
        ended.append(name)

    for _ in range(4):  # a question that the machine kept back until the batch was done says nothing
        ended.clear()
        batch = Thread(target=embed, args=("batch", ["one hundred words of text " * 20] * 60))
        batch.start()
        time.sleep(0.2)
        embed("question", ["Who is first?"])
        batch.join()
        if ended[0] == "question":
            break
    assert ended == ["question", "batch"]


def test_a_killed_worker_is_replaced_and_no_request_fails(server: ModelServer, client: openai.OpenAI) -> None:
    results: list[int] = []
    texts = ["one hundred words of text " * 20] * 40
    batch = Thread(target=lambda: results.append(len(client.embeddings.create(model=EMBEDDINGS, input=texts).data)))
    batch.start()
    time.sleep(0.2)
    killed = _workers(server)[0]
    os.kill(killed, signal.SIGKILL)
    batch.join()
    assert results == [40]
    assert _until(lambda: killed not in _workers(server))


def test_a_client_that_leaves_takes_its_work_along(server: ModelServer, client: openai.OpenAI) -> None:
    body = {"model": EMBEDDINGS, "input": ["one hundred words of text " * 20] * 2000}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/embeddings", json=body, timeout=1.5)
    # Of the same urgency, so it would wait minutes for what was abandoned.
    after = client.embeddings.create(model=EMBEDDINGS, input=["one hundred words of text " * 20] * 45, timeout=30)
    assert len(after.data) == 45


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_however_the_server_ends_no_worker_is_left(tmp_path: Path, ending: signal.Signals) -> None:
    server = ModelServer(tmp_path)
    server.start()
    assert server.process is not None
    workers = _workers(server)
    assert len(workers) == 2
    server.process.send_signal(ending)
    code = server.process.wait(60)
    assert code == (0 if ending == signal.SIGTERM else -signal.SIGKILL)
    assert _until(lambda: not any(_alive(pid) for pid in workers))


def _workers(server: ModelServer) -> list[int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health", timeout=60) as response:
        return list(json.load(response)["workers"])


def _alive(pid: int) -> bool:
    """Not gone and not a zombie that only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(true: Any) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False
