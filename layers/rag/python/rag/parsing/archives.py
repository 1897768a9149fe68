"""ZIP containers, opened with suspicion: bombs are refused by what they declare, entities before any is expanded."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET
from xml.parsers import expat

from rag.errors import DocumentError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MEBIBYTE = 1024 * 1024
_MAX_ENTRIES = 20_000
_MAX_UNPACKED_BYTES = 400 * _MEBIBYTE
_MAX_RATIO = 200
_RATIO_MATTERS_BYTES = 32 * _MEBIBYTE
_XML_SUFFIXES = (".xml", ".rels", ".vml", ".opf", ".ncx")


def opened(data: bytes) -> zipfile.ZipFile:
    """The archive, after it was found sound: CORRUPT, ENCRYPTED or TOO_LARGE otherwise."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DocumentError("CORRUPT", f"The file is a damaged or incomplete ZIP container: {error}.") from error
    _refuse_bomb(archive)
    if any(entry.flag_bits & 1 for entry in archive.infolist()):
        raise DocumentError("ENCRYPTED", "The file's contents are encrypted; upload a copy without a password.")
    return archive


def part(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one entry, or nothing where there is no such entry; CORRUPT where it cannot be unpacked."""
    try:
        return archive.read(name)
    except KeyError:
        return b""
    except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, NotImplementedError, OSError) as error:  # type: ignore[attr-defined]
        raise DocumentError("CORRUPT", f"{name} inside the file cannot be unpacked: {error}.") from error


def refuse_entities(archive: zipfile.ZipFile) -> None:
    """CORRUPT where an XML part declares entities: office programs never write any, only attacks do."""
    for entry in archive.infolist():
        if entry.filename.lower().endswith(_XML_SUFFIXES) and declares_entities(part(archive, entry.filename)):
            raise DocumentError(
                "CORRUPT", f"{entry.filename} inside the file declares XML entities, which is not allowed."
            )


def declares_entities(xml: bytes) -> bool:
    """Whether the prolog declares entities; reading stops at the first element, so that nothing is ever expanded."""
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = _entity_declared
    parser.StartElementHandler = _prolog_over
    try:
        parser.Parse(xml, True)  # noqa: FBT003 - expat's own signature
    except _EntityDeclared:
        return True
    except (_PrologOver, expat.ExpatError):
        return False
    return False


def xml(data: bytes, what: str) -> Element:
    """The root of an XML part; CORRUPT where it is malformed or declares entities."""
    if declares_entities(data):
        raise DocumentError("CORRUPT", f"{what} inside the file declares XML entities, which is not allowed.")
    try:
        return ET.fromstring(data)  # noqa: S314 - entities were refused above
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DocumentError("CORRUPT", f"{what} inside the file is not well-formed XML: {error}.") from error


class _EntityDeclared(Exception):  # noqa: N818 - a signal, not an error
    pass


class _PrologOver(Exception):  # noqa: N818 - a signal, not an error
    pass


def _entity_declared(*_: object) -> None:
    raise _EntityDeclared


def _prolog_over(*_: object) -> None:
    raise _PrologOver


def _refuse_bomb(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    bomb = any(
        entry.file_size > _RATIO_MATTERS_BYTES and entry.file_size > _MAX_RATIO * max(1, entry.compress_size)
        for entry in entries
    )
    if bomb or unpacked > _MAX_UNPACKED_BYTES or len(entries) > _MAX_ENTRIES:
        raise DocumentError(
            "TOO_LARGE",
            f"The file unpacks to {unpacked // _MEBIBYTE} MiB in {len(entries)} parts; at most "
            f"{_MAX_UNPACKED_BYTES // _MEBIBYTE} MiB, {_MAX_ENTRIES} parts and {_MAX_RATIO}-fold compression are read.",
        )
