"""Text that PostgreSQL, a tokenizer and a reader can all hold: NFC, no NUL, lone surrogates or invisible controls."""

from __future__ import annotations

import re
import unicodedata

_LINE_BREAK = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
# Controls, soft hyphen, byte order marks, surrogates and the code points that Unicode says are no characters.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\ufeff\ufffe\uffff\ud800-\udfff]")
# What is not one space already: most text has nothing else.
_SPACE = re.compile(r"(?<=\S)(?: [^\S\n]+|[^\S\n ][^\S\n]*)")
_BLANK_LINE = re.compile(r"\n[^\S\n]+(?=\n)")
_MANY_BREAKS = re.compile(r"\n{3,}")
_LIGATURE = re.compile("[\ufb00-\ufb06]")
# Anything but the printable characters of ASCII and line breaks.
_UNUSUAL = re.compile(r"[^ -~\n]")


def clean(text: str) -> str:
    """`text` in NFC without control characters; one kind of line break, at most one space or blank line in a row."""
    unusual = _UNUSUAL.search(text) is not None
    if unusual:
        text = _LIGATURE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
        text = _UNWANTED.sub("", _LINE_BREAK.sub("\n", text))
        if not unicodedata.is_normalized("NFC", text):  # normalizing takes four times the memory of the text
            text = unicodedata.normalize("NFC", text)
    if unusual or "  " in text:
        text = _SPACE.sub(" ", text)
    text = _BLANK_LINE.sub("\n", text.replace(" \n", "\n"))
    return (_MANY_BREAKS.sub("\n\n", text) if "\n\n\n" in text else text).strip()


def clean_line(text: str | None) -> str | None:
    """One line of clean text, or None where nothing is left of it."""
    return " ".join(clean(text or "").split()) or None
