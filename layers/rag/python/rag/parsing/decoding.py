"""From bytes to text, whatever the encoding: by its mark, by Unicode's structure, as declared, else by a guess."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE_BYTES = 64 * 1024
_ESCAPED = re.compile(rb"\x1b[$(]|~\{")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_TEXT_CONTROLS_SHARE = 0.02


def decode(data: bytes, declared: str | None = None) -> str:
    """The text in `data`, undecodable bytes as U+FFFD; `declared` is believed only where it decodes without error."""
    for mark, marked in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(marked, "replace")
    wide = _wide_encoding(data[:4096])
    if wide:
        return data.decode(wide, "replace")
    if not _ESCAPED.search(data[:_SAMPLE_BYTES]):
        for strict in ("utf-8", declared):
            text = _decoded(data, strict)
            if text is not None:
                return text
    return data.decode(_guessed(data), "replace")


def encoding(sample: bytes, pieces: Iterable[bytes]) -> str:
    """The codec that reads a large file, whose first bytes are the `sample`: as `decode` would, mark left out."""
    for mark, _ in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return {codecs.BOM_UTF8: "utf-8-sig"}.get(
                mark, "utf-32" if len(mark) == len(codecs.BOM_UTF32) else "utf-16"
            )
    wide = _wide_encoding(sample[:4096])
    if wide:
        return wide
    return "utf-8" if not _ESCAPED.search(sample[:_SAMPLE_BYTES]) and _is_utf8(pieces) else _guessed(sample)


def _is_utf8(pieces: Iterable[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in pieces:
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def looks_like_text(text: str) -> bool:
    """Whether this reads as text: hardly any control or replacement characters."""
    sample = text[:_SAMPLE_BYTES]
    strange = len(_CONTROLS.findall(sample)) + sample.count("\ufffd")
    return strange <= _TEXT_CONTROLS_SHARE * len(sample)


def _decoded(data: bytes, encoding: str | None) -> str | None:
    try:
        return data.decode(encoding) if encoding else None
    except (UnicodeDecodeError, LookupError, ValueError):
        return None


def _wide_encoding(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark shows as NUL bytes at fixed places: at least half of its characters are Latin."""
    if sample.count(0) < len(sample) // 5 or len(sample) < 2:
        return None
    nulls = [sample[offset::4].count(0) / max(1, len(sample) // 4) for offset in range(4)]
    for encoding, wanted in (
        ("utf-32-be", (1, 1, 1, 0)),
        ("utf-32-le", (0, 1, 1, 1)),
        ("utf-16-be", (1, 0, 1, 0)),
        ("utf-16-le", (0, 1, 0, 1)),
    ):
        if all((share > 0.5) == bool(want) for share, want in zip(nulls, wanted, strict=True)):
            return encoding
    return None


def _guessed(data: bytes) -> str:
    import chardet  # noqa: PLC0415 - 0.2 s and 20 MB of models that only legacy encodings need

    encoding = chardet.detect(data[:_SAMPLE_BYTES])["encoding"]
    try:
        return codecs.lookup(encoding or "utf-8").name
    except LookupError:
        return "cp1252"
