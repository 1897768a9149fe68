"""The commands of the client against a scripted API: what they send, print and exit with."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import cli
from local.cli import client
from rag.spending import Allowance
from tests.unit.scripted_api import KEY, Api, problem, serving

ANSWER = {
    "answer": "Leave is 30 days [1].",
    "citations": [
        {
            "n": 1,
            "document_id": "id-a",
            "key": "a.pdf",
            "title": "Handbook",
            "page": 2,
            "heading": "Leave",
            "quote": "Everybody has 30\ndays \x1b[31mof leave.",
            "score": 0.9,
        }
    ],
    "hits": [],
    "model": "extractive",
    "cached": True,
    "degraded": None,
    "usage": {},
    "timings_ms": {"embed": 7.6, "search": 1240.0},
    "request_id": "r-1",
}
HIT = {
    "chunk_id": "c",
    "document_id": "id-a",
    "collection": "default",
    "key": "a.pdf",
    "title": "Handbook",
    "page": None,
    "heading": None,
    "content": "A \x1b]0;title\x07passage.",
    "score": 0.5,
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with serving() as api:
        monkeypatch.setenv("RAG_URL", api.url)
        monkeypatch.setenv("RAG_API_KEY", KEY)
        yield api


def rag(*arguments: str | Path) -> int:
    return cli.run([str(argument) for argument in arguments])


def _printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_put_uploads_a_folder_and_waits_until_each_is_ready(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hr").mkdir()
    for name in ("a.txt", "hr/b.txt", "hr/c.txt", "d.txt", "e.txt", "f.txt"):
        (tmp_path / name).write_text(name)
    assert rag("put", tmp_path, "--json") == 0
    result = _printed(capsys)
    assert (result["ready"], result["failed"]) == (6, 0)
    first = result["documents"][0]
    assert (first["key"], first["status"], first["version_id"], first["chunk_count"]) == ("a.txt", "ready", "v1", 3)
    assert sorted(api.documents) == ["a.txt", "d.txt", "e.txt", "f.txt", "hr/b.txt", "hr/c.txt"]


def test_put_tells_a_pipe_about_each_file_and_sums_up_in_a_table(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert rag("put", tmp_path / "a.txt", "--collection", "hr") == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["uploaded  a.txt (4 B)", "ready     a.txt (3 chunks)"]
    assert printed.out.splitlines() == [
        "key    status  size  chunks  reason",
        "a.txt  ready   4 B   3",
        "1 ready, 0 failed",
    ]


def test_put_exits_1_and_says_why_when_a_document_failed(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good.txt", "scan.pdf"):
        (tmp_path / name).write_text(name)
    api.failing["scan.pdf"] = {"code": "NO_TEXT", "message": "No text was found."}
    assert rag("put", tmp_path) == 1
    out = capsys.readouterr().out
    assert "NO_TEXT: No text was found." in out
    assert out.endswith("1 ready, 1 failed\n")


def test_put_of_a_key_again_waits_for_the_new_version(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.add("a.txt", version_id="v4", chunk_count=3)
    api.polls_until_ready = 3
    (tmp_path / "a.txt").write_text("new")
    assert rag("put", tmp_path, "--json") == 0
    assert _printed(capsys)["documents"][0]["version_id"] == "v5"


def test_put_without_waiting_returns_after_the_upload(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert rag("put", tmp_path, "--no-wait", "--json") == 0
    assert _printed(capsys)["documents"][0]["status"] == "uploaded"
    assert [method for method, *_ in api.requests] == ["POST", "POST"]


def test_put_gives_up_waiting_when_its_time_is_over(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    api.polls_until_ready = 10**6
    assert rag("put", tmp_path, "--timeout", "0.3") == 1
    assert capsys.readouterr().out.endswith("0 ready, 0 failed, 1 not finished\n")


def test_a_file_that_is_refused_does_not_stop_the_others(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    error = b"<Error><Code>EntityTooLarge</Code><Message>Your upload is too large</Message></Error>"
    api.reply("/s3", error, 400)
    assert rag("put", tmp_path, "--json") == 1
    result = _printed(capsys)
    [failed] = [d for d in result["documents"] if d["status"] == "failed"]
    assert failed["error"] == {
        "code": "REFUSED",
        "message": "S3 refused the upload: EntityTooLarge: Your upload is too large.",
    }
    assert result["ready"] == 1


def test_ctrl_c_ends_a_put_and_says_what_goes_on(api: Api, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    api.polls_until_ready = 10**6
    command = [sys.executable, "-c", "from local.cli import main; main()", "put", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("uploaded")
        assert process.stderr.readline().startswith("uploaded")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == [
        "",
        "Stopped; every file was uploaded.",
        "The platform goes on with 2 that arrived; `rag documents` shows how far they are.",
    ]


def test_put_sends_the_bytes_of_the_file_and_nothing_else(api: Api, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "a.bin").write_bytes(content)
    assert rag("put", tmp_path, "--no-wait") == 0
    [form] = [body for _, path, _, body in api.requests if path == "/s3"]
    assert content in form
    [promise] = [body for _, path, _, body in api.requests if path == "/v1/documents"]
    assert promise == {"key": "a.bin", "collection": "default", "size": len(content)}


def test_the_api_key_is_not_sent_to_the_bucket(api: Api, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    rag("put", tmp_path)
    assert {path: "x-api-key" in headers for _, path, headers, _ in api.requests}["/s3"] is False


def test_ask_prints_the_answer_its_citations_and_how_it_came_about(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api.reply("/v1/query", ANSWER)
    assert rag("ask", "How much leave?", "--top-k", "5", "--mode", "dense", "--collection", "hr") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Leave is 30 days [1].",
        "",
        "[1] a.pdf, page 2 › Leave",
        "    “Everybody has 30 days of leave.”",
        "",
        "extractive · cached · embed 8 ms, search 1.24 s",
    ]
    [(_, _, _, body)] = api.requests
    assert body == {"question": "How much leave?", "collection": "hr", "top_k": 5, "mode": "dense", "style": "short"}


def test_how_many_passages_an_answer_looks_at_is_left_to_the_platform(api: Api) -> None:
    api.reply("/v1/query", ANSWER)
    assert rag("ask", "How much leave?", "--style", "summary") == 0
    [(_, _, _, body)] = api.requests
    assert "top_k" not in body


def test_ask_without_an_answer_says_so_and_succeeds(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply(
        "/v1/query", ANSWER | {"answer": "The documents do not say.", "citations": [], "model": None, "cached": False}
    )
    assert rag("ask", "What is the moon made of?") == 0
    out = capsys.readouterr().out
    assert out.startswith("The documents do not say.\n")
    assert "without a model" in out


def test_ask_shows_the_passages_when_the_model_is_down(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    down = {"answer": "The model is down.", "citations": [], "model": None, "degraded": "retrieval_only", "hits": [HIT]}
    api.reply("/v1/query", ANSWER | down)
    assert rag("ask", "How much leave?") == 0
    assert "1. a.pdf (0.500)\n   A passage." in capsys.readouterr().out


def test_search_prints_passages_without_their_escape_sequences(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/v1/search", {"hits": [HIT], "timings_ms": {"search": 3.0}, "request_id": "r-1"})
    assert rag("search", "leave") == 0
    assert capsys.readouterr().out == "1. a.pdf (0.500)\n   A passage.\n\n1 passage · search 3 ms\n"


def test_documents_are_listed_over_all_pages(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        api.add(f"{number}.txt")
    assert rag("documents", "--json") == 0
    assert [d["key"] for d in _printed(capsys)["documents"]] == ["0.txt", "1.txt", "2.txt", "3.txt", "4.txt"]


def test_documents_are_listed_by_status_with_the_reason(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("a.txt")
    api.add("b.pdf", status="failed", error={"code": "ENCRYPTED", "message": "It wants a password."})
    assert rag("documents", "--status", "failed") == 0
    out = capsys.readouterr().out
    assert "ENCRYPTED: It wants a password." in out
    assert "a.txt" not in out


def test_delete_waits_until_the_documents_are_gone(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("a.txt", "hr/b.txt"):
        api.add(key)
    assert rag("delete", "a.txt", "hr/b.txt", "--wait", "--json") == 0
    assert [d["status"] for d in _printed(capsys)["documents"]] == ["deleted", "deleted"]
    assert api.documents == {}


def test_delete_tells_the_receipt_of_each_document(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("a.txt")
    assert rag("delete", "a.txt", "absent.txt", "--json") == 1
    assert [d["erasure"] for d in _printed(capsys)["documents"]] == [*api.receipts, None]


def test_a_whole_collection_is_deleted_only_when_it_is_meant(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("a.txt")
    assert rag("delete", "--all") == 2
    assert "--yes" in capsys.readouterr().err
    assert rag("delete", "a.txt", "--all", "--yes") == 2
    assert rag("delete") == 2
    assert list(api.documents) == ["a.txt"]
    capsys.readouterr()
    assert rag("delete", "--all", "--yes", "--wait", "--json") == 0
    assert [d["status"] for d in _printed(capsys)["documents"]] == ["deleted"]
    assert api.documents == {}


def test_receipts_are_shown_in_words(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    removed = {"documents": 1, "chunks": 7, "collections": 0, "object_versions": 2, "cached_answers": 0}
    receipt = {"id": "r-1", "scope": "document", "collection": "default", "document_id": "d-1", "status": "done"}
    receipt |= {"requested_at": "2026-11-20T09:00:00Z", "removed": removed, "backups_expire_at": "2026-11-27T09:00:00Z"}
    api.reply("/v1/erasures", {"erasures": [receipt]})
    assert rag("erasures") == 0
    out = capsys.readouterr().out
    assert "1 document, 7 passages, 2 stored versions" in " ".join(out.split())
    assert "2026-11-27" in out


def test_delete_of_an_unknown_key_exits_1_and_deletes_the_others(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("a.txt")
    assert rag("delete", "absent.txt", "a.txt", "--json") == 1
    assert [d["status"] for d in _printed(capsys)["documents"]] == ["not found", "deleting"]
    assert api.documents == {}


def test_delete_spares_a_document_that_only_looks_alike(api: Api) -> None:
    api.add("a.txt.bak")
    api.reply("/v1/documents", {"documents": list(api.documents.values()), "next_cursor": None})
    assert rag("delete", "a.txt") == 1
    assert list(api.documents) == ["a.txt.bak"]


ENCRYPTED = {"status": "failed", "error": {"code": "ENCRYPTED", "message": "It wants a password."}}


def test_retry_waits_until_each_document_is_ready_or_has_failed_again(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("a.pdf", "b.pdf"):
        api.add(key, **ENCRYPTED)
    api.failing["b.pdf"] = ENCRYPTED["error"]
    assert rag("retry", "a.pdf", "b.pdf", "--wait", "--json") == 1
    assert [(d["status"], d["error"]) for d in _printed(capsys)["documents"]] == [
        ("ready", None),
        ("failed", ENCRYPTED["error"]),
    ]


def test_retry_of_all_that_failed_spares_the_others(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("ready.pdf")
    for key in ("a.pdf", "b.pdf", "c.pdf"):
        api.add(key, **ENCRYPTED)
    assert rag("retry", "--failed", "--json") == 0
    assert {d["key"]: d["status"] for d in _printed(capsys)["documents"]} == dict.fromkeys(
        ("a.pdf", "b.pdf", "c.pdf"), "uploaded"
    )


def test_retry_says_of_each_key_what_became_of_it(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("ready.pdf")
    api.add("failed.pdf", **ENCRYPTED)
    assert rag("retry", "absent.pdf", "ready.pdf", "failed.pdf") == 1
    out = capsys.readouterr().out
    assert [out.count(words) for words in ("not found", "not failed", "uploaded")] == [1, 1, 1]


@pytest.mark.parametrize("arguments", [[], ["a.pdf", "--failed"]])
def test_retry_wants_either_keys_or_failed(api: Api, arguments: list[str]) -> None:
    assert rag("retry", *arguments) == 2
    assert api.requests == []


def test_status_tells_what_is_being_ingested(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    health = {"status": "ok", "version": "0.1.0", "timestamp": "now", "checks": {"database": "ok"}}
    api.reply("/health", health, 200)
    counts = {"name": "team", "language": "english", "document_count": 8, "chunk_count": 42, "created_at": "now"}
    now = {"uploaded": 12, "processing": 1, "failed": 2, "passages_read": 5000, "passages_embedded": 1200}
    older = {**counts, "name": "of an older platform"}
    api.reply("/v1/collections", {"collections": [{**counts, "ingesting": now}, older]})
    assert rag("status") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "team english 8 42 12 1 (1,200/5,000 passages) 2" in lines
    assert "of an older platform english 8 42" in lines


@pytest.mark.parametrize(("word", "http", "code"), [("ok", 200, 0), ("degraded", 200, 1), ("down", 503, 1)])
def test_status_exits_1_when_a_part_is_not_well(
    api: Api, capsys: pytest.CaptureFixture[str], word: str, http: int, code: int
) -> None:
    health = {"status": word, "version": "0.1.0", "timestamp": "now", "checks": {"database": word}}
    api.reply("/health", health, http)
    api.reply("/v1/collections", {"collections": []})
    assert rag("status") == code
    assert f"is {word} (version 0.1.0)" in capsys.readouterr().out


def test_a_wrong_key_exits_3_and_says_what_to_do(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert rag("documents", "--api-key", "wrong") == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "does not know this API key" in printed.err
    assert "--api-key or RAG_API_KEY" in printed.err


def test_a_key_that_is_refused_in_the_middle_of_a_put_ends_it(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text("text")
    assert rag("put", tmp_path, "--api-key", "wrong") == 3
    assert len(api.requests) < 20


def test_a_missing_key_is_told_from_a_wrong_one(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAG_API_KEY")
    assert rag("documents") == 3
    assert "wants an API key, and none was given" in capsys.readouterr().err


def test_an_address_where_nothing_answers_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert rag("status", "--url", "http://127.0.0.1:1", "--json") == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["error"]["kind"] == "unreachable"


def test_a_server_that_is_no_platform_exits_3(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/v1/collections", b"<html>hello</html>")
    assert rag("collections") == 3
    assert "not with this platform's JSON" in capsys.readouterr().err


def test_a_rejected_request_names_the_field_and_exits_1(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"path": "body.question", "message": "is \x1b[2Jempty"}]
    api.reply("/v1/query", problem(422, "The request is not valid.", errors=errors), 422)
    assert rag("ask", "", "--json") == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["message"] == "The request is not valid. (HTTP 422); body.question: is empty"
    assert (error["kind"], error["status"], error["request_id"]) == ("failed", 422, "r-1")


def test_a_limit_is_waited_for_as_the_server_says(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    api.reply("/v1/collections", problem(429, "Too many requests."), 429, Retry_After="7")
    api.reply("/v1/collections", {"collections": []})
    assert rag("collections") == 0
    assert pauses == [7.0]


def test_options_may_stand_before_the_command(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add("a.txt")
    assert rag("--json", "--api-key", KEY, "documents") == 0
    assert len(_printed(capsys)["documents"]) == 1


def test_an_option_after_the_command_wins_over_one_before_it(api: Api) -> None:
    assert rag("--api-key", "wrong", "documents", "--api-key", KEY) == 0


def test_wrong_usage_exits_2_and_is_json_where_json_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert rag("ask", "question", "--mode", "telepathy", "--json") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["error"]["kind"] == "usage"


def test_a_path_that_does_not_exist_exits_2(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert rag("put", "/nonexistent/file") == 2
    assert "There is no file or folder /nonexistent/file" in capsys.readouterr().err


def test_a_tenant_is_made_through_the_local_platforms_own_door(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = {"url": api.url, "api_key": "x", "admin_url": api.url, "admin_token": "t0ken"}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    api.reply("/2015-03-31/functions/tenants/invocations", {"tenant_id": "t", "api_key": "rag_k.s"})
    assert rag("tenants", "create", "acme", "--data", tmp_path, "--json") == 0
    assert _printed(capsys) == {"tenant_id": "t", "api_key": "rag_k.s"}
    [(_, _, headers, body)] = api.requests
    assert (body, headers["authorization"]) == ({"action": "create", "name": "acme"}, "Bearer t0ken")


REST = "all else as the deployment says"


@pytest.mark.parametrize(
    ("options", "sent", "told"),
    [
        ([], {}, "Tenant t: all as the deployment says"),
        (
            ["--tokens-per-day", "2000", "--usd-per-month", "12.5"],
            {"tokens_per_day": 2000, "usd_per_month": 12.5},
            f"Tenant t: 2,000 tokens a day, 12.5 USD a month, {REST}",
        ),
        (
            ["--requests-per-day", "0", "--key", "rag_aB3dE5gH", "--requests-per-minute", "20"],
            {"key_id": "aB3dE5gH", "requests_per_day": 0, "requests_per_minute": 20},
            f"Key aB3dE5gH: 20 requests a minute, any number of requests to models a day, {REST}",
        ),
    ],
)
def test_limits_are_sent_all_at_once(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sent: dict[str, Any], told: str
) -> None:
    ready = {"url": api.url, "api_key": "x", "admin_url": api.url, "admin_token": "t0ken"}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    none = dict.fromkeys(field.name for field in dataclasses.fields(Allowance))
    limits = {"tenant_id": "t", **none, **sent}
    api.reply("/2015-03-31/functions/tenants/invocations", limits)
    assert rag("tenants", "limit", "t", *options, "--data", tmp_path) == 0
    assert capsys.readouterr().out == f"{told}\n"
    [(_, _, _, body)] = api.requests
    assert body == {"action": "limit", **limits}


USAGE = {
    "scope": "tenant",
    "principal": "key:aB3dE5gH",
    "first_day": "2026-11-01",
    "last_day": "2026-11-21",
    "today": {"requests": 2, "prompt_tokens": 1500, "completion_tokens": 30, "usd": 0.0012},
    "month": {"requests": 40, "prompt_tokens": 21500, "completion_tokens": 800, "usd": 0.02},
    "budgets": [
        {
            "of": "tenant",
            "unit": "usd",
            "period": "month",
            "limit": 12.5,
            "used": 0.02,
            "left": 12.48,
            "resets_at": "2026-12-01T00:00:00Z",
        }
    ],
    "rate_limits": [{"of": "key", "requests": 100, "window_seconds": 60, "left": 99, "full_in_seconds": 0.6}],
    "usage": [
        {
            "day": None,
            "month": "2026-11",
            "model": None,
            "principal": "key:aB3dE5gH",
            "requests": 40,
            "prompt_tokens": 21500,
            "completion_tokens": 800,
            "usd": 0.02,
        }
    ],
    "truncated": True,
}


def test_usage_is_asked_for_as_wanted_and_told_as_tables(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/v1/usage", USAGE)
    assert rag("usage", "--by", "month", "--by", "key", "--from", "2026-11-01") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "Of the tenant, 2026-11-01 to 2026-11-21:",
        "",
        "month    key           requests  tokens in  out  USD",
        "2026-11  key:aB3dE5gH  40        21,500     800  0.0200",
        "",
        "            requests  tokens in  out  USD",
        "today       2         1,500      30   0.0012",
        "this month  40        21,500     800  0.0200",
        "",
        "limit of  what                      used  left   anew",
        "key       100 API requests in 60 s  1     99     in 1 s",
        "tenant    12.50 USD a month         0.02  12.48  2026-12-01 00:00",
    ]
    assert "There is more" in err
    [(method, path, *_)] = api.requests
    assert method == "GET"
    assert path == "/v1/usage?first_day=2026-11-01&by=month&by=key"


def test_a_tenant_that_cannot_be_made_exits_1_with_the_functions_words(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = {"url": api.url, "api_key": "x", "admin_url": api.url, "admin_token": "t0ken"}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    path = "/2015-03-31/functions/tenants/invocations"
    api.reply(path, {"errorMessage": "The name is empty."}, X_Amz_Function_Error="Unhandled")
    assert rag("tenants", "create", "", "--data", tmp_path) == 1
    assert "The name is empty." in capsys.readouterr().err


def local_platform(api: Api, folder: Path) -> Path:
    ready = {"url": api.url, "api_key": "x", "admin_url": api.url, "admin_token": "t0ken"}
    (folder / "ready.json").write_text(json.dumps(ready))
    return folder


def test_tenants_are_listed_over_all_pages(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tenant = {"created_at": "2026-11-20T09:00:00Z", "live_keys": 1, "requests_per_day": None, "tokens_per_day": None}
    pages = [
        [{**tenant, "tenant_id": "t1", "name": "a", "last_used_at": None}],
        [{**tenant, "tenant_id": "t2", "name": "b\x1b[31m", "last_used_at": "2026-11-21T10:12:00Z"}],
    ]
    for page, following in zip(pages, ("a", None), strict=True):
        api.reply("/2015-03-31/functions/tenants/invocations", {"tenants": page, "next": following})
    assert rag("tenants", "list", "--data", local_platform(api, tmp_path)) == 0
    shown = capsys.readouterr().out
    assert re.search(r"t1 .* never\n", shown)
    assert re.search(r"t2 +b +2026-11-20 09:00 +1 +2026-11-21 10:12\n", shown)
    assert [body["after"] for _, _, _, body in api.requests] == ["", "a"]


def test_a_tenant_who_lost_all_keys_gets_another(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tenant = "0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11"
    api.reply("/2015-03-31/functions/tenants/invocations", {"tenant_id": tenant, "api_key": "rag_k.s"})
    assert rag("tenants", "key", tenant, "--revoke-others", "--data", local_platform(api, tmp_path)) == 0
    assert "rag_k.s" in capsys.readouterr().out
    [(_, _, _, body)] = api.requests
    assert body == {"action": "key", "tenant_id": tenant, "revoke_others": True}


NEW_KEY = {
    "id": "aB3dE5gH",
    "prefix": "rag_aB3dE5gH",
    "name": "help\x1b[31m desk",
    "role": "writer",
    "collections": ["manuals", "staff"],
    "groups": ["finance"],
    "status": "live",
    "created_by": "key:kF93jd01",
    "created_at": "2026-11-21T09:00:00Z",
    "expires_at": "2027-02-19T09:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
    "replaced_by": None,
    "api_key": "rag_aB3dE5gH.secret",
}


def test_a_key_is_made_as_it_is_asked_for_and_shown(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/v1/keys", NEW_KEY, 201)
    limits = ["--collection", "manuals", "--collection", "staff", "--group", "finance", "--expires-in-days", "90"]
    assert rag("keys", "create", "help desk", "--role", "writer", *limits) == 0
    printed = capsys.readouterr()
    assert "Key aB3dE5gH (help desk): writer in manuals, staff, until 2027-02-19 09:00 UTC" in printed.out
    assert "API key rag_aB3dE5gH.secret\n" in printed.out
    assert "this once" in printed.err
    [(method, path, _, body)] = api.requests
    assert (method, path) == ("POST", "/v1/keys")
    assert body == {
        "name": "help desk",
        "role": "writer",
        "collections": ["manuals", "staff"],
        "groups": ["finance"],
        "expires_in_days": 90,
    }


def test_keys_are_listed_without_their_secrets(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    key = {name: value for name, value in NEW_KEY.items() if name != "api_key"}
    ended = {**key, "id": "zY9xW7vU", "status": "revoked", "collections": None}
    rotated = {**key, "id": "b1b1b1b1", "replaced_by": "aB3dE5gH"}
    for _ in range(2):
        api.reply("/v1/keys", {"keys": [key, rotated, ended]})
    assert rag("keys", "list") == 0
    shown = capsys.readouterr().out
    assert re.search(r"zY9xW7vU .* all collections .* revoked ", shown)
    assert "live, replaced by aB3dE5gH" in shown
    assert rag("keys", "list", "--live", "--json") == 0
    assert [each["id"] for each in _printed(capsys)["keys"]] == ["aB3dE5gH", "b1b1b1b1"]


def test_a_key_is_rotated_and_revoked_by_its_id_or_prefix(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("aB3dE5gH", "rag_aB3dE5gH"):
        api.reply("/v1/keys/aB3dE5gH/rotate", {**NEW_KEY, "id": "zY9xW7vU"}, 201)
        api.reply("/v1/keys/aB3dE5gH", {**NEW_KEY, "status": "revoked"})
        assert rag("keys", "rotate", given, "--overlap-hours", "2") == 0
        assert rag("keys", "revoke", given) == 0
        shown = capsys.readouterr().out
        assert "aB3dE5gH ends in 2 h." in shown
        assert "Revoked aB3dE5gH (help desk)." in shown
    assert api.requests[0][3] == {"overlap_hours": 2}


def test_who_may_not_is_told_what_is_lacking(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/v1/keys", problem(403, "this needs a key with the role admin"), 403)
    assert rag("keys", "list") == 3
    assert "allow this to this API key: this needs a key with the role admin." in capsys.readouterr().err


def test_a_whole_key_is_never_part_of_a_path(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("revoke", "rotate"):
        assert rag("keys", command, "rag_aB3dE5gH.secret") == 2
    assert api.requests == []
    assert "secret" not in capsys.readouterr().err


def compared(**counts: Any) -> dict[str, Any]:
    whole = {"keys": 7, "missing": 2, "outdated": 0, "orphaned": 1, "misdescribed": 1, "seconds": 1.5}
    part = {"keys": 3, "missing": 1, "outdated": 0, "orphaned": 0, "misdescribed": 1, "complete": True, "pass": whole}
    return {"compared": {**part, **counts}, "swept": {"requeued": 1, "stuck": 0}, "canary": None}


def test_the_bucket_is_compared_run_after_run_until_all_of_it_is(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = {"url": api.url, "api_key": "x", "admin_url": api.url, "admin_token": "t0ken"}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    path = "/2015-03-31/functions/reconcile/invocations"
    for told in (compared(complete=False), compared()):
        api.reply(path, told)
    assert rag("reconcile", "--data", tmp_path, "--json") == 0
    whole = {"keys": 7, "missing": 2, "outdated": 0, "orphaned": 1, "misdescribed": 1, "seconds": 1.5}
    whole |= {"requeued": 2, "stuck": 0}
    printed = _printed(capsys)
    assert printed == whole
    assert [body for _, _, _, body in api.requests] == [{"now": True}] * 2
    api.reply(path, compared())
    assert rag("reconcile", "--data", tmp_path) == 0
    assert "2 missing, 0 outdated, 1 orphaned, 1 misdescribed.\n4 named to ingest again" in capsys.readouterr().out
    api.reply(path, {**compared(), "compared": None})
    assert rag("reconcile", "--data", tmp_path) == 1
    assert "Another run is at work" in capsys.readouterr().err


def test_the_history_of_a_document_is_shown_the_newest_attempt_first(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = {
        "attempt": 2,
        "version_id": "v1",
        "outcome": "ready",
        "error": None,
        "chunk_count": 3,
        "embedded_count": 3,
        "started_at": "2026-11-20T09:00:00Z",
        "finished_at": "2026-11-20T09:00:01Z",
        "durations_ms": {"fetch": 100, "parse": 0, "embed": 800, "store": 100},
        "model_calls": 1,
        "tokens": 120,
        "cost_usd": 0.0000024,
    }
    late = {"code": "LATER", "message": "the model is not available: status 503"}
    api.add("a.txt", history=[attempt, {**attempt, "attempt": 1, "outcome": "interrupted", "error": late}])
    assert rag("history", "a.txt") == 0
    out = capsys.readouterr().out
    assert out.index("fetch 0.1 + embed 0.8 + store 0.1") < out.index("LATER: the model is not available: status 503")
    assert rag("history", "a.txt", "--json") == 0
    assert [one["attempt"] for one in _printed(capsys)["history"]] == [2, 1]
    assert rag("history", "absent.txt") == 1
    assert "There is no document absent.txt in default" in capsys.readouterr().err


def test_filters_of_search_and_ask_are_sent_as_one(api: Api) -> None:
    expressions = [
        "year>=2020",
        "year < 2024",
        "lang!=de",
        "key^=hr/",
        "code=007",
        'size="5"',
        '{"tags": {"any": ["a"]}}',
    ]
    options = [word for expression in expressions for word in ("--filter", expression)]
    api.reply("/v1/search", {"hits": [], "timings_ms": {}})
    api.reply("/v1/query", ANSWER)
    assert (rag("search", "leave", *options), rag("ask", "leave?", *options)) == (0, 0)
    assert [body["filters"] for _, _, _, body in api.requests] == [
        {
            "year": {"gte": 2020, "lt": 2024},
            "lang": {"not": "de"},
            "key": {"prefix": "hr/"},
            "code": {"eq": "007"},
            "size": {"eq": "5"},
            "tags": {"any": ["a"]},
        }
    ] * 2


@pytest.mark.parametrize("given", [["year"], ["{"], ["=5"], ["year>2020", "year>2021"]])
def test_a_filter_that_is_none_is_wrong_usage_and_asks_nothing(api: Api, given: list[str]) -> None:
    assert rag("search", "leave", *[word for one in given for word in ("--filter", one)]) == 2
    assert api.requests == []


def test_put_sends_metadata_with_each_document_and_sidecars_before_them(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.json"
    file.write_text('{"lang": "en", "year": 1}')
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    (folder / "a.txt.metadata.json").write_text("{}")
    described = [
        "--metadata",
        file,
        "--meta",
        "year=2026",
        "--meta",
        "tags=a",
        "--meta",
        "tags=b",
        "--meta",
        "open=true",
    ]
    assert rag("put", folder, *described) == 0
    promised = [body for method, path, _, body in api.requests if (method, path) == ("POST", "/v1/documents")]
    assert [body["key"] for body in promised] == ["a.txt.metadata.json", "a.txt"]
    assert "metadata" not in promised[0]
    assert promised[1]["metadata"] == {"lang": "en", "year": 2026, "tags": ["a", "b"], "open": True}
    assert capsys.readouterr().out.endswith("1 ready, 0 failed, 1 with metadata\n")


def test_put_says_for_whom_a_document_is_and_waits_for_none_that_is_for_others(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    file = tmp_path / "all.json"
    file.write_text('{"allowed_principals": ["group:finance"], "year": 1}')
    put = ("put", tmp_path / "a.txt", "--metadata", file)
    assert rag(*put) == 0
    api.visible = False
    assert rag(*put, "--allow", "user:ann", "--allow", "group:board") == 0
    promised = [body for method, path, _, body in api.requests if (method, path) == ("POST", "/v1/documents")]
    assert [body["allowed_principals"] for body in promised] == [["group:finance"], ["user:ann", "group:board"]]
    assert {json.dumps(body["metadata"]) for body in promised} == {'{"year": 1}'}
    shown = capsys.readouterr().out
    assert "for others: you cannot see what becomes of it" in shown
    assert shown.endswith("0 ready, 0 failed, 1 for others\n")


def test_documents_that_are_not_for_everyone_show_for_whom_they_are(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api.add("a.txt")
    assert rag("documents") == 0
    assert "only for" not in capsys.readouterr().out
    api.add("b.txt", allowed_principals=["group:finance", "user:ann"])
    api.add("c.txt", allowed_principals=[])
    assert rag("documents") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("only for")
    assert (lines[-2].endswith("group:finance, user:ann"), lines[-1].endswith("admins")) == (True, True)


def test_put_says_what_is_wrong_with_the_metadata_of_a_document_that_is_ready(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.add("a.txt", metadata_error="the sidecar: is not JSON in UTF-8")
    (tmp_path / "a.txt").write_text("text")
    assert rag("put", tmp_path) == 0
    assert "metadata: the sidecar: is not JSON in UTF-8" in capsys.readouterr().out


@pytest.mark.parametrize("given", [["--meta", "year"], ["--metadata", "absent.json"]])
def test_metadata_that_is_none_is_wrong_usage(api: Api, tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert rag("put", tmp_path / "a.txt", *given) == 2
    assert api.requests == []


def test_what_is_no_id_of_a_conversation_asks_nothing(api: Api) -> None:
    assert rag("conversations", "../documents/6f1c", "--delete") == 2
    assert api.requests == []


def test_a_number_without_end_is_text(api: Api) -> None:
    api.reply("/v1/search", {"hits": [], "timings_ms": {}})
    assert rag("search", "leave", "--filter", "year>1e999") == 0
    [(_, _, _, body)] = api.requests
    assert body["filters"] == {"year": {"gt": "1e999"}}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _stream(*events: tuple[str, Any]) -> bytes:
    return b":\n\n" + b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events)


HEARD = (("hits", {"hits": [HIT]}), ("delta", {"text": "Leave is "}), ("delta", {"text": "\x1b[31mthirty days."}))


def _asked(api: Api, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, Any]:
    """Exit code, what the terminal got, and what was sent."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    code = rag("ask", "How much leave?", *arguments)
    return code, terminal.getvalue(), api.requests[-1][3]


