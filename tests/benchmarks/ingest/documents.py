"""What is ingested: small notes and one long PDF, out of a seeded generator; no two passages are the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

SEED = 20_261_121
_SYLLABLES = [first + second for first in "bdfgklmnprstv" for second in "aeiou"]
_WORDS_PER_LINE = 11
_LINES_PER_PAGE = 42


def note(number: int, run: int = 0) -> bytes:
    """About 110 words."""
    drawn = random.Random(f"{SEED} {run} note {number}")
    return f"# Note {number}\n\n{' '.join(_lines(drawn, 10))}\n".encode()


def report(pages: int, run: int = 0) -> bytes:
    """A PDF of so many pages of 42 lines, with the operators that every writer of PDFs uses (ISO 32000-1, 7 to 9)."""
    drawn = random.Random(f"{SEED} {run} report")
    texts = [b"\n".join(_shown(line) for line in _lines(drawn, _LINES_PER_PAGE)) for _ in range(pages)]
    streams = [b"BT /F1 10 Tf 14 TL 60 780 Td\n" + text + b"\nET" for text in texts]
    kids = b" ".join(b"%d 0 R" % (4 + 2 * page) for page in range(pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, pages),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for page, stream in enumerate(streams):
        box = b"/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 595 842]"
        objects.append(b"<< /Type /Page /Parent 2 0 R %b /Contents %d 0 R >>" % (box, 5 + 2 * page))
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream))
    return _file(objects)


def _lines(drawn: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        words = ["".join(drawn.choices(_SYLLABLES, k=drawn.randint(2, 4))) for _ in range(_WORDS_PER_LINE)]
        yield " ".join(words).capitalize() + "."


def _shown(line: str) -> bytes:
    return b"(%b) Tj T*" % line.encode()


def _file(objects: list[bytes]) -> bytes:
    content, places = bytearray(b"%PDF-1.4\n"), []
    for number, each in enumerate(objects, start=1):
        places.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    ending = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(content))
    return bytes(content) + b"xref\n0 %d\n0000000000 65535 f \n%b%b" % (size, table, ending)
