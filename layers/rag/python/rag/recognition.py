"""Pages without text are pictures: they are recognised (OCR) where that is asked for, else their owner is told."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from rag.errors import DocumentError, UnavailableError
from rag.types import Parsed, Section


class Recognizer(Protocol):
    """`at_once`: pages that it reads in parallel; `read`: the lines of a page, from its picture as PNG."""

    at_once: int

    def read(self, picture: bytes) -> str: ...


class Kept(Protocol):
    """What was read of the document before, page → text; and a place for what is read now."""

    def found(self) -> dict[int, str]: ...
    def keep(self, page: int, text: str) -> None: ...


class _NothingKept:
    def found(self) -> dict[int, str]:
        return {}

    def keep(self, page: int, text: str) -> None:
        """There is no place for it."""


NOTHING_KEPT = _NothingKept()


@dataclass(frozen=True, slots=True)
class Scans:
    """How pages without text are read: by nobody, or by `recognizer`; of one document so many, for so long."""

    recognizer: Recognizer | None = None
    pages: int = 300
    seconds: float = 240.0


UNREAD = Scans()


def completed(parsed: Parsed, scans: Scans, picture: Callable[[int], bytes], kept: Kept = NOTHING_KEPT) -> Parsed:
    """The document with the text of its pages that had none; a warning names those that still have none.

    `picture` draws a page (1-based). NO_TEXT when nothing of the document has text; UnavailableError when the
    recognizer does not answer: another delivery asks it for what is not `kept` by then.
    """
    if not parsed.pages_without_text:
        return parsed
    found = _recognised(parsed.pages_without_text, scans, picture, kept) if scans.recognizer else {}
    sections = _Merged(parsed.sections, tuple(Section(text, page) for page, text in sorted(found.items())))
    if next(iter(sections), None) is None:
        raise DocumentError("NO_TEXT", _nothing(scans))
    left = tuple(page for page in parsed.pages_without_text if page not in found)
    return replace(parsed, sections=sections, warnings=(*parsed.warnings, *_warning(left, scans)))


@dataclass(frozen=True, slots=True)
class _Merged:
    """Both in the order of pages; the first may be long, and is gone through as often as this is."""

    read: Iterable[Section]
    recognised: tuple[Section, ...]

    def __iter__(self) -> Iterator[Section]:
        return heapq.merge(self.read, self.recognised, key=lambda section: section.page or 0)


def _recognised(pages: Sequence[int], scans: Scans, picture: Callable[[int], bytes], kept: Kept) -> dict[int, str]:
    """Page → text, where there is any, of the first pages; as many as time allows for."""
    recognizer = scans.recognizer
    if recognizer is None:
        return {}
    waiting: list[tuple[int, Future[str]]] = []
    failures: list[UnavailableError] = []
    found = kept.found()
    asked = [page for page in pages[: scans.pages] if page not in found]

    def take() -> None:
        page, text = waiting.pop(0)
        try:
            found[page] = _storable(text.result())
        except UnavailableError as error:  # raised when those that are being read meanwhile are kept
            failures.append(error)
        else:
            kept.keep(page, found[page])

    with ThreadPoolExecutor(recognizer.at_once) as pool:
        for page, drawn in _pictures(asked, picture, scans.seconds):
            waiting.append((page, pool.submit(recognizer.read, drawn)))
            if len(waiting) > recognizer.at_once:  # no more pictures in memory than are being read, and the next
                take()
            if failures:
                break
        while waiting:
            take()
    if failures:
        raise failures[0]
    return {page: text for page, text in found.items() if any(letter.isalnum() for letter in text)}


def _pictures(pages: Sequence[int], picture: Callable[[int], bytes], seconds: float) -> Iterator[tuple[int, bytes]]:
    end = time.monotonic() + seconds
    for page in pages:
        if time.monotonic() > end:
            return
        with suppress(DocumentError):  # this page only: the others may do better, and it is named in the end
            yield page, picture(page)


def _storable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n").strip()


def _warning(pages: Sequence[int], scans: Scans) -> list[str]:
    if not pages:
        return []
    which = f"page {pages[0]} has" if len(pages) == 1 else f"{len(pages)} pages have ({_listed(pages)})"
    return [f"{which} no text and cannot be found: {_advice(scans)}"]


def _nothing(scans: Scans) -> str:
    return f"No page of the document has text: {_advice(scans)}"


def _advice(scans: Scans) -> str:
    if scans.recognizer is None:
        return "if they are scans, run text recognition (OCR) on them first, or have it switched on (RAG_OCR)."
    return (
        f"text recognition found none; it reads at most {scans.pages} pages of a document, for {scans.seconds:.0f} s "
        "(RAG_OCR_PAGES, RAG_OCR_SECONDS)."
    )


def _listed(pages: Sequence[int]) -> str:
    """Such as 1, 3-5, 9; at most twenty of them."""
    runs: list[list[int]] = []
    for page in pages:
        if runs and page == runs[-1][-1] + 1:
            runs[-1][1:] = [page]
        else:
            runs.append([page])
    texts = ["-".join(map(str, run)) for run in runs]
    return ", ".join(texts[:20]) + (" and more" if len(texts) > 20 else "")
