"""The chunks, vectors and questions of the store benchmark: the same for the same numbers, out of one seed.

Vectors are points of clusters in a space of 20 latent dimensions, turned into the wanted width and made unit vectors:
like those of a real model they have far fewer degrees of freedom than numbers. Words follow Zipf's law: the most
frequent are English stop words, the others are made of syllables; a chunk of about 660 characters holds about 100.
Fifty chunks in a row are a document, and every hundredth document carries the metadata that the filter asks for.

Each question knows the one chunk it was made from: its vector is a noisy copy of the chunk's, and its words are some of
the chunk's rarer ones among others that the chunk does not have, as people ask.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.stopwords import STOP_WORDS

SEED = 20_261_121
CHUNKS_PER_DOCUMENT = 50
TAGGED_DOCUMENTS = 100  # every hundredth
FIELD, TAG = "shelf", "rare"
LANGUAGE = "english"

LATENT = 20
CHUNKS_PER_CLUSTER = 100
CLUSTER_RADIUS = 0.8
QUESTION_NOISE = 1.1
OFF_LATENT = 0.15

WORDS_PER_CHUNK = 103
VOCABULARY = 40_000
RARE_WORDS, OTHER_WORDS, STOPS = 2, 4, 3

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, its vector (float32, unit), and the number of the chunk that it was made from."""

    text: str
    vector: Vectors
    known: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts and vectors (rows × dimensions, float32, unit) by the number of the chunk, and the questions."""

    texts: list[str]
    vectors: Vectors
    questions: list[Question]

    def save(self, directory: Path) -> None:
        """Write everything where other processes read it."""
        np.save(directory / "vectors.npy", self.vectors)
        np.save(directory / "questions.npy", np.stack([question.vector for question in self.questions]))
        asked = [(question.text, question.known) for question in self.questions]
        (directory / "texts.json").write_text(json.dumps([self.texts, asked]))

    @classmethod
    def load(cls, directory: Path) -> Corpus:
        """What `save` wrote; the vectors stay in the file."""
        texts, asked = json.loads((directory / "texts.json").read_text())
        asking = np.load(directory / "questions.npy")
        questions = [Question(text, vector, known) for (text, known), vector in zip(asked, asking, strict=True)]
        return cls(texts, np.load(directory / "vectors.npy", mmap_mode="r"), questions)


def document_of(chunk: int) -> int:
    """The number of the document that the chunk is of."""
    return chunk // CHUNKS_PER_DOCUMENT


def tagged(chunk: int) -> bool:
    """Whether the filter lets the chunk through: 1 % of all."""
    return document_of(chunk) % TAGGED_DOCUMENTS == 0


def generate(chunks: int, dimensions: int, questions: int, *, extra: int = 0) -> Corpus:
    """`chunks` to be asked about, and `extra` more of the same kind to be added later; questions know none of these."""
    random = np.random.default_rng([SEED, chunks, dimensions])
    latent = _latent(random, chunks + extra, clusters=max(chunks // CHUNKS_PER_CLUSTER, 8))
    turn = np.linalg.qr(random.normal(size=(dimensions, min(LATENT, dimensions))))[0].T.astype(np.float32)
    known = random.choice(chunks, size=questions, replace=questions > chunks)
    noise = random.normal(size=(questions, LATENT)) * QUESTION_NOISE / np.sqrt(LATENT)
    asking = latent[known] + noise
    words = _words()
    drawn = _drawn(random, (chunks + extra) * WORDS_PER_CHUNK, words).reshape(-1, WORDS_PER_CHUNK)
    vocabulary = np.array(words, dtype=object)
    return Corpus(
        texts=[_prose(vocabulary[row]) for row in drawn],
        vectors=_turned(random, latent, turn),
        questions=[
            Question(_question(random, drawn[number], words), vector, int(number))
            for number, vector in zip(known, _turned(random, asking, turn), strict=True)
        ],
    )


def _latent(random: np.random.Generator, count: int, clusters: int) -> NDArray[np.float64]:
    centres = random.normal(size=(clusters, LATENT)) / np.sqrt(LATENT)
    spread = random.normal(size=(count, LATENT)) * CLUSTER_RADIUS / np.sqrt(LATENT)
    place: NDArray[np.float64] = centres[random.integers(clusters, size=count)] + spread
    return place


def _turned(random: np.random.Generator, latent: NDArray[np.float64], turn: Vectors) -> Vectors:
    wide = latent[:, : len(turn)].astype(np.float32) @ turn
    wide += random.standard_normal(wide.shape, dtype=np.float32) * np.float32(OFF_LATENT / np.sqrt(wide.shape[1]))
    unit: Vectors = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def _stops() -> list[str]:
    return [word for word in STOP_WORDS[LANGUAGE].split() if word.isalpha()]


def _words() -> list[str]:
    """In the order of their frequency."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprtvz", "aeiou")]
    made = ("".join(parts) + "k" for parts in itertools.product(syllables, repeat=3))
    every = list(itertools.islice(made, 0, None, 6))
    np.random.default_rng(SEED).shuffle(every)
    return [*_stops(), *every][:VOCABULARY]


def _drawn(random: np.random.Generator, count: int, words: list[str]) -> NDArray[np.int64]:
    weights = np.cumsum(1 / np.arange(1, len(words) + 1))
    drawn: NDArray[np.int64] = np.searchsorted(weights, random.random(count) * weights[-1])
    return drawn


def _prose(words: NDArray[np.object_]) -> str:
    sentences = (words[start : start + 11] for start in range(0, len(words), 11))
    return " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)


def _question(random: np.random.Generator, chunk: NDArray[np.int64], words: list[str]) -> str:
    rare = random.choice(np.unique(chunk)[-len(chunk) // 2 :], RARE_WORDS, replace=False)
    # Past the stop words, which no search looks for.
    first = len(_stops())
    others = first + _drawn(random, OTHER_WORDS, words[first:])
    stops = random.choice(first, STOPS, replace=False)
    chosen = [words[number] for number in (*rare, *others, *stops)]
    random.shuffle(chosen)
    return " ".join(chosen) + "?"
