"""Large files of text, read a megabyte at a time: their sections are those of the whole text, cut at blank lines."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from rag.parsing import decoding, plain, sniffing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag.limits import Limits
    from rag.types import Section

# Below it a file is read at once; no format that must be is read from more than the parser's memory holds.
WHOLE_BYTES = 16 * 1024 * 1024
_SAMPLE_BYTES = 1024 * 1024
# Of one line, so that a file without line breaks is no exception.
_LINE_CHARACTERS = 1_000_000


def media_type(file: BinaryIO, name: str, limits: Limits) -> str | None:
    """The media type of a large file that can be read piece by piece; None for every other."""
    if file.seek(0, io.SEEK_END) <= WHOLE_BYTES:
        return None
    found = sniffing.media_type(_sample(file), name, limits)
    # JSON, which the sample would not be, is no such format, whatever else it may be read as.
    return found if found in _READERS and not name.lower().endswith(".json") else None


def sections(file: BinaryIO, media_type: str) -> Iterator[Section]:
    """The sections of a file that `media_type` says can be read so."""
    encoding = decoding.encoding(_sample(file), _pieces(file))
    file.seek(0)
    text = io.TextIOWrapper(file, encoding, "replace", newline="" if media_type in _DELIMITED else None)
    try:
        yield from _READERS[media_type](_lines(text))
    finally:
        text.detach()  # it would close the file


def _sample(file: BinaryIO) -> bytes:
    """The first bytes, which end where a line does."""
    file.seek(0)
    sample = file.read(_SAMPLE_BYTES)
    return sample[: sample.rfind(b"\n") + 1] or sample


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_SAMPLE_BYTES):
        yield piece


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_LINE_CHARACTERS):
        yield line


_READERS: dict[str, Callable[[Iterable[str]], Iterator[Section]]] = {
    sniffing.TEXT: plain.text_lines,
    sniffing.CSV: plain.delimited,
    sniffing.TSV: lambda lines: plain.delimited(lines, "\t"),
    sniffing.JSON_LINES: plain.json_lines,
}
_DELIMITED = frozenset((sniffing.CSV, sniffing.TSV))
