"""What a file is, by its content; its name only chooses among the formats that are plain text."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from rag.errors import DocumentError
from rag.parsing import decoding
from rag.parsing.archives import Archive

if TYPE_CHECKING:
    from rag.limits import Limits

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
EPUB = "application/epub+zip"
RTF = "application/rtf"
HTML = "text/html"
EMAIL = "message/rfc822"
MARKDOWN = "text/markdown"
CSV = "text/csv"
TSV = "text/tab-separated-values"
JSON = "application/json"
JSON_LINES = "application/x-ndjson"
TEXT = "text/plain"

_BY_SUFFIX = {
    ".csv": CSV, ".tsv": TSV, ".tab": TSV, ".md": MARKDOWN, ".markdown": MARKDOWN, ".mdx": MARKDOWN, ".json": JSON,
    ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".eml": EMAIL, ".html": HTML, ".htm": HTML, ".xhtml": HTML,
}  # fmt: skip
_BINARY_SUFFIXES = frozenset((".pdf", ".docx", ".pptx", ".xlsx", ".odt", ".ods", ".epub", ".rtf"))
_FOREIGN_MAGIC = {
    "an image": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM"),
    "a sound, film or image file": (b"RIFF", b"ID3", b"OggS", b"fLaC"),
    "an archive": (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd", b"PK\x05\x06"),
    "a program": (b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\0asm"),
    "a database": (b"SQLite format 3",),
    "a PostScript file": (b"%!PS",),
    "a font": (b"wOF", b"\0\1\0\0"),
}
_HTML_START = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_XML_START = re.compile(r"\s*<(?:\?xml\b|!DOCTYPE\b|svg\b)", re.IGNORECASE)
_HEADER_LINE = re.compile(
    r"From |(?:Received|From|To|Subject|Date|Message-ID|MIME-Version|Return-Path|Delivered-To|Content-Type|X-[\w-]+):",
    re.IGNORECASE,
)
_HEADER_LINES = 3


def media_type(data: bytes, name: str, limits: Limits) -> str:
    """The media type of one of the formats that are read; EMPTY, ENCRYPTED, CORRUPT, UNSUPPORTED or beyond a limit."""
    if not data.strip(b"\0\t\n\v\f\r \xef\xbb\xbf\xff\xfe"):
        raise DocumentError("EMPTY", "The file is empty." if not data else "The file holds nothing but white space.")
    if b"%PDF-" in data[:1024]:
        return PDF
    if data.startswith(b"PK\x03\x04"):
        return _container(Archive(data, limits))
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise _compound_file(data)
    if data.lstrip().startswith(b"{\\rtf"):
        return RTF
    return _textual(data, PurePosixPath(name).suffix.lower())


def _container(archive: Archive) -> str:
    names = set(archive.names)
    if "[Content_Types].xml" in names:
        content_types = archive.part("[Content_Types].xml")
        for mark, found in ((b"wordprocessingml", DOCX), (b"presentationml", PPTX), (b"spreadsheetml", XLSX)):
            if mark + b"." in content_types and any(name.startswith(_FOLDER[found]) for name in names):
                archive.refuse_entities()
                return found
    declared = archive.part("mimetype").strip().decode("ascii", "replace")
    if declared in {ODT, ODS}:
        return _open_document(archive, declared)
    if declared == EPUB or "META-INF/container.xml" in names:
        return EPUB
    raise DocumentError("UNSUPPORTED", "The file is a ZIP archive; unpack it and upload the documents inside.")


_FOLDER = {DOCX: "word/", PPTX: "ppt/", XLSX: "xl/"}


def _open_document(archive: Archive, declared: str) -> str:
    archive.refuse_entities()
    if b"encryption-data" in archive.part("META-INF/manifest.xml"):
        raise DocumentError("ENCRYPTED", "The document is encrypted; upload a copy without a password.")
    return declared


def _compound_file(data: bytes) -> DocumentError:
    """Office's container before 2007; since then it only wraps documents that need a password."""
    if "EncryptedPackage".encode("utf-16-le") in data:
        return DocumentError("ENCRYPTED", "The document is encrypted; upload a copy without a password.")
    return DocumentError(
        "UNSUPPORTED", "Legacy Office files (.doc, .xls, .ppt, .msg) are not read; save it in a current format."
    )


def _textual(data: bytes, suffix: str) -> str:
    text = decoding.decode(data)
    foreign = next((what for what, magic in _FOREIGN_MAGIC.items() if data.startswith(magic)), None)
    readable = decoding.looks_like_text(text)
    if foreign and not (readable and text.isascii()):
        raise DocumentError("UNSUPPORTED", f"The file is {foreign}; only documents are read.")
    if not readable and suffix in _BINARY_SUFFIXES:
        raise DocumentError("CORRUPT", f"The file is named {suffix} but its content is not that format, nor text.")
    if not readable:
        raise DocumentError("UNSUPPORTED", "The file is neither text nor a document format that is read.")
    return _among_text(text, suffix)


def _among_text(text: str, suffix: str) -> str:
    if _HTML_START.match(text[:4096]):
        return HTML
    if _XML_START.match(text[:4096]):
        entities = " It declares entities, which are never expanded." if "<!ENTITY" in text else ""
        raise DocumentError("UNSUPPORTED", f"XML and SVG files are not read.{entities}")
    if _is_email(text):
        return EMAIL
    named = _BY_SUFFIX.get(suffix, TEXT)
    return TEXT if named == JSON and not _is_json(text) else named


def _is_email(text: str) -> bool:
    unfolded = [line for line in text[:4096].lstrip().splitlines() if line[:1] not in {" ", "\t"}]
    headers = unfolded[:_HEADER_LINES]
    return len(headers) == _HEADER_LINES and all(_HEADER_LINE.match(line) for line in headers)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:  # and whether it ends well is not worth finding out
        return True
    return True
