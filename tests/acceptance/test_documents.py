"""Every shared document through the running platform, and the questions that people have of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.platform_process import Api, PlatformProcess, platform_process, wait_for
from tests.integration.outcomes import LEAK, REFUSED

READY_WITHIN_SECONDS = 3000
ADVERSARIAL_WITHIN_SECONDS = 240
FINAL = {"ready", "failed"}
# Half of all passages, and nothing is asked of it; its text is tested with the parsers.
LONGEST = "txt/book-war-and-peace-1225p.txt"


@pytest.fixture(scope="module")
def platform() -> Iterator[PlatformProcess]:
    # What is installed on this machine would decide over scans.
    with platform_process({"RAG_OCR": "off"}) as running:
        yield running


@pytest.mark.slow
@pytest.mark.data
def test_no_adversarial_document_hangs_kills_a_worker_or_leaks(platform: PlatformProcess, shared_data: Path) -> None:
    files = sorted((shared_data / "documents" / "adversarial").iterdir())
    seconds: dict[str, float] = {}
    with platform.api() as api:
        api.upload("first.txt", b"So that a worker is there.", "warm")
        api.wait_until_ready("warm", {"first.txt"})
        workers = set(platform.sandboxes("ingest"))
        for path in files:
            started = time.monotonic()
            api.upload(path.name, path.read_bytes(), "adversarial")
            document = settled(api, "adversarial", {path.name}, ADVERSARIAL_WITHIN_SECONDS)[path.name]
            seconds[path.name] = time.monotonic() - started
            assert code(document) == REFUSED.get(f"adversarial/{path.name}"), document
        assert workers
        assert workers <= set(platform.sandboxes("ingest"))
    leaked = platform.rows("select count(*) from chunks where position(%(leak)s in content) > 0", {"leak": LEAK})
    assert leaked == [(0,)]
    worst = max(seconds, key=lambda name: seconds[name])
    print(f"\n{len(files)} adversarial documents; the slowest, {worst}, was settled in {seconds[worst]:.1f} s")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    "left_out", [{LONGEST}, pytest.param(set(), marks=pytest.mark.corpora)], ids=["all but the longest", "all"]
)
def test_every_document_ends_as_it_should_and_questions_find_their_answers(
    platform: PlatformProcess, shared_data: Path, left_out: set[str]
) -> None:
    folder = shared_data / "documents"
    bodies = {path.relative_to(folder).as_posix(): path for path in folder.glob("*/*") if path.is_file()}
    bodies = {key: path for key, path in bodies.items() if key not in left_out}
    started = time.monotonic()
    with platform.api() as api:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: api.upload(key, bodies[key].read_bytes()), bodies))
        documents = settled(api, "default", set(bodies), READY_WITHIN_SECONDS)
        took = time.monotonic() - started
        failed = {key: code(document) for key, document in documents.items() if document["status"] == "failed"}
        assert failed == {key: reason for key, reason in REFUSED.items() if key in bodies}
        assert all(document["error"]["message"] for key, document in documents.items() if key in failed)
        assert all(document["chunk_count"] > 0 for key, document in documents.items() if key not in failed)

        questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
        answerable = [question for question in questions if question["answerable"]]
        missed = [question["question"] for question in answerable if not answered(api, question)]
    chunks = sum(document["chunk_count"] for document in documents.values())
    print(
        f"\n{len(bodies)} documents in {took:.0f} s: {len(bodies) - len(failed)} ready with {chunks} chunks, "
        f"{len(failed)} failed; {len(answerable) - len(missed)} of {len(answerable)} answers stand in the top 5 "
        f"on the right page; missed: {missed}"
    )
    assert len(missed) <= 0.15 * len(answerable), missed


def answered(api: Api, question: dict[str, Any]) -> bool:
    """Whether a hit of the first five holds the answer, on a page where it stands."""
    body = {"query": question["question"], "top_k": 5}
    hits = api.post("/v1/search", body).json()["hits"]
    pages = question.get("pages_with_answer") or ([question["page"]] if question["page"] else None)
    wanted = plain(question["answer_substring"])
    return any(wanted in plain(hit["content"]) and (pages is None or hit["page"] in pages) for hit in hits)


def plain(text: str) -> str:
    """White space and the shape of apostrophes are the typesetter's."""
    return " ".join(text.replace("\u2019", "'").split())


def settled(api: Api, collection: str, keys: set[str], timeout_seconds: float) -> dict[str, dict[str, Any]]:
    """Wait until all these documents are ready or failed."""

    def waiting() -> list[str]:
        time.sleep(0.5)  # asked more often, the questions would take the processor from the work
        documents = api.documents(collection)
        return [key for key in keys if documents.get(key, {}).get("status") not in FINAL]

    wait_for(lambda: not waiting(), waiting, timeout_seconds=timeout_seconds)
    documents = api.documents(collection)
    return {key: documents[key] for key in keys}


def code(document: dict[str, Any]) -> str | None:
    return document["error"]["code"] if document["error"] else None
