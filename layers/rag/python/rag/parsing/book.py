"""EPUB: the chapters of its spine, in order, each read as the web page that it is."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from rag.errors import DocumentError
from rag.parsing import archives, markup, outline
from rag.parsing.outline import Block

if TYPE_CHECKING:
    import zipfile
    from xml.etree.ElementTree import Element

    from rag.types import Section

_DC = "{http://purl.org/dc/elements/1.1/}"
_OPF = "{http://www.idpf.org/2007/opf}"
_PAGES = (".xhtml", ".html", ".htm", ".xml")


def read(data: bytes) -> tuple[str | None, list[Section]]:
    """The book's title, a section with title and authors, then its chapters; ENCRYPTED under rights management."""
    archive = archives.opened(data)
    _refuse_locked(archive)
    location = _package_location(archive)
    package = archives.xml(archives.part(archive, location), location)
    title = package.findtext(f".//{_DC}title")
    authors = [creator.text for creator in package.iter(f"{_DC}creator") if creator.text]
    blocks = [Block(", ".join(filter(None, [title, *authors])))]
    for name in _spine(package, posixpath.dirname(location)):
        blocks += markup.read(archives.part(archive, name))[1]
    return title, outline.sections(blocks)


def _refuse_locked(archive: zipfile.ZipFile) -> None:
    locked = archives.part(archive, "META-INF/encryption.xml")
    if any(f'{suffix}"'.encode() in locked for suffix in _PAGES):
        raise DocumentError("ENCRYPTED", "The book's chapters are encrypted (digital rights management).")


def _package_location(archive: zipfile.ZipFile) -> str:
    container = archives.part(archive, "META-INF/container.xml")
    for element in archives.xml(container, "META-INF/container.xml").iter():
        if element.tag.endswith("}rootfile"):
            return element.get("full-path", "")
    raise DocumentError("CORRUPT", "The book's container names no package.")


def _spine(package: Element, folder: str) -> list[str]:
    items = {item.get("id"): item.get("href", "") for item in package.iter(f"{_OPF}item")}
    chapters = [items.get(reference.get("idref"), "") for reference in package.iter(f"{_OPF}itemref")]
    return [posixpath.normpath(posixpath.join(folder, unquote(chapter))) for chapter in chapters if chapter]
