"""What the model server and the cache take by themselves, asked over one kept connection without any SDK."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

import redis

from local import environment

# A vector of 384 as the product keeps it: base64 in JSON.
_KEPT = b"x" * 2200


class BareModel:
    """One question embedded by one POST."""

    def __init__(self, ready: dict[str, Any]) -> None:
        url = urlsplit(ready["openai_base_url"])
        self._connection = http.client.HTTPConnection(url.netloc, timeout=60)
        self._path = f"{url.path}/embeddings"
        self._model = environment.local_model(ready["openai_base_url"]).embedding_model

    def milliseconds(self, question: str) -> float:
        body = json.dumps({"model": self._model, "input": [question], "encoding_format": "base64"})
        started = time.perf_counter()
        self._connection.request("POST", self._path, body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        response.read()
        milliseconds = (time.perf_counter() - started) * 1000
        if response.status != 200:
            raise RuntimeError(f"the model server answered {response.status}")
        return milliseconds

    def close(self) -> None:
        self._connection.close()


class BareCache:
    """One miss and one write: what an uncached embedding costs in Valkey."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)

    def milliseconds(self, question: str) -> float:
        key = f"benchmark:{question}"
        started = time.perf_counter()
        self._client.get(key)
        self._client.set(key, _KEPT, ex=60)
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        self._client.close()
