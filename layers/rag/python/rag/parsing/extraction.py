"""What kreuzberg reads for us: PDF page by page; ODT and RTF by their structure, spreadsheets as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kreuzberg

from rag import limits as limiting
from rag.errors import DocumentError
from rag.parsing import tables, unwrapping
from rag.parsing.outline import Block
from rag.types import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag.limits import Limits


# Tesseract's manual asks for 300, Textract's for 150 at least; pictures of 200 are half as large and read as well.
_DPI = 200


def pdf(data: bytes, limits: Limits) -> tuple[str | None, list[Section]]:
    """The PDF's title and a section per page (1-based), its lines joined to paragraphs; empty where it has no text."""
    # Elements rather than pages: only they keep pdfium's mark where a hyphen broke a word at a line's end.
    result = _extracted(data, "application/pdf", result_format="element_based")
    limiting.refuse_pages(result.get_page_count(), limits)
    texts: dict[int, list[str]] = {page: [] for page in range(1, result.get_page_count() + 1)}
    for element in result.elements or []:
        if element["element_type"] != "page_break":
            texts.setdefault(element["metadata"]["page_number"] or 1, []).append(element["text"].replace("\r\n", "\n"))
    pages = unwrapping.unwrap_pages(["\n".join(texts[number]) for number in sorted(texts)])
    sections = [Section(text=text, page=number) for number, text in zip(sorted(texts), pages, strict=True)]
    return result.metadata.get("title"), sections


def picture(path: str, page: int) -> bytes:
    """A page (1-based) as PNG, as large as text recognition wants it."""
    try:
        return bytes(kreuzberg.render_pdf_page(path, page - 1, dpi=_DPI))
    except (kreuzberg.KreuzbergError, RuntimeError) as error:
        raise _document_error(str(error)) from error


def tree(data: bytes, media_type: str) -> tuple[str | None, list[Block]]:
    """The title and the blocks of a document that kreuzberg knows the structure of."""
    result = _extracted(data, media_type, include_document_structure=True)
    nodes = (result.document or {}).get("nodes", [])
    return result.metadata.get("title"), [block for node in nodes for block in _blocks(node["content"])]


def sheets(data: bytes, media_type: str) -> tuple[str | None, list[tuple[str, list[list[str]]]]]:
    """The title, and the name and rows of each sheet that holds anything."""
    result = _extracted(data, media_type)
    names = result.metadata.get("sheet_names") or []
    return result.metadata.get("title"), [
        (names[table.page_number - 1] if table.page_number <= len(names) else "", table.cells)
        for table in result.tables
    ]


def _extracted(data: bytes, media_type: str, **options: Any) -> Any:
    config = kreuzberg.ExtractionConfig(
        output_format="plain",
        use_cache=False,
        enable_quality_processing=False,
        pages=kreuzberg.PageConfig(extract_pages=True),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        **options,
    )
    try:
        return kreuzberg.extract_bytes_sync(data, media_type, config=config)
    # RuntimeError: a panic inside, which a damaged file can bring about.
    except (kreuzberg.KreuzbergError, RuntimeError) as error:
        raise _document_error(str(error)) from error


def _document_error(reason: str) -> DocumentError:
    if "password" in reason.lower() or "encrypted" in reason.lower():
        return DocumentError("ENCRYPTED", "The document needs a password to open; upload a copy without one.")
    return DocumentError("CORRUPT", f"The document is damaged and cannot be read: {reason[:300]}")


def _blocks(content: dict[str, Any]) -> Iterator[Block]:
    kind = content["node_type"]
    if kind in {"heading", "title"}:
        yield Block(content["text"], level=content.get("level") or 1)
    elif kind == "list_item":
        yield Block(f"- {content['text']}", compact=True)
    elif kind == "table":
        yield from (Block(line, compact=True) for line in tables.lines(_rows(content["grid"])))
    elif kind not in {"group", "image", "page_break", "metadata_block"} and content.get("text"):
        yield Block(content["text"])


def _rows(grid: dict[str, Any]) -> list[list[str]]:
    rows = [[""] * grid["cols"] for _ in range(grid["rows"])]
    for cell in grid["cells"]:
        rows[cell["row"]][cell["col"]] = cell["content"] or ""
    return rows
