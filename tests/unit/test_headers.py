"""Every answer, whatever it is, says the same to browsers and caches."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from starlette.testclient import TestClient

from functions.query.api import app
from rag.answer_headers import ON_EVERY_ANSWER, POLICY

CLIENT = TestClient(app)
# All that need no services to be answered: nobody is let in here.
ROUTES = [
    (method.upper(), path)
    for path, methods in app.openapi()["paths"].items()
    for method in methods
    if path not in {"/health", "/ready"}
]
MORE = [("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nothing"), ("PUT", "/v1/search"), ("POST", "/v1/search/")]


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *MORE])
def test_an_answer_has_every_header_whatever_it_is(method: str, path: str) -> None:
    headers = CLIENT.request(method, path).headers
    for name, value in ON_EVERY_ANSWER.items():
        assert headers[name] == value or (name, path) == (POLICY, "/docs")
    assert not {"server", "x-powered-by"} & set(headers)


def test_what_nobody_foresaw_is_answered_with_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from functions.query import reference

    def broken(_: object) -> str:
        raise RuntimeError("postgresql://rag_query:hunter2@db.internal/rag")

    monkeypatch.setattr(reference, "page", broken)
    reply = CLIENT.get("/docs", headers={"origin": "https://app.example.org"})
    assert (reply.status_code, reply.headers["content-type"]) == (500, "application/problem+json")
    assert ON_EVERY_ANSWER.items() <= dict(reply.headers).items()
    assert "hunter2" not in reply.text
    assert "internal" not in reply.text


def test_the_one_page_may_use_its_own_style_and_nothing_else() -> None:
    page = CLIENT.get("/docs")
    styles = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    assert page.headers[POLICY] == f"{ON_EVERY_ANSWER[POLICY]}; style-src 'sha256-{hashes[0]}'"
    assert len(styles) == 1
    assert "style=" not in page.text
    assert "<script" not in page.text
