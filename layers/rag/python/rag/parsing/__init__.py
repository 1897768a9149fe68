"""From the bytes of a file to its text in reading order, with pages and headings.

Content decides what a file is (`sniffing`), one small module reads each family of formats, `cleaning` makes the text
fit to store. Nothing here touches the world, but the bytes are hostile and native code reads some of them: `rag.parser`
runs this in a bounded child process.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

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
    wordprocessing,
)
from rag.types import Parsed, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag.parsing.outline import Block

MAX_CHARACTERS = 64_000_000
_WORD = re.compile(r"[^\W_]")
_PICTURES_ONLY = "No text was found in the document; if it is scanned, run text recognition (OCR) on it first."


def parse(data: bytes, name: str, *, max_characters: int = MAX_CHARACTERS) -> Parsed:
    """The clean text of a file, in sections; `name` only tells plain-text formats apart.

    Raises DocumentError: EMPTY, NO_TEXT, ENCRYPTED, CORRUPT, UNSUPPORTED, TOO_LARGE; each says why to the owner.
    """
    media_type = sniffing.media_type(data, name)
    title, sections = _READERS[media_type](data)
    cleaned = [_cleaned(section) for section in sections]
    kept = tuple(section for section in cleaned if section.text)
    _check(kept, media_type, max_characters)
    return Parsed(media_type=media_type, title=cleaning.clean_line(title), sections=kept)


def _cleaned(section: Section) -> Section:
    return replace(section, text=cleaning.clean(section.text), heading=cleaning.clean_line(section.heading))


def _check(sections: tuple[Section, ...], media_type: str, max_characters: int) -> None:
    if not any(_WORD.search(section.text) for section in sections):
        if media_type.startswith("text/"):
            raise DocumentError("EMPTY", "The file holds no words.")
        raise DocumentError("NO_TEXT", _PICTURES_ONLY)
    characters = sum(len(section.text) for section in sections)
    if characters > max_characters:
        raise DocumentError(
            "TOO_LARGE", f"The document holds {characters} characters; at most {max_characters} are indexed."
        )


def _outlined(
    read: Callable[[bytes], tuple[str | None, list[Block]]],
) -> Callable[[bytes], tuple[str | None, list[Section]]]:
    def outlined(data: bytes) -> tuple[str | None, list[Section]]:
        title, blocks = read(data)
        return title or outline.first_heading(blocks), outline.sections(blocks)

    return outlined


def _untitled(read: Callable[[str], list[Section]]) -> Callable[[bytes], tuple[str | None, list[Section]]]:
    return lambda data: (None, read(decoding.decode(data)))


_READERS: dict[str, Callable[[bytes], tuple[str | None, list[Section]]]] = {
    sniffing.PDF: extraction.pdf,
    sniffing.DOCX: _outlined(wordprocessing.read),
    sniffing.PPTX: presentation.read,
    sniffing.XLSX: lambda data: spreadsheet.read(data, sniffing.XLSX),
    sniffing.ODS: lambda data: spreadsheet.read(data, sniffing.ODS),
    sniffing.ODT: _outlined(lambda data: extraction.tree(data, sniffing.ODT)),
    sniffing.RTF: _outlined(lambda data: extraction.tree(data, sniffing.RTF)),
    sniffing.EPUB: book.read,
    sniffing.HTML: _outlined(markup.read),
    sniffing.EMAIL: mail.read,
    sniffing.MARKDOWN: lambda data: plain.markdown(decoding.decode(data)),
    sniffing.CSV: _untitled(plain.delimited),
    sniffing.TSV: _untitled(lambda content: plain.delimited(content, "\t")),
    sniffing.JSON: _untitled(plain.json_document),
    sniffing.JSON_LINES: _untitled(plain.json_lines),
    sniffing.TEXT: _untitled(plain.text),
}
