"""Values as PostgreSQL sends and receives them in binary: nothing is written as text to be read as text again."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from struct import pack

from pgvector import HalfVector
from psycopg.adapt import Dumper
from psycopg.pq import Format

from rag import lexical
from rag.types import Vector

# Of PostgreSQL's own types, which never change.
BYTES, INTEGER, TEXT, UUID = 17, 23, 25, 2950
_NULL = pack("!i", -1)


class Binary(bytes):
    """A parameter that the server reads as the type it is cast to."""

    __slots__ = ()


class BinaryDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Binary) -> bytes:
        return obj


def column(oid: int, items: Iterable[bytes | None]) -> Binary:
    """An array of a type, of its values in binary."""
    parts = [_NULL if item is None else pack("!i", len(item)) + item for item in items]
    return Binary(_header(oid, len(parts), nulls=_NULL in parts) + b"".join(parts))


def integers(numbers: Iterable[int]) -> Binary:
    given = array("i", list(numbers))  # which is read twice as fast as what is only iterable
    words = array("i", [given.itemsize]) * (2 * len(given))
    words[1::2] = given
    return Binary(_header(INTEGER, len(given)) + _big_endian(words))


def optional_integers(numbers: Iterable[int | None]) -> Binary:
    return column(INTEGER, (None if number is None else pack("!i", number) for number in numbers))


def texts(values: Iterable[str | None]) -> Binary:
    return column(TEXT, (None if value is None else value.encode() for value in values))


def bytes_as_text(values: Iterable[bytes]) -> str:
    """An array of bytea for a statement that is sent as text; psycopg, value by value, takes ten times as long."""
    return "{" + ",".join(f'"\\\\x{value.hex()}"' for value in values) + "}"


def single_vector(vector: Vector) -> bytes:
    """Of pgvector's type `vector`; the server makes a halfvec of it in a tenth of the time that Python takes."""
    return pack("!HH", len(vector), 0) + _big_endian(vector[:])


def vector(halves: bytes) -> Vector:
    return array("f", HalfVector.from_binary(halves).to_list())


def sparse_vector(lexemes: Sequence[int], values: Iterable[float]) -> bytes:
    """`lexemes` in their order, which begin at 1, where indices do at 0."""
    header = pack("!iii", lexical.DIMENSIONS, len(lexemes), 0)
    indices = array("i", [lexeme - 1 for lexeme in lexemes])
    return header + _big_endian(indices) + _big_endian(array("f", values))


def _header(oid: int, length: int, *, nulls: bool = False) -> bytes:
    return pack("!iiIii", 1, nulls, oid, length, 1) if length else pack("!iiI", 0, 0, oid)


def _big_endian(numbers: array[int] | array[float]) -> bytes:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()
