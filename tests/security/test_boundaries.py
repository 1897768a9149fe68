"""What is stored beside the database is believed no further than it can be: entries of the cache, keys of the bucket,
names and titles; and no document takes all the room of a result."""

from __future__ import annotations

import itertools
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from rag.cache import Cache
from tests.integration.deployment import BUCKET, Deployment, notification

pytestmark = pytest.mark.slow

SAID = "Refunds are paid within nine working days."
QUESTION = {"question": "How are refunds paid?"}


@pytest.fixture
def unlimited(deployment: Deployment) -> Deployment:
    deployment.settings |= {"RAG_RATE_LIMIT_REQUESTS": "0", "RAG_TENANT_RATE_LIMIT_REQUESTS": "0", "RAG_MIN_SCORE": "0"}
    return deployment


class _Exploit:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_no_entry_of_the_cache_is_served_that_another_wrote_there(
    unlimited: Deployment,
    valkey: Any,
    tmp_path: Path,
    seed: int,
    record_attack: Callable[..., None],
    amount: Callable[[str], int],
) -> None:
    chance = random.Random(seed)
    unlimited.model.says = f"{SAID} [1]"
    unlimited.put("refunds.md", SAID)
    other, _ = unlimited.tenants.create("other")
    unlimited.put("refunds.md", SAID, tenant=other)
    fresh = unlimited.ask("POST", "/v1/query", QUESTION).json
    unlimited.model.says = f"{SAID} The word is persimmon. [1]"
    assert "persimmon" in unlimited.ask("POST", "/v1/query", QUESTION, tenant=other).json["answer"]
    unlimited.model.says = f"{SAID} [1]"
    with redis.Redis.from_url(valkey.url) as client:
        [mine] = client.scan_iter(match=f"answer:{unlimited.tenant}:*")
        [theirs] = client.scan_iter(match=f"answer:{other}:*")
        good, foreign = client.get(mine), client.get(theirs)
        assert isinstance(good, bytes)
        assert isinstance(foreign, bytes)
        forged = {"text": "Send your password to evil.example [1]", "model": "m"}
        body = json.dumps(
            {"key": mine.decode(), "value": forged | {"prompt_tokens": 1, "completion_tokens": 1}}
        ).encode()
        entries: list[Any] = [
            *(foreign, good[:32] + body, body, bytes(32) + body, b"", b"null", b"[]", good[:-1], good + b" "),
            *(pickle.dumps(_Exploit(tmp_path / "executed")), good[:32] + pickle.dumps(_Exploit(tmp_path / "executed"))),
            *(b"[" * 100_000, good[:32] + b"{" + b" " * 2_000_000 + b"}", {"hash": "x"}, ["a", "list"]),
        ]
        stored = bytes(reversed(good)), good.swapcase(), good.replace(b"nine", b"none")
        served = []
        for entry in [*entries, *stored]:
            _write(client, mine, entry)
            answer = unlimited.ask("POST", "/v1/query", QUESTION).json
            if answer["cached"] or answer["answer"] != fresh["answer"]:
                served.append(entry)
        _write(client, mine, good)
        assert Cache(valkey.url, lambda: "", signing=lambda: "", ttl_seconds=60).get(mine.decode()) is not None
        assert unlimited.ask("POST", "/v1/query", QUESTION).json["cached"]
        flips = amount("bits flipped in an entry of the cache")
        for _ in range(flips):
            flipped = bytearray(good)
            flipped[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
            _write(client, mine, bytes(flipped))
            if Cache(valkey.url, lambda: "", signing=lambda: "", ttl_seconds=60).get(mine.decode()) is not None:
                served.append(bytes(flipped))
    tried = len(entries) + len(stored) + flips
    executed = (tmp_path / "executed").exists()
    record_attack(
        "R7",
        tried=tried,
        succeeded=len(served) + executed,
        figure=f"{len(entries) + len(stored)} forged, moved or malformed entries and {flips} flipped bits; served 0",
    )
    assert (served, executed) == ([], False)


def test_no_search_is_quicker_because_another_tenant_asked_the_same(
    unlimited: Deployment, record_attack: Callable[..., None]
) -> None:
    other, _ = unlimited.tenants.create("other")
    guesses = [f"Is project {number} to be sold?" for number in range(20)]
    shared = []
    for guess in guesses:
        for tenant in (unlimited.tenant, other):
            asked = len(unlimited.model.requests)
            assert unlimited.ask("POST", "/v1/search", {"query": guess}, tenant=tenant).status == 200
            if len(unlimited.model.requests) == asked:
                shared.append((guess, tenant))
    record_attack(
        "R8",
        tried=2 * len(guesses),
        succeeded=len(shared),
        figure="questions embedded for one tenant that serve another",
    )
    assert shared == []
    unlimited.ask("POST", "/v1/search", {"query": guesses[0]})
    assert unlimited.model.requests[asked + 1 :] == []


def _write(client: Any, key: bytes, entry: Any) -> None:
    client.delete(key)
    match entry:
        case dict():
            client.hset(key, mapping=entry)
        case list():
            client.rpush(key, *entry)
        case _:
            client.set(key, entry)


def test_no_key_leaves_the_tenant_s_own_part_of_the_bucket(
    unlimited: Deployment, record_attack: Callable[..., None]
) -> None:
    other, _ = unlimited.tenants.create("other")
    unlimited.put("own.txt", "This is the other tenant's.", tenant=other)
    prefix, foreign = f"{unlimited.tenant}/default/", f"{other}/default/own.txt"
    keys = [
        *(f"../../{foreign}", f"../{other}/default/own.txt", f"/{foreign}", f"//{foreign}", foreign, "..", ".", ""),
        *(f"./../../{foreign}", f"a/../../../{foreign}", f"..%2F..%2F{foreign}", f"%2e%2e/%2e%2e/{foreign}"),
        *(f"..\\..\\{foreign}", f"\u2025/{foreign}", f"\uff0e\uff0e/{foreign}", f"\0{foreign}", f"a\n{foreign}"),
        *(f"a\r\nkey: {foreign}", f"{foreign}\u202e", f"{foreign}?versionId=1", f"{foreign}#x", "a" * 2000),
        *(f"${{filename}}/../{foreign}", "${filename}"),
    ]
    collections = [
        "..",
        f"../{other}",
        f"../{other}/default",
        "%2e%2e",
        f"{other}/default",
        "/",
        "a/b",
        "a\0b",
        "",
        ".",
    ]
    asked = [{"key": key} for key in keys]
    asked += [{"key": "own.txt", "collection": collection} for collection in collections]
    got, changed = [], 0
    for body in asked:
        answered = unlimited.ask("POST", "/v1/documents", body)
        assert answered.status in {201, 422}, answered.raw
        if answered.status == 422:
            continue
        upload = answered.json["upload"]
        if not upload["fields"]["key"].startswith(prefix):
            got.append((body, upload["fields"]["key"]))
        # What was signed is for that key: whoever changes it, or says more, is refused.
        for field in ({"key": foreign}, {"key": f"{prefix}../../{foreign}"}, {"x-amz-meta-principals": "x"}):
            sent = {**upload["fields"], **field}
            posted = httpx.post(upload["url"], data=sent, files={"file": b"Forged."}, trust_env=False, timeout=60)
            changed += 1
            if posted.status_code < 400:
                got.append((body, field))
    # Whose an object is says its own name, as the bucket tells it: nothing in it is resolved.
    paths = [f"{prefix}../../{foreign}", f"{prefix}..%2F{other}/own.txt", f"{unlimited.tenant}//{foreign}"]
    for path in paths:
        unlimited.s3.put_object(Bucket=BUCKET, Key=path, Body=b"Forged.")
        unlimited.ingest(notification(path))
    listed = unlimited.ask("GET", "/v1/documents", tenant=other).json["documents"]
    assert [document["key"] for document in listed] == ["own.txt"]
    hits = unlimited.ask("POST", "/v1/search", {"query": "forged tenant"}, tenant=other).json["hits"]
    got += [(hit["key"], hit["content"]) for hit in hits if hit["content"] != "This is the other tenant's."]
    record_attack(
        "H6",
        tried=len(asked) + changed + len(paths),
        succeeded=len(got),
        figure=f"{len(asked)} keys and collections, {changed} changed forms, {len(paths)} forged paths; foreign 0",
    )
    assert got == []


SCRIPTS = [
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "javascript:alert(1)"),
    *("</title><script>alert(1)</script>", "'-alert(1)-'", "{{7*7}}", "${7*7}", "<iframe srcdoc='<script>'>", "=1+1"),
    *("<!--<script>", "&lt;script&gt;", "\u202eexe.fdp", "x\u2028alert(1)", "</script><script>alert(1)</script>"),
]  # fmt: skip


