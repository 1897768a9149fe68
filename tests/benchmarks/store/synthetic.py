"""A corpus that can be large: made in blocks out of one seed, so that a part of it is the beginning of any longer one.

Vectors are as those of `corpus`: points of clusters in 20 latent dimensions, turned into the wanted width, unit length,
kept in half precision as the product does. Each block of 10,000 chunks brings 100 new clusters, and its chunks fall
into those there are by then: what is added later is partly about what was there before.

A chunk has 40 to 80 words by Zipf's law, of which the most frequent are English stop words: about 380 characters and 48
distinct lexemes, half of what a real chunk has. Lengths differ so that few chunks score alike. The vocabulary is that
of a large collection: a small one sees a part of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.store import corpus
from tests.benchmarks.store.corpus import CLUSTER_RADIUS, LATENT, QUESTION_NOISE, SEED, Question, Vectors

BLOCK = 10_000
CLUSTERS_PER_BLOCK = 100
LEAST_WORDS, MOST_WORDS = 40, 80
VOCABULARY = 200_000

Halves: TypeAlias = NDArray[np.float16]
Ranks: TypeAlias = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Synthetic:
    """By the number of the chunk: ranks of words (chunks × 80), how many of them it has, its vector.

    Vectors (chunks × dimensions, float16) are of unit length.
    """

    ranks: Ranks
    lengths: Ranks
    vectors: Halves

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def text(self, chunk: int) -> str:
        """What the chunk says, in sentences."""
        return corpus._prose(_spelled()[self._said(chunk)])

    def questions(self, known: Iterable[int], seed: int) -> list[Question]:
        """One for each of these chunks: a noisy copy of its vector, some of its rarer words among others."""
        random = np.random.default_rng([SEED, seed])
        return [self._question(random, chunk) for chunk in known]

    def _said(self, chunk: int) -> Ranks:
        return self.ranks[chunk, : self.lengths[chunk]]

    def _question(self, random: np.random.Generator, chunk: int) -> Question:
        # The length that the chunk's vector had before it was made one, so that the noise is in proportion.
        length = np.sqrt(1 + CLUSTER_RADIUS**2)
        noise = random.normal(size=LATENT)[: self.dimensions] * QUESTION_NOISE / np.sqrt(LATENT)
        asked = self.vectors[chunk] * length + noise @ _turn(self.dimensions)
        vector = (asked / np.linalg.norm(asked)).astype(np.float32)
        return Question(corpus._question(random, self._said(chunk), _words()), vector, int(chunk))


def generate(chunks: int, dimensions: int, directory: Path | None = None) -> Synthetic:
    """The first `chunks` of the corpus; in files of the directory, where one is given, instead of in memory."""
    made = Synthetic(
        _empty(directory, "ranks", (chunks, MOST_WORDS), np.uint32),
        _empty(directory, "lengths", (chunks,), np.uint32),
        _empty(directory, "vectors", (chunks, dimensions), np.float16),
    )
    for start in range(0, chunks, BLOCK):
        rows = slice(start, min(start + BLOCK, chunks))
        for whole, part in zip(
            (made.ranks, made.lengths, made.vectors), _block(start // BLOCK, dimensions), strict=True
        ):
            whole[rows] = part[: rows.stop - start]
    return made


def _empty(directory: Path | None, name: str, shape: tuple[int, ...], kind: type[np.generic]) -> NDArray[np.generic]:
    if directory is None:
        return np.empty(shape, kind)
    return np.lib.format.open_memmap(directory / f"{name}.npy", "w+", kind, shape)


def _block(number: int, dimensions: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Vectors]:
    random = np.random.default_rng([SEED, number, dimensions])
    known = _centres(CLUSTERS_PER_BLOCK * (number + 1))
    spread = random.normal(size=(BLOCK, LATENT)) * CLUSTER_RADIUS / np.sqrt(LATENT)
    latent = known[random.integers(len(known), size=BLOCK)] + spread
    ranks = corpus._drawn(random, BLOCK * MOST_WORDS, _words()).reshape(BLOCK, MOST_WORDS)
    lengths = random.integers(LEAST_WORDS, MOST_WORDS, size=BLOCK, endpoint=True)
    return ranks, lengths, corpus._turned(random, latent, _turn(dimensions))


def _centres(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(SEED).normal(size=(count, LATENT)) / np.sqrt(LATENT)


@cache
def _turn(dimensions: int) -> Vectors:
    random = np.random.default_rng([SEED, dimensions])
    return np.linalg.qr(random.normal(size=(dimensions, min(LATENT, dimensions))))[0].T.astype(np.float32)


@cache
def _words() -> list[str]:
    """In the order of their frequency."""
    every = list(_made())
    np.random.default_rng(SEED).shuffle(every)
    return [*corpus._stops(), *every][:VOCABULARY]


def _made() -> Iterator[str]:
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprtvz", "aeiou")]
    return ("".join(parts) + "k" for parts in itertools.product(syllables, repeat=3))


@cache
def _spelled() -> NDArray[np.object_]:
    return np.array(_words(), dtype=object)
