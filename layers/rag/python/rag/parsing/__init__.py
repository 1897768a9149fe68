"""From the bytes of a file to its text in reading order, with pages and headings.

Content decides what a file is (`sniffing`), one small module reads each family of formats, `cleaning` makes the text
fit to store. Nothing here touches the world, but the bytes are hostile and native code reads some of them: `rag.parser`
runs this in a bounded child process.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from rag import limits as limiting
from rag.errors import DocumentError
from rag.parsing import (
    book,
    cleaning,
    decoding,
    extraction,
    mail,
    markup,
    outline,
    plain,
    presentation,
    sniffing,
    spreadsheet,
    streaming,
    wordprocessing,
)
from rag.types import Parsed, Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag.limits import Limits
    from rag.parsing.outline import Block

    _Reader = Callable[[bytes, Limits], tuple[str | None, Iterable[Section]]]

_SECTION_CHARACTERS = 1_000_000
_WORD = re.compile(r"[^\W_]")
_PICTURES_ONLY = "No text was found in the document; if it is scanned, run text recognition (OCR) on it first."


def parse(data: bytes, name: str, limits: Limits = limiting.USUAL) -> Parsed:
    """The clean text of a file, as `read` reads it, all of it in memory."""
    parsed = read(io.BytesIO(data), name, limits)
    sections = tuple(parsed.sections)
    pages = tuple(section.page for section in sections if section.page is not None and not section.text)
    return replace(parsed, sections=tuple(section for section in sections if section.text), pages_without_text=pages)


def read(file: BinaryIO, name: str, limits: Limits = limiting.USUAL) -> Parsed:
    """The clean text of a file, in sections; `name` only tells plain-text formats apart.

    Sections, of about a megabyte at most, are read once and as they are gone through: a large file of text is never
    whole in memory. A page of a PDF that has no text is an empty section. DocumentError, then or before, says why to
    the file's owner: EMPTY, NO_TEXT, ENCRYPTED, CORRUPT, UNSUPPORTED or a limit's code.
    """
    media_type = streaming.media_type(file, name, limits)
    if media_type is None:
        file.seek(0)
        media_type, title, sections = _read_whole(file.read(), name, limits)
    else:
        title, sections = None, streaming.sections(file, media_type)
    pieces = (piece for section in sections for piece in _pieces(_cleaned(section)))
    return Parsed(media_type, _checked(pieces, media_type, limits), cleaning.clean_line(title))


def picture(path: str, page: int) -> bytes:
    """A page of a PDF (1-based) as PNG; CORRUPT where it cannot be drawn."""
    return extraction.picture(path, page)


def _read_whole(data: bytes, name: str, limits: Limits) -> tuple[str, str | None, Iterable[Section]]:
    media_type = sniffing.media_type(data, name, limits)
    try:
        return media_type, *_READERS[media_type](data, limits)
    except RecursionError as error:
        raise limiting.too_deep(limits) from error


def _cleaned(section: Section) -> Section:
    return replace(section, text=cleaning.clean(section.text), heading=cleaning.clean_line(section.heading))


def _pieces(section: Section) -> Iterator[Section]:
    """The section, cut at blank lines, else lines, else words, where it is longer than is good to hold at once."""
    text, start = section.text, 0
    while len(text) - start > _SECTION_CHARACTERS:
        last = start + _SECTION_CHARACTERS
        ends = (text.rfind(mark, start + _SECTION_CHARACTERS // 2, last) for mark in ("\n\n", "\n", " "))
        end = next((end for end in ends if end >= 0), last)
        yield replace(section, text=text[start:end].strip())
        start = end
    yield replace(section, text=text[start:].strip()) if start else section


def _checked(sections: Iterable[Section], media_type: str, limits: Limits) -> Iterator[Section]:
    characters, words, empty_pages = 0, False, False
    for section in sections:
        characters += len(section.text)
        limiting.refuse_text(characters, limits)
        worded = _WORD.search(section.text) is not None
        words = words or worded
        if media_type == sniffing.PDF and not worded:
            empty_pages = True
            yield replace(section, text="")
        elif section.text:
            yield section
    if not words and not empty_pages:
        if media_type.startswith("text/"):
            raise DocumentError("EMPTY", "The file holds no words.")
        raise DocumentError("NO_TEXT", _PICTURES_ONLY)


def _outlined(
    read: Callable[[bytes, Limits], tuple[str | None, list[Block]]],
) -> _Reader:
    def outlined(data: bytes, limits: Limits) -> tuple[str | None, list[Section]]:
        title, blocks = read(data, limits)
        return title or outline.first_heading(blocks), outline.sections(blocks)

    return outlined


def _untitled(read: Callable[[str], Iterable[Section]]) -> _Reader:
    return lambda data, _: (None, read(decoding.decode(data)))


def _by_lines(read: Callable[[Iterable[str]], Iterable[Section]], newline: str | None = None) -> _Reader:
    return _untitled(lambda content: read(io.StringIO(content, newline)))


_READERS: dict[str, _Reader] = {
    sniffing.PDF: extraction.pdf,
    sniffing.DOCX: _outlined(wordprocessing.read),
    sniffing.PPTX: presentation.read,
    sniffing.XLSX: lambda data, limits: spreadsheet.read(data, sniffing.XLSX, limits),
    sniffing.ODS: lambda data, limits: spreadsheet.read(data, sniffing.ODS, limits),
    sniffing.ODT: _outlined(lambda data, _: extraction.tree(data, sniffing.ODT)),
    sniffing.RTF: _outlined(lambda data, _: extraction.tree(data, sniffing.RTF)),
    sniffing.EPUB: book.read,
    sniffing.HTML: _outlined(lambda data, _: markup.read(data)),
    sniffing.EMAIL: mail.read,
    sniffing.MARKDOWN: lambda data, _: plain.markdown(decoding.decode(data)),
    sniffing.CSV: _by_lines(plain.delimited, ""),
    sniffing.TSV: _by_lines(lambda lines: plain.delimited(lines, "\t"), ""),
    sniffing.JSON: lambda data, limits: (None, plain.json_document(decoding.decode(data), limits)),
    sniffing.JSON_LINES: _by_lines(plain.json_lines),
    sniffing.TEXT: _untitled(plain.text),
}
