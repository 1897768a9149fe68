"""ZIP containers, opened with suspicion: bombs are refused by what they declare, entities before any is expanded."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET
from xml.parsers import expat

from rag import limits as limiting
from rag.errors import DocumentError
from rag.limits import MEBIBYTE

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from rag.limits import Limits

_RATIO_MATTERS_BYTES = 32 * MEBIBYTE
_XML_SUFFIXES = (".xml", ".rels", ".vml", ".opf", ".ncx")
_DIRECTORY_ENTRY = b"PK\x01\x02"  # APPNOTE.TXT 4.3.12


class Archive:
    """A container that was found sound; what it is not is CORRUPT, ENCRYPTED or beyond the limits."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._limits = limits
        # Before the directory is read: two million entries fit in a hundred megabytes, and each becomes an object.
        _refuse_many(data.count(_DIRECTORY_ENTRY), limits)
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise DocumentError("CORRUPT", f"The file is a damaged or incomplete ZIP container: {error}.") from error
        _refuse_bomb(self._archive.infolist(), limits)
        if any(entry.flag_bits & 1 for entry in self._archive.infolist()):
            raise DocumentError("ENCRYPTED", "The file's contents are encrypted; upload a copy without a password.")

    @property
    def names(self) -> list[str]:
        """The names of the entries, in their order."""
        return self._archive.namelist()

    def part(self, name: str) -> bytes:
        """The bytes of one entry, or nothing where there is no such entry; CORRUPT where it cannot be unpacked."""
        try:
            return self._archive.read(name)
        except KeyError:
            return b""
        except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:  # type: ignore[attr-defined]
            raise DocumentError("CORRUPT", f"{name} inside the file cannot be unpacked: {error}.") from error

    def xml(self, name: str, data: bytes | None = None) -> Element:
        """The root of an XML part, or of `data` in its place; CORRUPT where it is malformed or declares entities."""
        data = self.part(name) if data is None else data
        if declares_entities(data):
            raise DocumentError("CORRUPT", f"{name} inside the file declares XML entities, which is not allowed.")
        try:
            root = ET.fromstring(data)  # noqa: S314 - entities were refused above
        except (ET.ParseError, ValueError, LookupError) as error:
            raise DocumentError("CORRUPT", f"{name} inside the file is not well-formed XML: {error}.") from error
        limiting.refuse_depth([root], lambda element: element, self._limits)
        return root

    def refuse_entities(self) -> None:
        """CORRUPT where an XML part declares entities: office programs never write any, only attacks do."""
        for name in self.names:
            if name.lower().endswith(_XML_SUFFIXES) and declares_entities(self.part(name)):
                raise DocumentError("CORRUPT", f"{name} inside the file declares XML entities, which is not allowed.")


def declares_entities(xml: bytes) -> bool:
    """Whether the prolog declares entities; reading stops at the first element, so that nothing is ever expanded."""
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = _entity_declared
    parser.StartElementHandler = _prolog_over
    try:
        parser.Parse(xml, True)  # noqa: FBT003 - expat's own signature
    except _EntityDeclared:
        return True
    except (_PrologOver, expat.ExpatError, LookupError, ValueError):
        return False
    return False


class _EntityDeclared(Exception):  # noqa: N818 - a signal, not an error
    pass


class _PrologOver(Exception):  # noqa: N818 - a signal, not an error
    pass


def _entity_declared(*_: object) -> None:
    raise _EntityDeclared


def _prolog_over(*_: object) -> None:
    raise _PrologOver


def _refuse_many(entries: int, limits: Limits) -> None:
    if entries > limits.archive_entries:
        raise DocumentError(
            "TOO_MANY_PARTS",
            f"The file is a container of {entries} parts; at most {limits.archive_entries} are read. "
            "Split the document, or save it anew without what is embedded in it.",
        )


def _refuse_bomb(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.unpacked_bytes:
        raise DocumentError(
            "UNPACKS_TOO_LARGE",
            f"The file unpacks to {unpacked // MEBIBYTE} MiB; at most {limits.unpacked_bytes // MEBIBYTE} MiB are "
            "read. Split the document, or save it anew without its pictures.",
        )
    for entry in entries:
        ratio = entry.file_size // max(1, entry.compress_size)
        if entry.file_size > _RATIO_MATTERS_BYTES and ratio > limits.compression_ratio:
            raise DocumentError(
                "COMPRESSED_TOO_FAR",
                f"{entry.filename} inside the file is compressed {ratio}-fold, as only attacks are; at most "
                f"{limits.compression_ratio}-fold is read. Save the document anew with an office program.",
            )
