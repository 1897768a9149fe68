"""Test collections in BEIR's layout (Thakur et al., 2021) and question files, read with every mistake named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

CORPUS, QUERIES, JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels.tsv"


class CollectionError(ValueError):
    """A file is missing or malformed; the message names file and line."""


@dataclass(frozen=True, slots=True)
class TestCollection:
    """`documents`: key → text as it is uploaded; `identities`: key → _id; `judgements`: query → _id → grade."""

    __test__ = False  # a name that pytest would collect

    documents: dict[str, bytes]
    identities: dict[str, str]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    empty: list[str]

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with what is uploaded."""
        digest = hashlib.sha256()
        for key, body in sorted(self.documents.items()):
            digest.update(f"{key} {len(body)} ".encode() + body)
        return digest.hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class AskedOfFile:
    """A question whose answer stands in `file` on one of `pages`, or nowhere when `answer` is None."""

    question: str
    file: str | None
    answer: str | None
    pages: tuple[int, ...]

    def of(self, key: str) -> bool:
        """Whether the answer may stand in the document of this key, which may lie deeper than `file` says."""
        return self.file is None or f"/{key}".endswith(f"/{self.file.removeprefix('./')}")


def read(folder: Path) -> TestCollection:
    """Read `corpus.jsonl queries.jsonl qrels.tsv`; queries without a relevant document are left out.

    CollectionError names what is missing, malformed, twice there, or judged but unknown.
    """
    documents, identities, empty = {}, {}, []
    for place, record in _records(folder / CORPUS):
        identity = _text(place, record, "_id")
        title, text = _text(place, record, "title", default=""), _text(place, record, "text")
        key = f"{quote(identity, safe='')}.md"
        if key in identities:
            raise CollectionError(f"{place}: the _id {identity!r} stands there twice")
        identities[key] = identity
        if f"{title}{text}".strip():
            documents[key] = (f"# {' '.join(title.split())}\n\n{text}\n" if title.strip() else f"{text}\n").encode()
        else:
            empty.append(identity)
    records = _records(folder / QUERIES)
    queries = {_text(place, record, "_id"): _text(place, record, "text") for place, record in records}
    judgements = _judgements(folder / JUDGEMENTS, set(queries), set(identities.values()))
    if not documents or not judgements:
        raise CollectionError(f"{folder}: there is no document, or no query that has a relevant one")
    return TestCollection(documents, identities, {query: queries[query] for query in judgements}, judgements, empty)


def read_questions(path: Path) -> list[AskedOfFile]:
    """Read lines of `{file, question, answer_substring, page}`; `answerable: false`, or no answer, is unanswerable."""
    found = []
    for place, record in _records(path):
        answer = record.get("answer_substring") if record.get("answerable", True) else None
        pages = record.get("pages_with_answer") or ([record["page"]] if record.get("page") else [])
        if not (isinstance(pages, list) and all(isinstance(page, int) for page in pages)):
            raise CollectionError(f"{place}: the page is no number")
        file = None if record.get("file") is None else _text(place, record, "file")
        found.append(AskedOfFile(_text(place, record, "question"), file or None, answer or None, tuple(pages)))
    if not found:
        raise CollectionError(f"{path}: there is no question")
    return found


def _judgements(path: Path, queries: set[str], documents: set[str]) -> dict[str, dict[str, int]]:
    """Query → document → grade, without the queries that have no relevant document."""
    found: dict[str, dict[str, int]] = {}
    for place, line in _lines(path):
        query, document, grade = ([*line.split("\t"), "", ""])[:3]
        if not grade.strip().lstrip("-").isdigit():
            if place.endswith(":1"):
                continue  # the header
            raise CollectionError(f"{place}: expected query-id, corpus-id and score between tabs")
        if query not in queries or document not in documents:
            raise CollectionError(f"{place}: there is no query {query!r} or no document {document!r}")
        found.setdefault(query, {})[document] = int(grade)
    return {query: grades for query, grades in found.items() if any(grade > 0 for grade in grades.values())}


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CollectionError(f"{place}: no JSON ({error})") from None
        if not isinstance(record, dict):
            raise CollectionError(f"{place}: expected a JSON object")
        yield place, record


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """`file:line` and the line, blank ones left out."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = ((f"{path}:{number}", line.rstrip("\r\n")) for number, line in enumerate(file, 1))
            yield from (found for found in lines if found[1].strip())
    except (OSError, UnicodeDecodeError) as error:
        raise CollectionError(f"{path} cannot be read: {error}") from error


def _text(place: str, record: dict[str, Any], name: str, default: str | None = None) -> str:
    value = record.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (name == "_id" and not value):
        raise CollectionError(f"{place}: {name} is missing or no text")
    return value