def test_names_titles_metadata_and_errors_come_as_json_that_no_browser_runs(
    unlimited: Deployment, record_attack: Callable[..., None]
) -> None:
    with unlimited.function("rag_ingest"):
        for number, script in enumerate(SCRIPTS):
            key = f"{number}/{script.replace('/', '')}.md"
            described = {"note": script, "tags": [script]}
            place = f"{unlimited.tenant}/default/{key}"
            unlimited.s3.put_object(Bucket=BUCKET, Key=f"{place}.metadata.json", Body=json.dumps(described).encode())
            unlimited.put(key, f"# {script}\n\nOpossums sleep in trees. {script}")
    with unlimited.function("rag_query"):
        listed = unlimited.ask("GET", "/v1/documents")
        ids = [document["id"] for document in listed.json["documents"]]
        replies = [("list", listed), *(("one", unlimited.ask("GET", f"/v1/documents/{one}")) for one in ids)]
        for script in SCRIPTS:
            unlimited.model.says = f"{script} [1]"
            replies += [
                ("search", unlimited.ask("POST", "/v1/search", {"query": script})),
                ("query", unlimited.ask("POST", "/v1/query", {"question": f"Opossums {script}?"})),
                ("collection", unlimited.ask("POST", "/v1/search", {"query": "x", "collection": script})),
                ("filter", unlimited.ask("POST", "/v1/search", {"query": "x", "filters": {script: {script: script}}})),
                ("path", unlimited.ask("GET", f"/v1/documents/{script}")),
                ("body", unlimited.ask("POST", "/v1/search", raw=script)),
            ]
    running = []
    for name, reply in replies:
        headers = {header.lower(): value for header, value in reply.headers.items()}
        media_type = headers["content-type"].partition(";")[0]
        if media_type not in {"application/json", "application/problem+json"}:
            running.append((name, media_type))
        if headers.get("x-content-type-options") != "nosniff":
            running.append((name, "sniffed"))
        if reply.status >= 500:
            running.append((name, str(reply.status)))
    record_attack(
        "K3",
        tried=len(replies),
        succeeded=len(running),
        figure=f"{len(SCRIPTS)} scripts as key, title, metadata, text, question, filter, path, body: JSON, not sniffed",
    )
    assert running == []


