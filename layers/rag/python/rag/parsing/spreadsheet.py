"""XLSX and ODS: a section per visible sheet, headed by the sheet's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag.errors import DocumentError
from rag.parsing import archives, extraction, outline, sniffing

if TYPE_CHECKING:
    from rag.types import Section


def read(data: bytes, media_type: str) -> tuple[str | None, list[Section]]:
    """The title and the sheets; EMPTY where no cell of a visible sheet holds anything."""
    title, blocks = extraction.tree(data, media_type, tables_headed=True)
    hidden = _hidden_sheets(data) if media_type == sniffing.XLSX else frozenset()
    sections = [section for section in outline.sections(blocks) if section.heading not in hidden]
    if not any(section.text != section.heading for section in sections):
        raise DocumentError("EMPTY", "No sheet of the workbook holds any cell.")
    return title, sections


def _hidden_sheets(data: bytes) -> frozenset[str]:
    workbook = archives.part(archives.opened(data), "xl/workbook.xml")
    sheets = archives.xml(workbook, "xl/workbook.xml").iter() if workbook else ()
    return frozenset(
        " ".join(sheet.get("name", "").split())
        for sheet in sheets
        if sheet.tag.endswith("}sheet") and sheet.get("state", "visible") != "visible"
    )
