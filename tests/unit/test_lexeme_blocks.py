"""In how many chunks each lexeme stands, as blocks of lexemes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from rag.store.statistics import LEXEMES_PER_BLOCK, Block, changed

LEXEMES = some.integers(1, 999_999_999)


@given(some.lists(some.dictionaries(LEXEMES | some.integers(1, 50), some.integers(-3, 3), max_size=60), max_size=6))
def test_blocks_hold_the_sum_of_all_changes(rounds: list[dict[int, int]]) -> None:
    kept: dict[int, Block] = {}
    every: Counter[int] = Counter()
    for changes in [dict.fromkeys(range(3, 3000, 3), 1), *rounds]:
        every.update(changes)
        kept |= {block.first: block for block in changed(sorted(kept.values()), changes)}
    blocks = sorted(kept.values())
    found = [pair for block in blocks for pair in zip(block.lexemes, block.frequencies, strict=True)]
    assert found == sorted((lexeme, count) for lexeme, count in every.items() if count)
    assert blocks[0].first == 0
    assert max(len(block.lexemes) for block in blocks) <= LEXEMES_PER_BLOCK
    assert all(max(one.lexemes, default=0) < other.first for one, other in pairwise(blocks))


def test_a_block_that_nothing_changes_is_not_written() -> None:
    blocks = list(changed([], dict.fromkeys(range(1, 1000), 1)))
    assert [block.first for block in changed(blocks, {1: 0, 999: 1, 5000: 2})] == [blocks[-1].first]
