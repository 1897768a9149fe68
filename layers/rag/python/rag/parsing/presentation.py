"""PPTX: a section per slide with its title, shapes in their order, tables, charts, diagrams and the speaker's notes."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from rag import limits as limiting
from rag.parsing import outline, tables
from rag.parsing.archives import Archive
from rag.parsing.outline import Block
from rag.parsing.wordprocessing import document_title

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from rag.limits import Limits
    from rag.types import Section

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_R_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_STRICT = (  # the namespaces of "Strict Open XML", and what everybody else writes
    (b"http://purl.oclc.org/ooxml/drawingml/", b"http://schemas.openxmlformats.org/drawingml/2006/"),
    (b"http://purl.oclc.org/ooxml/presentationml/", b"http://schemas.openxmlformats.org/presentationml/2006/"),
    (b"http://purl.oclc.org/ooxml/officeDocument/", b"http://schemas.openxmlformats.org/officeDocument/2006/"),
)
_TITLES = frozenset(("title", "ctrTitle"))
_FURNITURE = frozenset(("dt", "ftr", "sldNum", "hdr", "sldImg"))


def read(data: bytes, limits: Limits) -> tuple[str | None, list[Section]]:
    """The title from the presentation's properties, and its slides (page = number of the slide, 1-based)."""
    archive = Archive(data, limits)
    names = _slides(archive)
    limiting.refuse_pages(len(names), limits)
    slides = [outline.sections(_slide(archive, name), page=number) for number, name in enumerate(names, 1)]
    return document_title(archive), [section for slide in slides for section in slide]


def _slides(archive: Archive) -> list[str]:
    """The parts of the slides in the order they are shown."""
    main = "ppt/presentation.xml"
    related = _related(archive, main)
    listed = [related.get(entry.get(_R_ID, ""), ("", ""))[1] for entry in _part(archive, main).iter(f"{_P}sldId")]
    return [name for name in listed if name in archive.names]


def _slide(archive: Archive, name: str) -> Iterator[Block]:
    slide = _part(archive, name)
    shapes = list(_shapes(slide))
    yield from (
        Block(text, level=1) for shape in shapes if _placeholder(shape) in _TITLES for text in [_joined(shape, " ")]
    )
    for shape in shapes:
        if _placeholder(shape) not in _TITLES | _FURNITURE:
            yield from _shape(shape)
    for kind, part in _related(archive, name).values():
        if kind in {"chart", "diagramData", "notesSlide"} and part in archive.names:
            yield from _attached(kind, _part(archive, part))


def _shapes(parent: Element) -> Iterator[Element]:
    for child in parent:
        if child.tag in {f"{_P}sp", f"{_P}graphicFrame", f"{_P}cxnSp"}:
            yield child
        elif child.tag != _FALLBACK:
            yield from _shapes(child)


def _placeholder(shape: Element) -> str | None:
    placeholder = shape.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
    return None if placeholder is None else placeholder.get("type", "body")


def _shape(shape: Element) -> Iterator[Block]:
    if shape.tag == f"{_P}graphicFrame":
        rows = [[_joined(cell, " ") for cell in row.iter(f"{_A}tc")] for row in shape.iter(f"{_A}tr")]
        yield from (Block(line, compact=True) for line in tables.lines(rows))
        return
    yield from (Block(text, compact=True) for text in _paragraphs(shape))


def _attached(kind: str, part: Element) -> Iterator[Block]:
    if kind == "chart":
        yield from (Block(line, compact=True) for line in _chart(part))
    elif kind == "diagramData":
        yield from (Block(text, compact=True) for text in _paragraphs(part))
    else:
        notes = [
            text for shape in _shapes(part) if _placeholder(shape) not in _FURNITURE for text in _paragraphs(shape)
        ]
        if notes:
            yield Block("Notes: " + "\n".join(notes))


def _chart(part: Element) -> Iterator[str]:
    """The chart's title, then per series "category: value" pairs as they are cached beside the drawing."""
    yield from _paragraphs(part)
    for series in part.iter(f"{_C}ser"):
        name = " ".join(value.text or "" for value in series.iterfind(f"{_C}tx//{_C}v"))
        categories = [value.text or "" for value in series.iterfind(f"{_C}cat//{_C}v")]
        values = [value.text or "" for value in series.iterfind(f"{_C}val//{_C}v")]
        pairs = [f"{category}: {value}" for category, value in zip(categories, values, strict=False)]
        yield " | ".join([name, *(pairs or values)])


def _paragraphs(element: Element) -> list[str]:
    texts = ("".join(_runs(paragraph)).strip() for paragraph in element.iter(f"{_A}p"))
    return [text for text in texts if text]


def _runs(paragraph: Element) -> Iterator[str]:
    for child in paragraph.iter():
        if child.tag == f"{_A}t":
            yield child.text or ""
        elif child.tag in {f"{_A}br", f"{_A}tab"}:
            yield " "


def _joined(element: Element, separator: str) -> str:
    return separator.join(_paragraphs(element))


def _related(archive: Archive, name: str) -> dict[str, tuple[str, str]]:
    """Relationship id → (kind, part) of one part."""
    folder, file = posixpath.split(name)
    relations = archive.part(f"{folder}/_rels/{file}.rels")
    if not relations:
        return {}
    return {
        relation.get("Id", ""): (
            relation.get("Type", "").rsplit("/", 1)[-1],
            _resolved(folder, relation.get("Target", "")),
        )
        for relation in archive.xml(f"{file}.rels", relations)
    }


def _resolved(folder: str, target: str) -> str:
    return target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))


def _part(archive: Archive, name: str) -> Element:
    data = archive.part(name)
    for strict, transitional in _STRICT:
        data = data.replace(strict, transitional)
    return archive.xml(name, data)
