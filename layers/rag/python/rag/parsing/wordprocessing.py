"""DOCX: headings, paragraphs, list items and tables in reading order, then notes, comments, headers and footers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rag.parsing import tables
from rag.parsing.archives import Archive
from rag.parsing.outline import Block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from rag.limits import Limits

_STRICT = b"http://purl.oclc.org/ooxml/wordprocessingml/main"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M_TEXT = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
_TEXT_OF = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-", f"{_W}ptab": "\t"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_UNREAD = frozenset((_FALLBACK, f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr", f"{_W}instrText"))
_HEADING_STYLE = re.compile(r"heading\s*([1-9])\Z", re.IGNORECASE)
_FURTHER_PARTS = re.compile(r"word/(?:footnotes|endnotes|comments|header\d*|footer\d*)\.xml\Z")


def read(data: bytes, limits: Limits) -> tuple[str | None, list[Block]]:
    """The title from the document's properties, and its blocks."""
    archive = Archive(data, limits)
    levels = _heading_levels(archive)
    document = _part(archive, _main_part(archive))
    blocks = list(_blocks(document, levels))
    for name in sorted(filter(_FURTHER_PARTS.match, archive.names)):
        blocks += _blocks(_part(archive, name), levels)
    return document_title(archive), blocks


def document_title(archive: Archive) -> str | None:
    """The title in an Office file's properties."""
    properties = archive.part("docProps/core.xml")
    if not properties:
        return None
    return archive.xml("docProps/core.xml", properties).findtext("{http://purl.org/dc/elements/1.1/}title")


def _main_part(archive: Archive) -> str:
    candidates = [name for name in archive.names if re.fullmatch(r"word/document\d*\.xml", name)]
    return candidates[0] if candidates else "word/document.xml"


def _part(archive: Archive, name: str) -> Element:
    return archive.xml(name, archive.part(name).replace(_STRICT, _W[1:-1].encode()))


def _heading_levels(archive: Archive) -> dict[str, int]:
    """Style id → heading level, by the style's outline level or by its name, also through the style it is based on."""
    if "word/styles.xml" not in archive.names:
        return {}
    styles = {style.get(f"{_W}styleId", ""): style for style in _part(archive, "word/styles.xml").iter(f"{_W}style")}
    return {name: level for name in styles if (level := _style_level(name, styles))}


def _style_level(name: str, styles: dict[str, Element]) -> int:
    for _ in range(8):
        style = styles.get(name)
        if style is None:
            return 0
        title = _value(style.find(f"{_W}name"))
        if named := _HEADING_STYLE.match(title):
            return int(named[1])
        if title.lower() == "title":
            return 1
        if outline := _value(style.find(f"{_W}pPr/{_W}outlineLvl")):
            return int(outline) + 1 if outline in set("012345678") else 0
        name = _value(style.find(f"{_W}basedOn"))
    return 0


def _value(element: Element | None) -> str:
    return "" if element is None else element.get(f"{_W}val", "")


def _blocks(parent: Element, levels: dict[str, int]) -> Iterator[Block]:
    for child in parent:
        if child.tag == f"{_W}p":
            yield from _paragraph(child, levels)
        elif child.tag == f"{_W}tbl":
            yield from (Block(line, compact=True) for line in tables.lines(_rows(child)))
        elif child.tag not in _UNREAD:
            yield from _blocks(child, levels)


def _paragraph(paragraph: Element, levels: dict[str, int]) -> Iterator[Block]:
    properties = paragraph.find(f"{_W}pPr")
    text = "".join(_texts(paragraph)).strip()
    level, numbered = 0, False
    if properties is not None:
        level = levels.get(_value(properties.find(f"{_W}pStyle")), 0)
        number = properties.find(f"{_W}numPr/{_W}numId")
        numbered = number is not None and _value(number) != "0"
    if text:
        yield Block(f"- {text}" if numbered and not level else text, level, compact=numbered and not level)
    for box in _boxes(paragraph):
        yield from _blocks(box, levels)


def _texts(element: Element) -> Iterator[str]:
    """The text of a paragraph; what stands in text boxes comes after it, as paragraphs of their own."""
    for child in element:
        if child.tag in (f"{_W}t", _M_TEXT):
            yield child.text or ""
        elif child.tag in _TEXT_OF:
            yield _TEXT_OF[child.tag]
        elif child.tag not in _UNREAD and child.tag != f"{_W}txbxContent":
            yield from _texts(child)


def _boxes(element: Element) -> Iterator[Element]:
    for child in element:
        if child.tag == f"{_W}txbxContent":
            yield child
        elif child.tag not in _UNREAD:
            yield from _boxes(child)


def _rows(table: Element) -> Iterator[list[str]]:
    for row in _within(table, f"{_W}tr"):
        yield [_cell(cell) for cell in _within(row, f"{_W}tc")]


def _within(parent: Element, tag: str) -> Iterator[Element]:
    """The nearest descendants with this tag: content controls wrap rows and cells; a nested table's are not ours."""
    for child in parent:
        if child.tag == tag:
            yield child
        elif child.tag != f"{_W}tbl" and child.tag not in _UNREAD:
            yield from _within(child, tag)


def _cell(cell: Element) -> str:
    merged = cell.find(f"{_W}tcPr/{_W}vMerge")
    if merged is not None and merged.get(f"{_W}val", "continue") == "continue":
        return ""
    return " ".join("".join(_texts(paragraph)) for paragraph in cell.iter(f"{_W}p")).strip()
