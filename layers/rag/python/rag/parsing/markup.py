"""HTML as a reader sees it: headings, paragraphs, list items and table rows; no scripts, styles or hidden elements."""

from __future__ import annotations

import re
from collections import Counter
from html import unescape

from rag.parsing import decoding
from rag.parsing.outline import Block

_UNSEEN = frozenset(
    ("script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "audio", "video", "select",
     "textarea", "nav")
)  # fmt: skip
_BLOCKS = frozenset(
    ("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl",
     "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend", "li", "main", "ol",
     "option", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "title", "ul")
)  # fmt: skip
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr")
)
_CLOSED_BY = {  # an opening tag ends these where they are still open: HTML lets authors leave their end tags out
    **dict.fromkeys(("td", "th"), ("td", "th")),
    "tr": ("td", "th", "tr"),
    "li": ("li",),
    "dt": ("dt", "dd"),
    "dd": ("dt", "dd"),
    "option": ("option",),
}
# Every alternative stops at the next "<" or at a bounded quotation: unlike html.parser, linear on broken pages too.
_TOKEN = re.compile(
    r"(?P<text>[^<]+)"
    r"|<!--.*?(?:-->|\Z)"
    r"|</(?P<end>[a-zA-Z][^\s/<>]*)[^<>]*>"
    r"|<(?P<start>[a-zA-Z][^\s/<>]*)(?P<attributes>(?:[^<>\"']|\"[^\"]{0,4096}\"|'[^']{0,4096}')*)>"
    r"|<[!?/][^<>]*>"
    r"|(?P<stray><)",
    re.DOTALL,
)
_RAW = frozenset(("script", "style", "textarea", "noscript", "iframe"))  # what stands inside is no markup
_HEADING = re.compile(r"h[1-6]\Z")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_HIDDEN = re.compile(r"(?:\A|\s)hidden(?=[\s=/]|\Z)")
_UNDISPLAYED = re.compile(r"style\s*=\s*[\"'][^\"']*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]+)|<\?xml[^>]{0,100}encoding=[\"']([\w.-]+)", re.IGNORECASE
)
_SPACE = re.compile(r"\s+")
_CELL_SEPARATOR = " | "


def read(data: bytes) -> tuple[str | None, list[Block]]:
    """The title and the blocks of a page, its encoding found as browsers do."""
    return read_text(decoding.decode(data, declared_encoding(data)))


def read_text(html: str) -> tuple[str | None, list[Block]]:
    """The title and the blocks of a page that is already text."""
    reader = _Reader()
    position = 0
    while token := _TOKEN.match(html, position):
        position = token.end()
        if text := token["text"] or token["stray"]:
            reader.take(text)
        elif token["end"]:
            reader.end(token["end"].lower())
        elif token["start"]:
            tag, attributes = token["start"].lower(), token["attributes"]
            reader.start(tag, attributes)
            if attributes.endswith("/") and tag not in _VOID:
                reader.end(tag)
            elif tag in _RAW:
                position = _end_of_raw(html, tag, position)
    reader.break_block()
    return reader.title, reader.blocks


def declared_encoding(data: bytes) -> str | None:
    """What a `<meta charset>` or an XML declaration near the start says."""
    found = _CHARSET.search(data[:4096])
    return (found[1] or found[2]).decode("ascii", "replace") if found else None


def _end_of_raw(html: str, tag: str, position: int) -> int:
    closing = re.compile(f"</{tag}", re.IGNORECASE).search(html, position)
    return closing.start() if closing else len(html)


class _Reader:
    """Collects blocks; `_row` holds the finished cells while inside a table row that is data rather than layout."""

    def __init__(self) -> None:
        self.title: str | None = None
        self.blocks: list[Block] = []
        self._open: list[str] = []
        self._open_count: Counter[str] = Counter()
        self._unseen_depth: int | None = None
        self._pieces: list[str] = []
        self._row: list[str] | None = None
        self._lists: list[int | None] = []

    def start(self, tag: str, attributes: str) -> None:
        self._close_implied(tag)
        if tag not in _VOID:
            self._open.append(tag)
            self._open_count[tag] += 1
        if self._unseen_depth is not None:
            return
        if tag not in _VOID and (tag in _UNSEEN or _is_hidden(attributes)):
            self._unseen_depth = len(self._open)
            return
        self._start_seen(tag)

    def end(self, tag: str) -> None:
        if not self._open_count[tag]:
            return
        while self._open:
            closed = self._open.pop()
            self._open_count[closed] -= 1
            self._end(closed)
            if closed == tag:
                break

    def take(self, text: str) -> None:
        if self._unseen_depth is None:
            text = unescape(text)
            self._pieces.append(text if self._open_count["pre"] else _SPACE.sub(" ", text))

    def break_block(self) -> None:
        """Make a block of the text gathered so far; inside a data row it only parts words."""
        if self._row is not None:
            self._pieces.append(" ")
            return
        self._emit()

    def _start_seen(self, tag: str) -> None:
        if tag == "br":
            self._pieces.append(" " if self._row is not None else "\n")
        elif tag == "tr":
            self.break_block()
            self._row = []
        elif tag == "table" or _HEADING.match(tag):
            self._end_data_row()
            self.break_block()
        elif tag in _BLOCKS:
            self.break_block()
        if tag in {"ul", "ol"}:
            self._lists.append(1 if tag == "ol" else None)

    def _end(self, tag: str) -> None:
        if self._unseen_depth is not None:
            if len(self._open) < self._unseen_depth:
                self._unseen_depth = None
            return
        if tag == "title":
            self.title = self.title or self._taken() or None
        elif tag in {"td", "th"} and self._row is not None:
            self._row.append(self._taken().replace("\n", " "))
        elif tag == "tr":
            self._end_row()
        elif _HEADING.match(tag):
            self._emit(level=int(tag[1]))
        elif tag == "li":
            self._end_item()
        elif tag in _BLOCKS or tag in {"td", "th"}:
            self.break_block()
        if tag in {"ul", "ol"} and self._lists:
            self._lists.pop()

    def _end_row(self) -> None:
        if self._row is None:
            self.break_block()
            return
        cells = [cell for cell in [*self._row, self._taken()] if cell]
        self._row = None
        if cells:
            self.blocks.append(Block(_CELL_SEPARATOR.join(cells), compact=True))

    def _end_data_row(self) -> None:
        """A table or a heading inside a row: the outer table is layout, and what it holds is no row."""
        if self._row is not None:
            self.blocks += [Block(cell) for cell in self._row if cell]
            self._row = None

    def _end_item(self) -> None:
        if self._row is not None or not self._lists:
            self.break_block()
            return
        number = self._lists[-1]
        if number is not None:
            self._lists[-1] = number + 1
        self._emit(compact=True, prefix="- " if number is None else f"{number}. ")

    def _emit(self, *, level: int = 0, compact: bool = False, prefix: str = "") -> None:
        text = self._taken()
        if text:
            self.blocks.append(Block(prefix + text, level, compact))

    def _taken(self) -> str:
        text = "".join(self._pieces).strip()
        self._pieces = []
        return text

    def _close_implied(self, tag: str) -> None:
        closes = ("p",) if tag in _BLOCKS or _HEADING.match(tag) else ()
        for candidate in _CLOSED_BY.get(tag, closes):
            if self._open and self._open[-1] == candidate:
                self.end(candidate)


def _is_hidden(attributes: str) -> bool:
    if "hidden" in attributes and _HIDDEN.search(_QUOTED.sub("", attributes)):
        return True
    return "style" in attributes and _UNDISPLAYED.search(attributes) is not None
