from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from local import minilm
from local.minilm import MiniLM
from local.packing import packs
from local.wordpieces import WordPieces, model_directory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(model_directory())


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces(model_directory())


def test_similarities_are_those_published_with_the_model(model: MiniLM, pieces: WordPieces) -> None:
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    first, *others = model.embed(pieces.ids(texts))
    assert [round(float(first @ other), 3) for other in others] == [0.695, 0.943, 0.257]


def test_a_text_has_the_same_vector_in_whatever_company(model: MiniLM, pieces: WordPieces) -> None:
    texts = [
        "one",
        "two words",
        "a somewhat longer text, then",
        "word " * 100,
        "long " * 400,
        "two words",
        "äöü ✓ 漢字",
    ]
    together = model.embed(pieces.ids(texts))
    alone = np.concatenate([model.embed(pieces.ids([text])) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_vectors_have_length_1(model: MiniLM, pieces: WordPieces) -> None:
    vectors = model.embed(pieces.ids(["short", "word " * 300, "."]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_forward_pass_equals_the_textbook_in_double_precision(model: MiniLM, pieces: WordPieces) -> None:
    ids = pieces.ids(["Attention is all you need, said the paper.", "bank " * 90 + "river"])
    np.testing.assert_allclose(model.embed(ids), np.stack([_textbook(text) for text in ids]), atol=1e-6)


def test_scores_too_large_for_exp_are_still_normalised() -> None:
    thrice = np.random.default_rng(0).standard_normal((1, 7, 3, 12, 32)).astype(np.float32) * 9
    context = np.empty((1, 7, 12, 32), np.float32)
    minilm._attention(thrice, context)
    query, key, value = (thrice[0, :, part].transpose(1, 0, 2).astype(float) for part in range(3))
    assert np.abs(query @ key.swapaxes(1, 2)).max() > 1000
    np.testing.assert_allclose(context[0].transpose(1, 0, 2), _softmax(query @ key.swapaxes(1, 2)) @ value, atol=1e-3)


def test_gelu_is_within_1e_6_of_the_exact_function() -> None:
    x = np.concatenate([np.linspace(-14, 14, 20_001), [-1e3, 1e3]]).astype(np.float32)
    exact = np.array([value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x.astype(float)])
    doubled = x.copy()
    minilm._double_gelu(doubled)
    np.testing.assert_allclose(doubled / 2, exact, rtol=2e-7, atol=1e-6)


def test_long_texts_are_cut_at_256_tokens_and_not_at_the_128_of_the_file(pieces: WordPieces) -> None:
    short, long = pieces.ids(["word " * 200, "word " * 999])
    assert len(short) == 202
    assert len(long) == 256
    assert (long[0], long[-1]) == (short[0], short[-1])


def test_counting_and_cutting_see_the_whole_text(pieces: WordPieces) -> None:
    assert pieces.count("word " * 999) == 999
    assert pieces.beginning("One two three.", 2) == "One two"
    assert pieces.beginning("One two three.", 9) == "One two three."


def test_packs_hold_every_text_once_within_the_limit() -> None:
    lengths = [3, 250, 9, 9, 256, 1, 128, 128]
    chosen = list(packs(lengths, tokens=256))
    assert sorted(index for pack in chosen for index in pack) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in pack) <= 256 for pack in chosen)
    assert list(packs([300, 2], tokens=256)) == [[1], [0]]
    assert list(packs([], tokens=256)) == []


def _textbook(ids: list[int]) -> np.ndarray:
    """BERT as the paper has it, with the exact error function; nothing shared with the module under test."""
    tensors = _read(model_directory() / "model.safetensors")

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(ids), 12, 32).swapaxes(0, 1)

    words, positions, types = (
        tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    x = norm(words[ids] + positions[: len(ids)] + types[0], "embeddings.LayerNorm")
    for layer in (f"encoder.layer.{index}" for index in range(6)):
        query, key, value = (heads(dense(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        mixed = _softmax(query @ key.swapaxes(1, 2) / math.sqrt(32)) @ value
        x = norm(
            x + dense(mixed.swapaxes(0, 1).reshape(len(ids), 384), f"{layer}.attention.output.dense"),
            f"{layer}.attention.output.LayerNorm",
        )
        wide = dense(x, f"{layer}.intermediate.dense")
        wide = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
        x = norm(x + dense(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    pooled = x.mean(0)
    return pooled / np.linalg.norm(pooled)


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _read(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = {name: entry for name, entry in json.loads(content[8:start]).items() if entry.get("dtype") == "F32"}
    return {
        name: np.frombuffer(content[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], "<f4")
        .reshape(entry["shape"])
        .astype(float)
        for name, entry in header.items()
    }
