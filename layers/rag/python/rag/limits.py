"""What one document may hold, whoever made it; each breach is a `failed` code of its own and says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rag.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MEBIBYTE = 1024 * 1024

Node = TypeVar("Node")


@dataclass(frozen=True, slots=True)
class Limits:
    """`characters` of text; `pages` of a PDF, or slides; `nesting_depth` of XML, JSON and e-mail.

    `archive_entries`, `unpacked_bytes` and the `compression_ratio` of one entry (where it is larger than 32 MiB) are of
    a ZIP container, which DOCX, XLSX, PPTX, ODF and EPUB are, and as it declares them: nothing is unpacked to find out.
    """

    characters: int = 64_000_000
    pages: int = 20_000
    archive_entries: int = 20_000
    unpacked_bytes: int = 400 * MEBIBYTE
    compression_ratio: int = 200
    nesting_depth: int = 200


USUAL = Limits()


def refuse_text(characters: int, limits: Limits) -> None:
    """TOO_MUCH_TEXT beyond the characters that are indexed of one document."""
    if characters > limits.characters:
        raise DocumentError(
            "TOO_MUCH_TEXT",
            f"The document holds {characters} characters; at most {limits.characters} are indexed. Split it.",
        )


def refuse_pages(pages: int, limits: Limits) -> None:
    """TOO_MANY_PAGES beyond the pages that are read of one document."""
    if pages > limits.pages:
        raise DocumentError(
            "TOO_MANY_PAGES", f"The document has {pages} pages; at most {limits.pages} are read. Split it."
        )


def refuse_depth(top: Sequence[Node], children: Callable[[Node], Iterable[Node]], limits: Limits) -> None:
    """TOO_DEEP where a tree has more levels than are read; without recursion, which is what such a tree is after."""
    level, depth = list(top), 0
    while level:
        depth += 1
        if depth > limits.nesting_depth:
            raise too_deep(limits)
        level = [child for node in level for child in children(node)]


def too_deep(limits: Limits) -> DocumentError:
    """What is said of a document that is nested deeper than it is read."""
    return DocumentError(
        "TOO_DEEP",
        f"The document is nested more than {limits.nesting_depth} levels deep, which is not read. Save it flatter.",
    )
