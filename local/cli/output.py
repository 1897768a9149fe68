"""What reaches the terminal: JSON, tables and the words of documents, which may say anything but never drive it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# CSI and OSC sequences go whole, so that no "[31m" stays behind; then every control, C1 control, direction override
# and lone surrogate that could still act on a terminal. Tab and line feed stay.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]", re.DOTALL)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_FOLDED = {"key", "reason"}
_STYLES = {
    "ready": "green",
    "ok": "green",
    "processing": "yellow",
    "degraded": "yellow",
    "failed": "red",
    "down": "red",
    "not found": "red",
}


def safe(text: Any) -> str:
    """The text without anything that a terminal would obey; None is empty."""
    return "" if text is None else _CONTROL.sub("", _SEQUENCE.sub("", str(text).replace("\r\n", "\n")))


def one_line(text: Any) -> str:
    """Safe text with every run of white space, line ends too, as one space."""
    return " ".join(safe(text).split())


def as_json(value: Any) -> str:
    """Indented JSON; characters that a terminal would obey are escaped, all others stand as they are."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, indent=2, ensure_ascii=False))


def is_terminal(stream: TextIO | None = None) -> bool:
    return (stream or sys.stdout).isatty()


def width() -> int:
    """Columns for running text: the terminal's, at most 100; without one text is not wrapped."""
    return min(shutil.get_terminal_size().columns, 100) if is_terminal() else 10**6


def wrapped(text: str, *, indent: str = "", first: str | None = None) -> str:
    """Each line of the text, wrapped to the terminal and indented; `first` stands before the first one instead."""
    lines = [one_line(line) for line in safe(text).splitlines()] or [""]
    starts = [indent if first is None else first, *[indent] * len(lines)]
    fill = (
        textwrap.fill(line, width(), initial_indent=start, subsequent_indent=indent, break_on_hyphens=False)
        for line, start in zip(lines, starts, strict=False)
    )
    return "\n".join(fill)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns under headings: fitted to a terminal, or aligned and never cut for a file or a pipe."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if is_terminal():
        _drawn(headings, cells)
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for row in (headings, *cells):
        print("  ".join(cell.ljust(space) for cell, space in zip(row, widths, strict=True)).rstrip())


def _drawn(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box  # noqa: PLC0415 (rich costs 0.2 s, which a pipe need not wait for)
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    filled = [place for place in range(len(headings)) if any(row[place] for row in cells)]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place in filled:
        longest = max(len(row[place]) for row in cells)
        # A key is there to be copied: it may be folded, never cut, and rather the reason gets narrow.
        room = min(longest, 36) if headings[place] == "key" else None
        drawn.add_column(headings[place], no_wrap=headings[place] not in _FOLDED, overflow="fold", min_width=room)
    for row in cells:
        drawn.add_row(*(Text(row[place], style=_STYLES.get(row[place], "")) for place in filled))
    Console().print(drawn)


def note(message: str) -> None:
    """One line about what is going on, on stderr: stdout carries results only."""
    # Where both streams end in one file, what was printed before stands before.
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)


def size(count: float | None) -> str:
    """Bytes as a person reads them: 812 B, 14.2 kB, 3.1 MB."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def milliseconds(value: float) -> str:
    """A duration as a person reads it: 8 ms, 1.24 s."""
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def plural(count: int, noun: str) -> str:
    """`1 passage`, `2 passages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