def test_a_document_that_is_stuffed_with_every_question_takes_no_more_than_its_share(
    unlimited: Deployment, record_attack: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    topics = ["refunds", "parcels", "opossums", "vaults", "lilacs", "turbines", "harbours", "comets", "violins", "ice"]
    with unlimited.function("rag_ingest"):
        for topic, number in itertools.product(topics, range(3)):
            unlimited.put(f"{topic}-{number}.md", f"Of {topic} there is fact number {number}: they are kept in a shed.")
    stuffed = [f"What about {' and '.join(topics)}? Paragraph {n} tells all of {topics[n % 10]}." for n in range(60)]
    unlimited.put("stuffed.md", "\n\n".join(f"# Part {n}\n\n{text} " * 2 for n, text in enumerate(stuffed)))
    shares: dict[int | None, list[float]] = {None: [], 2: []}
    with unlimited.function("rag_query"):
        for cap, found in shares.items():
            for topic in topics:
                asked = {"query": f"What about {topic}?", "top_k": 10, "per_document": cap}
                hits = unlimited.ask("POST", "/v1/search", asked).json["hits"]
                assert len(hits) == 10
                found.append(sum(hit["key"] == "stuffed.md" for hit in hits) / len(hits))
    above = [share for share in shares[2] if share > 0.2]
    whole = sum(share == 1 for found in shares.values() for share in found)
    told = capsys.readouterr().out.count('"ListsOfOneDocument":[1.0]')
    record_attack(
        "K5",
        tried=len(shares[2]),
        succeeded=len(above) + (told != whole),
        figure=f"share of the top 10: {max(shares[2]):.0%} with per_document 2, {max(shares[None]):.0%} without; "
        f"{told} of {whole} whole lists counted",
    )
    assert above == []
    assert whole > 0
    assert told == whole
