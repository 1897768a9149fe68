"""XLSX and ODS: a section per visible sheet, headed by the sheet's name."""

from __future__ import annotations

from rag.errors import DocumentError
from rag.limits import Limits
from rag.parsing import extraction, sniffing, tables
from rag.parsing.archives import Archive
from rag.types import Section


def read(data: bytes, media_type: str, limits: Limits) -> tuple[str | None, list[Section]]:
    """The title and the sheets; EMPTY where no cell of a visible sheet holds anything."""
    title, found = extraction.sheets(data, media_type)
    hidden = _hidden_sheets(Archive(data, limits)) if media_type == sniffing.XLSX else frozenset()
    texts = [(name, "\n".join(tables.lines(rows, likely_headed=True))) for name, rows in found if name not in hidden]
    if not any(text for _, text in texts):
        raise DocumentError("EMPTY", "No visible sheet of the workbook holds any cell.")
    return title, [Section(text=f"{name}\n\n{text}", heading=name or None, rows="\n") for name, text in texts if text]


def _hidden_sheets(archive: Archive) -> frozenset[str]:
    workbook = archive.part("xl/workbook.xml")
    sheets = archive.xml("xl/workbook.xml", workbook).iter() if workbook else ()
    return frozenset(
        sheet.get("name", "")
        for sheet in sheets
        if sheet.tag.endswith("}sheet") and sheet.get("state", "visible") != "visible"
    )
