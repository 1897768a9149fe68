"""As much of an ELF file as says where it runs: its machine, and the newest GLIBC that it asks for.

System V ABI, chapters "ELF Header" and "Sections"; Linux Standard Base, "Version Requirements".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MACHINES = {62: "x86_64", 183: "aarch64"}
MAGIC = b"\x7fELF"
_64_BIT_LITTLE_ENDIAN = b"\x02\x01"
_SHT_GNU_VERNEED = 0x6FFFFFFE
_GLIBC = re.compile(r"GLIBC_(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Elf:
    """`needed` are the versions of symbols that it takes from other libraries, as in GLIBC_2.17."""

    machine: str
    needed: frozenset[str]

    @property
    def glibc(self) -> tuple[int, int]:
        """The newest one it needs; (0, 0) when it needs none."""
        found = [match.groups() for match in map(_GLIBC.fullmatch, self.needed) if match]
        return max(((int(major), int(minor)) for major, minor in found), default=(0, 0))


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read(path: Path) -> Elf:
    """Raise ValueError for what is no 64-bit little-endian file."""
    image = path.read_bytes()
    if image[:6] != MAGIC + _64_BIT_LITTLE_ENDIAN:
        raise ValueError(f"{path} is no 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", image, 18)
    return Elf(MACHINES.get(machine, str(machine)), frozenset(_needed(image)))


def _needed(image: bytes) -> Iterator[str]:
    (table,) = struct.unpack_from("<Q", image, 40)
    entry_size, count = struct.unpack_from("<HH", image, 58)
    # Of each section: type, offset in the file, the section that goes with it, how many entries.
    sections = [
        (kind, offset, link, entries)
        for kind, offset, link, entries in (
            struct.unpack_from("<4xI16xQ8xII", image, table + number * entry_size) for number in range(count)
        )
    ]
    for kind, offset, link, entries in sections:
        if kind == _SHT_GNU_VERNEED:
            yield from _versions(image, offset, entries, strings=sections[link][1])


def _versions(image: bytes, offset: int, entries: int, *, strings: int) -> Iterator[str]:
    for _ in range(entries):
        versions, first, following = struct.unpack_from("<2xH4xII", image, offset)
        at = offset + first
        for _ in range(versions):
            name, next_version = struct.unpack_from("<8xII", image, at)
            yield image[strings + name : image.index(b"\0", strings + name)].decode()
            at += next_version
        offset += following
