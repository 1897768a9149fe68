"""From the bytes of a file to its text in reading order, with pages and headings.

Content decides what a file is (`sniffing`), one small module reads each family of formats, `cleaning` makes the text
fit to store. Nothing here touches the world, but the bytes are hostile and native code reads some of them: `rag.parser`
runs this in a bounded child process.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

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
    wordprocessing,
)
from rag.types import Parsed, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag.limits import Limits
    from rag.parsing.outline import Block

    _Reader = Callable[[bytes, Limits], tuple[str | None, list[Section]]]

_WORD = re.compile(r"[^\W_]")
_PICTURES_ONLY = "No text was found in the document; if it is scanned, run text recognition (OCR) on it first."


def parse(data: bytes, name: str, limits: Limits = limiting.USUAL) -> Parsed:
    """The clean text of a file, in sections; `name` only tells plain-text formats apart.

    DocumentError says why to its owner: EMPTY, NO_TEXT, ENCRYPTED, CORRUPT, UNSUPPORTED or a limit's code.
    """
    media_type = sniffing.media_type(data, name, limits)
    try:
        title, sections = _READERS[media_type](data, limits)
    except RecursionError as error:
        raise limiting.too_deep(limits) from error
    cleaned = [_cleaned(section) for section in sections]
    kept = tuple(section for section in cleaned if section.text)
    _check(kept, media_type, limits)
    return Parsed(media_type=media_type, title=cleaning.clean_line(title), sections=kept)


def _cleaned(section: Section) -> Section:
    return replace(section, text=cleaning.clean(section.text), heading=cleaning.clean_line(section.heading))


def _check(sections: tuple[Section, ...], media_type: str, limits: Limits) -> None:
    if not any(_WORD.search(section.text) for section in sections):
        if media_type.startswith("text/"):
            raise DocumentError("EMPTY", "The file holds no words.")
        raise DocumentError("NO_TEXT", _PICTURES_ONLY)
    limiting.refuse_text(sum(len(section.text) for section in sections), limits)


def _outlined(
    read: Callable[[bytes, Limits], tuple[str | None, list[Block]]],
) -> _Reader:
    def outlined(data: bytes, limits: Limits) -> tuple[str | None, list[Section]]:
        title, blocks = read(data, limits)
        return title or outline.first_heading(blocks), outline.sections(blocks)

    return outlined


def _untitled(read: Callable[[str], list[Section]]) -> _Reader:
    return lambda data, _: (None, read(decoding.decode(data)))


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
    sniffing.CSV: _untitled(plain.delimited),
    sniffing.TSV: _untitled(lambda content: plain.delimited(content, "\t")),
    sniffing.JSON: lambda data, limits: (None, plain.json_document(decoding.decode(data), limits)),
    sniffing.JSON_LINES: _untitled(plain.json_lines),
    sniffing.TEXT: _untitled(plain.text),
}
