"""Texts into packs that the model takes in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def packs(lengths: Sequence[int], *, tokens: int) -> Iterator[list[int]]:
    """Indices in order of length, cut where the next text would exceed `tokens`; a longer text is a pack of its own.

    Order of length puts texts of equal length side by side, and attention takes those together.
    """
    pack: list[int] = []
    filled = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if pack and filled + lengths[index] > tokens:
            yield pack
            pack, filled = [], 0
        pack.append(index)
        filled += lengths[index]
    if pack:
        yield pack