def test_a_terminal_shows_the_words_as_they_come_and_then_the_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.reply("/v1/query", _stream(*HEARD, ("answer", ANSWER)), Content_Type="text/event-stream")
    code, shown, sent = _asked(api, monkeypatch)
    assert (code, sent["stream"]) == (0, True)
    assert "1 passage found" in shown
    assert "Leave is thirty days." in shown
    assert "[31m" not in shown
    assert shown.index("Leave is thirty days.") < shown.index("Leave is 30 days [1].")
    assert shown.endswith("extractive · cached · embed 8 ms, search 1.24 s\n")


@pytest.mark.parametrize("option", ["--no-stream", "--json"])
def test_who_wants_no_stream_gets_the_answer_alone(api: Api, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    api.reply("/v1/query", ANSWER)
    code, shown, sent = _asked(api, monkeypatch, option)
    assert code == 0
    assert "stream" not in sent
    assert "\x1b" not in shown


def test_without_a_terminal_nothing_is_streamed(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.reply("/v1/query", ANSWER)
    assert rag("ask", "How much leave?") == 0
    assert "stream" not in api.requests[-1][3]


def test_an_error_midway_is_an_error(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = ("error", problem(500, "Something went wrong here."))
    api.reply("/v1/query", _stream(*HEARD, failed), Content_Type="text/event-stream")
    code, _, _ = _asked(api, monkeypatch)
    told = capsys.readouterr().err
    assert code == 1
    assert "Something went wrong here. (HTTP 500)" in told
    assert "r-1" in told


@pytest.mark.parametrize("more", [{}, {"Content-Length": "100000"}], ids=["ends", "cut off"])
def test_a_stream_without_an_answer_is_an_error(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: dict[str, str]
) -> None:
    headers = {"Content_Type": "text/event-stream", "Connection": "close", **more}
    api.reply("/v1/query", _stream(*HEARD) + b"event: ans", **headers)
    assert _asked(api, monkeypatch)[0] == 1
    assert "The answer broke off." in capsys.readouterr().err


def test_a_stream_that_is_refused_for_now_is_asked_for_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.reply("/v1/query", problem(503, "Busy."), 503, Retry_After="0")
    api.reply("/v1/query", _stream(("answer", ANSWER)), Content_Type="text/event-stream")
    assert _asked(api, monkeypatch)[0] == 0


def test_an_export_goes_on_where_it_broke_off_and_ends_with_a_manifest(api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for path, record in (("usage", {"day": "2026-11-20"}), ("audit", {"action": "search"})):
        api.reply(f"/v1/export/{path}", {"records": [record], "next_cursor": None})
    api.reply("/v1/export/conversations", {"records": [{"id": "a"}], "next_cursor": "next"})
    api.reply("/v1/export/conversations", {"detail": "no", "request_id": "r-1"}, 400)
    assert rag("export", str(folder), "--user", "user:ann") == 1
    # Written beyond the last page that is known to be whole.
    with (folder / "conversations.jsonl").open("a") as file:
        file.write('{"id": "hal')
    api.reply("/v1/export/conversations", {"records": [{"id": "b"}], "next_cursor": None})
    api.reply("/v1/export/feedback", {"records": [], "next_cursor": None})
    assert rag("export", str(folder), "--user", "user:bob") == 2
    assert rag("export", str(folder), "--user", "user:ann") == 0
    kept = (folder / "conversations.jsonl").read_bytes()
    assert [json.loads(line)["id"] for line in kept.splitlines()] == ["a", "b"]
    told = json.loads((folder / "manifest.json").read_text())["files"]["conversations.jsonl"]
    assert told == {"records": 2, "bytes": len(kept), "sha256": hashlib.sha256(kept).hexdigest()}
    assert rag("export", str(folder), "--user", "user:ann") == 2


def test_audit_asks_for_what_was_wanted_and_prints_a_line_for_each_row(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"at": "2026-11-20T09:00:00Z", "principal": "user:ann", "role": "reader", "address": None, "action": "search"}
    row |= {"outcome": 200, "details": {"collection": "default"}, "documents": []}
    api.reply("/v1/audit", {"records": [row], "next_cursor": "next"})
    api.reply("/v1/audit", {"records": [row], "next_cursor": None})
    assert rag("audit", "--since", "2026-11-20", "--json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [row, row]
    assert rag("audit", "--since", "yesterday") == 2
    api.reply("/v1/audit", {"records": [row], "next_cursor": None})
    assert rag("audit") == 0
    assert "collection=default" in capsys.readouterr().out
