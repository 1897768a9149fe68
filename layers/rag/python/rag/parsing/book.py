"""EPUB: the chapters of its spine, in order, each read as the web page that it is."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from rag.errors import DocumentError
from rag.parsing import markup, outline
from rag.parsing.archives import Archive
from rag.parsing.outline import Block

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from rag.limits import Limits
    from rag.types import Section

_DC = "{http://purl.org/dc/elements/1.1/}"
_OPF = "{http://www.idpf.org/2007/opf}"
_PAGES = (".xhtml", ".html", ".htm", ".xml")


def read(data: bytes, limits: Limits) -> tuple[str | None, list[Section]]:
    """The book's title, a section with title and authors, then its chapters; ENCRYPTED under rights management."""
    archive = Archive(data, limits)
    _refuse_locked(archive)
    location = _package_location(archive)
    package = archive.xml(location)
    title = package.findtext(f".//{_DC}title")
    authors = [creator.text for creator in package.iter(f"{_DC}creator") if creator.text]
    blocks = [Block(", ".join(filter(None, [title, *authors])))]
    for name in _spine(package, posixpath.dirname(location)):
        blocks += markup.read(archive.part(name))[1]
    return title, outline.sections(blocks)


def _refuse_locked(archive: Archive) -> None:
    locked = archive.part("META-INF/encryption.xml")
    if any(f'{suffix}"'.encode() in locked for suffix in _PAGES):
        raise DocumentError("ENCRYPTED", "The book's chapters are encrypted (digital rights management).")


def _package_location(archive: Archive) -> str:
    for element in archive.xml("META-INF/container.xml").iter():
        if element.tag.endswith("}rootfile"):
            return element.get("full-path", "")
    raise DocumentError("CORRUPT", "The book's container names no package.")


def _spine(package: Element, folder: str) -> list[str]:
    items = {item.get("id"): item.get("href", "") for item in package.iter(f"{_OPF}item")}
    chapters = [items.get(reference.get("idref"), "") for reference in package.iter(f"{_OPF}itemref")]
    return [posixpath.normpath(posixpath.join(folder, unquote(chapter))) for chapter in chapters if chapter]
