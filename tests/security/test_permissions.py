"""Documents that are not for everyone of their tenant, and callers who would see them."""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from rag import permissions
from rag.store.database import Database
from rag.store.index import IndexStore
from rag.types import Description, Location, ObjectVersion, Principals
from tests import fake_model
from tests.integration.deployment import BUCKET, SPACE, Context, Deployment, notification, sample

CANARY = re.compile(r"canary-[a-z]+-[0-9]+")
GROUPS = ("red", "green", "blue")
TOPICS = ("refunds", "travel", "salaries", "mergers", "audits")
DONE: dict[str, list[Any]] = {"batchItemFailures": []}


@pytest.fixture
def parrot(deployment: Deployment) -> Deployment:
    """With a model that keeps no secret: it says every canary that it was shown."""

    def reply(handler: Any, body: dict[str, Any]) -> None:
        if "input" in body:
            vectors = [fake_model.unit(text, SPACE.dimensions) for text in body["input"]]
            fake_model.send_json(handler, fake_model.embeddings(vectors))
        else:
            shown = sorted(set(CANARY.findall(body["messages"][-1]["content"])))
            fake_model.send_json(handler, fake_model.chat(f"They say {' '.join(shown)} [1]."))

    deployment.model.always = reply
    return deployment


@dataclass(frozen=True)
class Asking:
    """Callers of one sandbox of the query function, which lives on from one question to the next."""

    deployment: Deployment

    def ask(self, groups: tuple[str, ...], method: str, path: str, body: Any = None, *, role: str = "reader") -> Any:
        from functions.query.handler import handler

        sent = sample("query/search.json")
        sent |= {"httpMethod": method, "path": path, "body": None if body is None else json.dumps(body)}
        sent["requestContext"]["authorizer"] |= {
            "tenant_id": str(self.deployment.tenant),
            "role": role,
            "principal": f"key:{'-'.join(groups) or 'nobody'}",
            "groups": json.dumps(groups),
        }
        return json.loads(handler(sent, Context())["body"])

    def canaries(self, groups: tuple[str, ...], question: str, route: str = "query") -> tuple[set[str], bool]:
        """Whatever of documents stands anywhere in what a caller is told, and whether it was cached."""
        words = {"question": question} if route == "query" else {"query": question}
        told = self.ask(groups, "POST", f"/v1/{route}", {**words, "top_k": 20, "explain": True})
        assert "hits" in told, told
        return set(CANARY.findall(json.dumps({**told, "question": ""}))), bool(told.get("cached"))


@contextmanager
def asking(deployment: Deployment) -> Iterator[Asking]:
    with deployment.function("rag_query", rate_limit_requests="0", tenant_rate_limit_requests="0"):
        yield Asking(deployment)


def put(deployment: Deployment, key: str, text: str, said: dict[str, Any]) -> None:
    """Put a document into the bucket, with what comes with its upload, and have it ingested."""
    object_key = f"{deployment.tenant}/default/{key}"
    deployment.s3.put_object(Bucket=BUCKET, Key=object_key, Body=text, Metadata={"rag-metadata": json.dumps(said)})
    assert deployment.ingest(notification(object_key)) == DONE


def put_for_each(deployment: Deployment) -> dict[str, str | None]:
    """On each topic a document for everyone and one for each group; canary → the group that may see it."""
    found: dict[str, str | None] = {}
    with deployment.function("rag_ingest"):
        for (number, topic), group in itertools.product(enumerate(TOPICS), (None, *GROUPS)):
            canary = f"canary-{group or 'all'}-{number}"
            said = {} if group is None else {"allowed_principals": [f"group:{group}"]}
            put(deployment, f"{canary}.txt", f"What is said of {topic} here is {canary}.", said)
            found[canary] = group
    return found


