"""In how many chunks each lexeme of a collection stands: blocks of lexemes, to which is added what ingests changed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from rag.store import binary
from rag.store.database import Transaction
from rag.types import Collection

# Two rows of so many fit into a page: one, and its next version.
LEXEMES_PER_BLOCK = 450


class Block(NamedTuple):
    """Lexemes from `first` on and less than the next block's first, in their order, and how often each is there."""

    first: int
    lexemes: Sequence[int]
    frequencies: Sequence[int]


def add_up(transaction: Transaction, collection: Collection) -> None:
    """Add what has been appended to the blocks, which changes no sum."""
    changes: dict[int, int] = dict(transaction.rows("take_lexeme_changes", binary=True, collection=collection.id))
    rows = transaction.rows("lexeme_blocks", binary=True, collection=collection.id)
    put = list(changed([Block(*row) for row in rows], changes))
    if put:
        ends = list(accumulate(len(block.lexemes) for block in put))
        transaction.run(
            "put_lexeme_blocks",
            collection=collection.id,
            firsts=binary.integers(block.first for block in put),
            begins=binary.integers([1, *(end + 1 for end in ends[:-1])]),
            ends=binary.integers(ends),
            lexemes=binary.integers(chain.from_iterable(block.lexemes for block in put)),
            frequencies=binary.integers(chain.from_iterable(block.frequencies for block in put)),
        )


def changed(blocks: Sequence[Block], changes: Mapping[int, int]) -> Iterator[Block]:
    """The blocks that the changes make different, halved where they outgrow a row; blocks come in their order."""
    blocks = blocks or [Block(0, (), ())]
    order = sorted(lexeme for lexeme, change in changes.items() if change)
    starts = [bisect_left(order, block.first) for block in blocks]
    for block, (start, end) in zip(blocks, pairwise([*starts, len(order)]), strict=True):
        if start == end:
            continue
        counts = dict(zip(block.lexemes, block.frequencies, strict=True))
        for lexeme in order[start:end]:
            counts[lexeme] = counts.get(lexeme, 0) + changes[lexeme]
        if len(counts) > len(block.lexemes):
            counts = dict(sorted(counts.items()))
        if 0 in counts.values():
            counts = {lexeme: count for lexeme, count in counts.items() if count}
        yield from _pieces(block.first, list(counts), list(counts.values()))


def _pieces(first: int, lexemes: Sequence[int], frequencies: Sequence[int]) -> Iterator[Block]:
    size = LEXEMES_PER_BLOCK if len(lexemes) <= LEXEMES_PER_BLOCK else LEXEMES_PER_BLOCK // 2
    for start in range(0, max(len(lexemes), 1), size):
        some = lexemes[start : start + size]
        yield Block(some[0] if start else first, some, frequencies[start : start + size])
