"""What a model server sent, by OpenAI's protocol: taken when it is what was asked for, refused when it is not."""

from __future__ import annotations

import base64
import binascii
import json
import math
import sys
from array import array
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from rag.errors import DeclinedError, EndlessError, ModelError
from rag.types import Completion, Vector

_NO_EMBEDDINGS = "the model's answer is not a list of embeddings"
_NO_COMPLETION = "the model's answer is not a chat completion"
# Below it the numbers of a vector are so near the least of their type (2^-126) that they have lost digits.
_LEAST_LENGTH = 2.0**-102
_DECLINED = "the model declines to answer"
# The longest tokens of the vocabularies in use are runs of spaces; a text of more characters than this per token
# that was allowed is of a server that heeds no limit.
_CHARACTERS_PER_TOKEN = 32


def document(content: bytes) -> Any:
    """Return what a body in JSON says, whatever that is."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(_NO_EMBEDDINGS) from error


def vectors(response: Any, *, count: int, dimensions: int) -> list[Vector]:
    """Check what came back: `count` vectors, put in order of their index, of the width asked for, finite, not zero."""
    try:
        items = sorted(response["data"], key=itemgetter("index"))
        if [item["index"] for item in items] != list(range(count)):
            msg = f"the model sent {len(items)} vectors for {count} texts"
            raise ModelError(msg)
        return [_vector(item["embedding"], dimensions) for item in items]
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise ModelError(_NO_EMBEDDINGS) from error


def prompt_tokens(response: Any) -> int:
    """Return how many tokens the model says that it was sent; 0 when it does not say."""
    usage = response.get("usage")
    return _count(usage.get("prompt_tokens")) if isinstance(usage, dict) else 0


def completion(response: object, *, most_tokens: int) -> Completion:
    """Check what came back: a message with text in it, and no more of it than was asked for."""
    try:
        choice = response.choices[0]  # type: ignore[attr-defined]
        if choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None):
            raise DeclinedError(_DECLINED)
        text = _storable(choice.message.content)
        _refuse_endless(text, most_tokens)
        return _completion(text, response.model, getattr(response, "usage", None))  # type: ignore[attr-defined]
    except (AttributeError, IndexError, TypeError) as error:
        raise ModelError(_NO_COMPLETION) from error


def spoken(chunks: Iterable[object], hear: Callable[[str], None], *, most_tokens: int) -> Completion:
    """Put a completion together that comes in chunks, and pass on each piece of its text; one that breaks off is none.

    It is whole when the model has said why it ended; the usage comes after that, if at all.
    """
    text, model, usage, ended = "", "", None, False
    try:
        for chunk in chunks:
            model = chunk.model or model  # type: ignore[attr-defined]
            usage = getattr(chunk, "usage", None) or usage
            for choice in chunk.choices[:1]:  # type: ignore[attr-defined]
                if choice.finish_reason == "content_filter" or getattr(choice.delta, "refusal", None):
                    raise DeclinedError(_DECLINED)
                piece = _storable(choice.delta.content or "")
                ended = ended or choice.finish_reason is not None
                text += piece
                _refuse_endless(text, most_tokens)
                if piece:
                    hear(piece)
    except (AttributeError, TypeError) as error:
        raise ModelError(_NO_COMPLETION) from error
    if not ended:
        msg = "the model's answer broke off"
        raise ModelError(msg)
    return _completion(text, model, usage)


def _completion(text: str, model: object, usage: object) -> Completion:
    if not text.strip():
        msg = "the model said nothing"
        raise ModelError(msg)
    return Completion(
        text=text.strip(),
        model=str(model),
        prompt_tokens=_count(getattr(usage, "prompt_tokens", 0)),
        completion_tokens=_count(getattr(usage, "completion_tokens", 0)),
    )


def _count(value: object) -> int:
    """What is counted is paid for: neither text nor a negative number is believed."""
    return value if isinstance(value, int) and value > 0 else 0


def _refuse_endless(text: str, most_tokens: int) -> None:
    if len(text) > most_tokens * _CHARACTERS_PER_TOKEN:
        msg = f"the model said more than the {most_tokens} tokens that it was asked for"
        raise EndlessError(msg)


def _storable(text: str) -> str:
    """Without what neither JSON in UTF-8 nor PostgreSQL has a place for."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _vector(embedding: str | list[float], dimensions: int) -> Vector:
    vector = array("f")
    if isinstance(embedding, str):
        vector.frombytes(base64.b64decode(embedding, validate=True))
        if sys.byteorder == "big":
            vector.byteswap()
    else:
        vector.extend(embedding)
    if len(vector) != dimensions:
        msg = f"the model's vectors have {len(vector)} dimensions, not {dimensions}"
        raise ModelError(msg)
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not _LEAST_LENGTH <= length < math.inf:
        msg = "the model sent a vector that is zero or not finite"
        raise ModelError(msg)
    if abs(length - 1) < 1e-3:
        return vector
    # Only its direction counts, and at length 1 none of it is lost in half precision.
    return array("f", (value / length for value in vector))
