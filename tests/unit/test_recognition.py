"""Pages without text: who is asked about them, how they come back into their order, and what their owner is told."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from rag import recognition
from rag.errors import DocumentError, UnavailableError
from rag.recognition import Scans, completed
from rag.types import Parsed, Section


@dataclass
class Reader:
    """Says what the picture says."""

    at_once: int = 3
    seen: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, picture: bytes) -> str:
        with self.lock:
            self.seen.append(picture)
        if picture == b"down":
            raise UnavailableError("nobody is there")
        return picture.decode()


def drawn(page: int) -> bytes:
    return f"Page {page}, \0recognised\f".encode()


def scanned(*pages: int, read: tuple[Section, ...] = ()) -> Parsed:
    return Parsed("application/pdf", read, "Scans", pages)


def test_recognised_pages_stand_among_the_others_in_their_order() -> None:
    parsed = scanned(1, 3, 4, read=(Section("Two.", 2), Section("Five.", 5)))

    found = completed(parsed, Scans(Reader()), drawn)

    texts = ["Page 1, recognised", "Two.", "Page 3, recognised", "Page 4, recognised", "Five."]
    assert list(found.sections) == [Section(text, page) for page, text in enumerate(texts, 1)]
    assert list(found.sections) == list(found.sections)
    assert (found.title, found.warnings) == ("Scans", ())


def test_a_document_without_such_pages_is_left_as_it_is() -> None:
    parsed = Parsed("text/plain", (Section("Words."),))
    assert completed(parsed, Scans(Reader()), drawn) is parsed


def test_without_a_recognizer_a_warning_names_the_pages() -> None:
    found = completed(scanned(1, 3, 4, 5, 9, read=(Section("Two.", 2),)), Scans(), drawn)

    (warning,) = found.warnings
    assert warning.startswith("5 pages have (1, 3-5, 9) no text and cannot be found: ")
    assert "RAG_OCR" in warning
    assert list(found.sections) == [Section("Two.", 2)]


def test_a_document_of_nothing_else_has_failed_and_is_told_what_to_do() -> None:
    for scans in (Scans(), Scans(Reader())):
        with pytest.raises(DocumentError) as caught:
            completed(scanned(1, 2), scans, lambda _: b" .. ")
        assert caught.value.code == "NO_TEXT"
        assert "RAG_OCR" in str(caught.value)


def test_pages_beyond_the_limit_are_named_and_not_sent() -> None:
    reader = Reader()
    found = completed(scanned(1, 2, 3, 4), Scans(reader, pages=2), drawn)

    assert [section.page for section in found.sections] == [1, 2]
    assert len(reader.seen) == 2
    assert found.warnings[0].startswith("2 pages have (3-4) no text")


def test_when_time_is_up_the_rest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(recognition.time, "monotonic", lambda: now[0])

    def slowly(page: int) -> bytes:
        now[0] += 1
        return drawn(page)

    found = completed(scanned(*range(1, 101)), Scans(Reader(), seconds=9.5), slowly)

    assert [section.page for section in found.sections] == list(range(1, 11))
    assert "(11-100)" in found.warnings[0]


def test_a_page_that_cannot_be_drawn_is_named_and_the_others_are_read() -> None:
    def torn(page: int) -> bytes:
        if page == 2:
            raise DocumentError("CORRUPT", "torn")
        return drawn(page)

    found = completed(scanned(1, 2, 3), Scans(Reader()), torn)

    assert [section.page for section in found.sections] == [1, 3]
    assert found.warnings[0].startswith("page 2 has no text")


def test_a_recognizer_that_is_away_fails_the_delivery_and_not_the_document() -> None:
    with pytest.raises(UnavailableError):
        completed(scanned(1, 2), Scans(Reader()), lambda _: b"down")


@dataclass
class Kept:
    pages: dict[int, str] = field(default_factory=dict)

    def found(self) -> dict[int, str]:
        return dict(self.pages)

    def keep(self, page: int, text: str) -> None:
        self.pages[page] = text


def test_what_was_kept_is_not_read_again_and_what_is_read_is_kept_also_beside_a_page_that_fails() -> None:
    reader, kept = Reader(), Kept({2: "Two, from before."})

    def picture(page: int) -> bytes:
        return b"down" if page == 3 else drawn(page)

    with pytest.raises(UnavailableError):
        completed(scanned(1, 2, 3, 4), Scans(reader), picture, kept)
    assert kept.pages == {1: "Page 1, recognised", 2: "Two, from before.", 4: "Page 4, recognised"}
    reader.seen.clear()
    found = completed(scanned(1, 2, 3, 4), Scans(reader), drawn, kept)
    assert [section.page for section in found.sections] == [1, 2, 3, 4]
    assert reader.seen == [drawn(3)]