@pytest.mark.slow
def test_one_question_of_callers_with_other_permissions_shares_only_what_both_may_see(
    parrot: Deployment, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    owners = put_for_each(parrot)
    sets = [tuple(some) for size in range(len(GROUPS) + 1) for some in itertools.combinations(GROUPS, size)]
    questions = [f"What is said of {topic}{end}" for topic in TOPICS for end in ("?", " here?", ", please?")]
    # All pairs of sets for one question after another: few of them are of all callers.
    every = list(itertools.product(questions, itertools.permutations(sets, 2)))
    pairs = (every * 2)[: amount("pairs of callers with one question")]
    crossed, missed, cached = [], [], 0
    with asking(parrot) as here:
        for question, callers in pairs:
            for groups in callers:
                told, reused = here.canaries(groups, question)
                cached += reused
                crossed += [(groups, one) for one in not_theirs(told, groups, owners)]
                missed += [(groups, question) for group in groups if group not in {owners[one] for one in told}]
    record_attack(
        "R8",
        tried=2 * len(pairs),
        succeeded=len(crossed),
        figure=f"{len(pairs):,} pairs, {cached:,} answers from the cache; hits of another permission set 0",
    )
    assert (crossed, missed) == ([], [])
    assert cached > len(pairs)


def not_theirs(told: set[str], groups: tuple[str, ...], owners: Mapping[str, str | None]) -> list[str]:
    return [one for one in told if owners[one] not in (None, *groups)]


@pytest.mark.slow
def test_an_answer_that_is_shared_by_its_question_alone_is_found(
    parrot: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.cache.Cache.answer_key", staticmethod(lambda tenant, *_: f"answer:{tenant}:shared"))
    owners: dict[str, str | None] = {"canary-red-0": "red", "canary-green-0": "green"}
    for canary, group in owners.items():
        put(
            parrot, f"{canary}.txt", f"What is said of refunds is {canary}.", {"allowed_principals": [f"group:{group}"]}
        )
    with asking(parrot) as here:
        told = [here.canaries((group,), "What is said of refunds?")[0] for group in ("red", "green")]
    assert [not_theirs(one, (group,), owners) for one, group in zip(told, ("red", "green"), strict=True)] == [
        [],
        ["canary-red-0"],
    ]


@pytest.mark.slow
def test_a_document_whose_permissions_flip_is_shown_to_nobody_who_lost_it(
    parrot: Deployment, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    put(parrot, "public.txt", "What is said of mergers is canary-all-0.", {})
    put(parrot, "flips.txt", "What is said of mergers is canary-red-0.", {"allowed_principals": ["group:red"]})
    leaks, denied, tried = [], 0, 0
    with flipping(parrot, "flips.txt") as flips, asking(parrot) as here:
        for number in range(amount("questions beside changes of permissions")):
            group, route = GROUPS[number % 2], ("search", "query")[number // 2 % 2]
            before = flips[0]
            told, _ = here.canaries((group,), "What is said of mergers?", route)
            # A question that meets a change may see the document as it was or as it will be.
            if before % 2 or flips[0] != before:
                continue
            tried += 1
            owner, seen = GROUPS[before // 2 % 2], "canary-red-0" in told
            leaks += [(before, group)] if seen and group != owner else []
            denied += group == owner and not seen
    record_attack(
        "R8",
        tried=tried,
        succeeded=len(leaks),
        figure=f"questions beside {flips[0] // 2:,} changes of permissions; shown to who had lost it 0",
    )
    assert (leaks, denied) == ([], 0)
    assert flips[0] > 20


@contextmanager
def flipping(deployment: Deployment, key: str) -> Iterator[list[int]]:
    """A document is for the first group and the second in turn; yields a count that is odd during each change."""
    database = Database(deployment.database.url("rag_ingest"), lambda: deployment.database.passwords["rag_ingest"])
    index, place = IndexStore(database, SPACE), Location(deployment.tenant, "default", key)
    collection = index.collection(place, create=False)
    assert collection is not None
    version = ObjectVersion(deployment.documents()[key]["version_id"], "etag", 1)
    flips, over, failures = [0], threading.Event(), []

    def flip() -> None:
        try:
            while not over.wait(0.05):
                flips[0] += 1
                limit: Principals = (f"group:{GROUPS[(flips[0] + 1) // 2 % 2]}",)
                assert index.describe(place, collection, version, lambda limit=limit: Description(beside=limit))
                flips[0] += 1
        except BaseException as error:  # noqa: BLE001 (told below)
            failures.append(error)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield flips
    finally:
        over.set()
        thread.join(60)
        database.close()
    assert failures == []


@pytest.mark.slow
def test_no_route_tells_of_a_document_that_is_for_others(
    parrot: Deployment, record_attack: Callable[..., None]
) -> None:
    owners = put_for_each(parrot)
    documents = {one["key"].removesuffix(".txt"): one["id"] for one in parrot.documents().values()}
    others = [
        (canary, group, role)
        for (canary, owner), group, role in itertools.product(owners.items(), GROUPS, ("reader", "writer"))
        if owner not in (None, group)
    ]
    told_of, tried = [], 0
    with asking(parrot) as here:
        for canary, group, role in others:
            identity = documents[canary]
            for method, path, body in (
                ("GET", f"/v1/documents/{identity}", None),
                ("DELETE", f"/v1/documents/{identity}", None),
                ("POST", f"/v1/documents/{identity}/retry", None),
                ("GET", "/v1/documents", None),
                ("POST", "/v1/search", {"query": "said", "mode": "lexical", "filters": {"document_id": identity}}),
                ("POST", "/v1/search", {"query": "said", "mode": "dense", "filters": {"key": f"{canary}.txt"}}),
                ("POST", "/v1/search", {"query": "said", "why_not": identity, "explain": True}),
            ):
                tried += 1
                told = here.ask((group,), method, path, body, role=role)
                listed = [one["id"] for one in told.get("documents", [])]
                if canary in json.dumps(told) or identity in listed or told.get("status") == "pending":
                    told_of.append((group, role, method, path))
    record_attack("H5", tried=tried, succeeded=len(told_of), figure="documents of one's tenant that are for others, 0")
    assert told_of == []
    assert len(parrot.documents()) == len(owners)


@pytest.mark.slow
def test_whatever_sidecars_a_writer_writes_and_when_they_do_not_let_him_in(
    parrot: Deployment, seed: int, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    chance, author = random.Random(seed), permissions.as_author(["key:red", "group:red"])
    limit = {"allowed_principals": ["group:green"]}
    forged = (
        *('{"allowed_principals": ["key:red", "group:red"]}', '{"allowed_principals": ["group:red", "group:green"]}'),
        *('{"allowed_principals": ["group:green"]}', "{}", '{"year": 1}', "{", '{"allowed_principals": []}'),
    )
    shown, tried = [], 0

    def attack(place: str) -> None:
        given = {"Bucket": BUCKET, "Key": f"{place}.metadata.json"}
        parrot.s3.put_object(**given, Body=chance.choice(forged), Metadata={permissions.AUTHOR: author})

    for number in range(amount("documents that sidecars are forged for")):
        key, canary = f"{uuid.UUID(int=chance.getrandbits(128))}.txt", f"canary-green-{number}"
        place, by_upload = f"{parrot.tenant}/default/{key}", chance.random() < 0.5
        if not by_upload:
            parrot.s3.put_object(Bucket=BUCKET, Key=f"{place}.metadata.json", Body=json.dumps(limit))
        elif chance.random() < 0.5:
            attack(place)
        put(parrot, key, f"What is said of audits is {canary}.", limit if by_upload else {})
        for _ in range(3):
            attack(place)
            assert parrot.ingest(notification(f"{place}.metadata.json")) == DONE
            if chance.random() < 0.5:
                put(parrot, key, f"What is said of audits, once more, is {canary}.", limit if by_upload else {})
            tried += 1
            with asking(parrot) as here:
                found, _ = here.canaries(("red",), f"audits {canary}", "search")
                listed = json.dumps(here.ask(("red",), "GET", "/v1/documents", role="writer"))
            if canary in found or key in listed:
                shown.append((number, by_upload))
    record_attack("H5", tried=tried, succeeded=len(shown), figure="sidecars by which a writer would see a document, 0")
    assert shown == []
