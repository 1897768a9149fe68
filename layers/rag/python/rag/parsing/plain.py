"""Formats that are text already: plain text, Markdown, CSV, JSON and JSON lines."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rag import limits as limiting
from rag.parsing import outline, tables, unwrapping
from rag.parsing.outline import Block
from rag.types import Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag.limits import Limits

_FENCE = re.compile(r"\s{0,3}(```+|~~~+)")
_ATX_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*\Z")
_SETEXT_LINE = re.compile(r"\s{0,3}(=+|-{2,})\s*\Z")
_OWN_LINE = re.compile(r"\s*(?:[-*+]\s|\d+[.)]\s|[|>]|\[\^?[^\]]+\]:|\s{4,}\S|<)")
_EMPTY_LINES = re.compile(r"\n\s*\n")
_FRONT_MATTER = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)
_SECTION_CHARACTERS = 1_000_000
_FRONT_TITLE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)


def text(content: str) -> list[Section]:
    """Plain text: lines that were broken at a fixed width are joined to paragraphs."""
    return [Section(text=unwrapping.unwrap_text(content))]


def text_lines(lines: Iterable[str]) -> Iterator[Section]:
    """As `text`, of lines with their line breaks, a section for a megabyte of them."""
    return map(Section, unwrapping.unwrap_slabs(unwrapping.slabs_of_lines(lines)))


def delimited(lines: Iterable[str], delimiter: str | None = None) -> Iterator[Section]:
    """CSV: one line per record, with the column names where the first row holds them."""
    rows = tables.delimited_rows(lines, delimiter)
    return _grouped(tables.lines(rows, likely_headed=True), "\n")


def json_document(content: str, limits: Limits) -> list[Section]:
    """JSON: a paragraph per element of the outermost list, a line "path: value" per leaf; TOO_DEEP beyond the limit."""
    value = json.loads(content)
    limiting.refuse_depth([value], _within, limits)
    elements = value if isinstance(value, list) else [value]
    return list(_records("\n".join(_leaves(element)) for element in elements))


def json_lines(lines: Iterable[str]) -> Iterator[Section]:
    """A paragraph per line; a line that is not JSON stays as it is."""
    return _records(_json_line(line.rstrip("\r\n")) for line in lines if line.strip())


def markdown(content: str) -> tuple[str | None, list[Section]]:
    """Markdown as its author wrote it, under its headings; the title is the front matter's or the first heading."""
    content = content.replace("\r\n", "\n")
    front = _FRONT_MATTER.match(content)
    blocks = list(_markdown_blocks(content[front.end() :] if front else content))
    title = _FRONT_TITLE.search(front[1]) if front else None
    return (title[1] if title else outline.first_heading(blocks)), outline.sections(blocks)


def _records(texts: Iterable[str]) -> Iterator[Section]:
    """A paragraph per record, so that none may hold an empty line itself."""
    return _grouped((_EMPTY_LINES.sub("\n", text) for text in texts), "\n\n")


def _grouped(paragraphs: Iterable[str], separator: str) -> Iterator[Section]:
    """All in one section, or in several of a megabyte."""
    group: list[str] = []
    characters = 0
    for paragraph in paragraphs:
        group.append(paragraph)
        characters += len(paragraph)
        if characters >= _SECTION_CHARACTERS:
            yield Section(separator.join(group), rows=separator)
            group, characters = [], 0
    if group:
        yield Section(separator.join(group), rows=separator)


def _json_line(line: str) -> str:
    try:
        return "\n".join(_leaves(json.loads(line)))
    except (ValueError, RecursionError):
        return line


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    elif value is not None and value != "":
        leaf = value if isinstance(value, str) else json.dumps(value)
        yield f"{path}: {leaf}" if path else leaf


def _markdown_blocks(content: str) -> Iterator[Block]:
    paragraph: list[str] = []
    fence = None
    for line in [*content.split("\n"), ""]:
        if fence:
            paragraph.append(line)
            fence = None if line.strip().startswith(fence) else fence
            continue
        opening, heading = _FENCE.match(line), _ATX_HEADING.match(line)
        underline = _SETEXT_LINE.match(line) if len(paragraph) == 1 else None
        if underline and not _OWN_LINE.match(paragraph[0]):
            yield Block(paragraph[0].strip(), level=1 if underline[1][0] == "=" else 2)
            paragraph = []
            continue
        if paragraph and (heading or not line.strip()):
            yield Block(_paragraph(paragraph))
            paragraph = []
        if heading:
            yield Block(heading[2], level=len(heading[1]))
        elif line.strip():
            paragraph.append(line)
            fence = opening[1] if opening else None
    if paragraph:
        yield Block("\n".join(paragraph))


def _paragraph(source: list[str]) -> str:
    """Lines of one paragraph belong together, except in code, lists, tables and quotations."""
    joined = source[0].rstrip()
    in_code = bool(_FENCE.match(source[0]))
    for line in source[1:]:
        own_line = in_code or "|" in line or _OWN_LINE.match(line) or _FENCE.match(line)
        in_code = in_code or bool(_FENCE.match(line))
        joined += ("\n" + line.rstrip()) if own_line else (" " + line.strip())
    return joined
