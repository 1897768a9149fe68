"""The part of OpenAI's HTTP protocol that the model server speaks: requests checked, responses shaped; no I/O.

https://platform.openai.com/docs/api-reference (embeddings, chat completions, errors)
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local.wordpieces import MODEL_ID, WIDTH

CHAT_MODEL_ID = "extractive-minilm-not-an-llm"

_MAXIMUM_INPUTS = 2048
_TEXT_PARTS = ("text", "input_text")

JSON = dict[str, Any]


class ProtocolError(Exception):
    """A request that OpenAI's servers would refuse; `status`, `param` and `code` as theirs."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> JSON:
        """The error object of OpenAI's responses."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    texts: list[str]
    as_base64: bool


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`messages` are (role, text) pairs."""

    messages: list[tuple[str, str]]
    maximum_tokens: int | None
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A completion: its text, why it ended, and what it used."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def embedding_request(body: bytes) -> EmbeddingRequest:
    """Check a body of `POST /v1/embeddings`; raises ProtocolError."""
    request = _object(body)
    _known_model(request, MODEL_ID)
    if request.get("dimensions", WIDTH) not in (WIDTH, None):
        raise ProtocolError(f"{MODEL_ID} has {WIDTH} dimensions and cannot be shortened.", param="dimensions")
    encoding = request.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise ProtocolError("'encoding_format' must be 'float' or 'base64'.", param="encoding_format")
    return EmbeddingRequest(_texts(request.get("input")), as_base64=encoding == "base64")


def embedding_response(vectors: Sequence[bytes], *, as_base64: bool, tokens: int) -> bytes:
    """The body that answers, as JSON; each vector is 384 little-endian float32."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if as_base64 else array("f", vector).tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": MODEL_ID, "usage": usage}).encode()


def chat_request(body: bytes) -> ChatRequest:
    """Check a body of `POST /v1/chat/completions`; raises ProtocolError. Sampling options change nothing here."""
    request = _object(body)
    _known_model(request, CHAT_MODEL_ID)
    if request.get("n") not in (None, 1):
        raise ProtocolError("Only one choice can be asked for.", param="n")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ProtocolError("'messages' must be a list of at least one message.", param="messages")
    options = request.get("stream_options") or {}
    return ChatRequest(
        messages=[_message(message, f"messages.[{index}]") for index, message in enumerate(messages)],
        maximum_tokens=_maximum_tokens(request),
        stream=bool(request.get("stream")),
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def chat_response(said: Said) -> JSON:
    """The body of a completion that is not streamed."""
    message = {"role": "assistant", "content": said.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish_reason}
    return {**_header("chat.completion"), "choices": [choice], "usage": said.usage}


def chat_events(said: Said, *, include_usage: bool) -> Iterator[bytes]:
    """The server-sent events of a streamed completion, one per word."""
    header = _header("chat.completion.chunk")
    if include_usage:
        header["usage"] = None

    def event(delta: JSON, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**header, "choices": [choice]})

    yield event({"role": "assistant", "content": ""})
    for word in re.findall(r"\s*\S+|\s+\Z", said.text):
        yield event({"content": word})
    yield event({}, said.finish_reason)
    if include_usage:
        yield _event({**header, "choices": [], "usage": said.usage})
    yield b"data: [DONE]\n\n"


def models_response() -> JSON:
    """The body of `GET /v1/models`."""
    entries = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in (MODEL_ID, CHAT_MODEL_ID)]
    return {"object": "list", "data": entries}


def _object(body: bytes) -> JSON:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError("The body is not JSON.") from None
    if not isinstance(request, dict):
        raise ProtocolError("The body must be a JSON object.")
    return request


def _known_model(request: JSON, known: str) -> None:
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise ProtocolError("You must provide a model parameter.", param="model")
    if model != known:
        raise ProtocolError(
            f"The model '{model}' does not exist; here it is '{known}'.",
            status=404,
            param="model",
            code="model_not_found",
        )


def _texts(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise ProtocolError("'input' must be a string or a list of at least one string.", param="input")
    if len(texts) > _MAXIMUM_INPUTS:
        raise ProtocolError(
            f"'input' has {len(texts)} entries; at most {_MAXIMUM_INPUTS} are taken at once.", param="input"
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ProtocolError(f"'input[{index}]' must be a string; token arrays are not supported.", param="input")
        if not text:
            raise ProtocolError(f"'input[{index}]' cannot be an empty string.", param="input")
    return [_encodable(text) for text in texts]


def _message(message: object, param: str) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ProtocolError("A message must be an object with a 'role'.", param=param)
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message["role"], _encodable(content or "")
    if not isinstance(content, list) or not all(_is_text(part) for part in content):
        raise ProtocolError("'content' must be a string or a list of text parts.", param=f"{param}.content")
    return message["role"], _encodable("\n".join(part["text"] for part in content))


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)


def _encodable(text: str) -> str:
    """JSON can spell half of a surrogate pair, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _maximum_tokens(request: JSON) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ProtocolError(f"'{name}' must be an integer of at least 1.", param=name)
        return value
    return None


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _header(kind: str) -> JSON:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": CHAT_MODEL_ID}


def _event(content: JSON) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"
