"""all-MiniLM-L6-v2 in numpy: six BERT layers, mean pooling, length 1.

Texts are packed end to end instead of padded: the dense layers see one matrix of tokens, attention sees one text at a
time (or all texts of one length together). Of the time, 70 % is in matrix products.

Reference: Devlin et al., BERT (2019); https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from local.packing import packs
from local.wordpieces import MAXIMUM_TOKENS, WIDTH

Floats = NDArray[np.float32]

_WIDE = 1536
_HEADS = 12
_HEAD_WIDTH = WIDTH // _HEADS
_LAYERS = 6
_EPSILON = np.float32(1e-12)
# exp(±60) and sums of 256 of them are far inside float32.
_EXPONENT_LIMIT = 60

# A matrix product of more rows is no faster, and a pack is what a waiting question has to wait for.
PACK_TOKENS = MAXIMUM_TOKENS
# OpenBLAS multiplies small matrices where they lie and copies larger ones first: of the time with undivided weights,
# 12 tokens take 0.6, 100 tokens 1.0, 256 tokens 1.05.
_BLOCK = 128
# 40 rows of the wide layer and GELU's two scratch blocks stay in a 1 MB cache together.
_GELU_ROWS = 40
# erf(x/√2) = tanh(x·(c0 + c1·x² + … + c6·x¹²)): a minimax fit of x·Φ(x) over the reals, 7e-8 off, 6e-7 in float32. The
# last coefficient is positive, so that tanh saturates by itself outside the fitted range.
_GELU = tuple(
    np.float32(c)
    for c in (0.79788427, 0.036334149, -3.3026762e-05, -5.5273369e-05, 3.9740684e-06, -1.3378306e-07, 1.8139244e-09)
)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights as `_blocks` gives them."""

    attention: Floats
    attention_bias: Floats
    projection: Floats
    projection_bias: Floats
    projection_scale: Floats
    projection_shift: Floats
    up: Floats
    up_bias: Floats
    down: Floats
    down_bias: Floats
    down_scale: Floats
    down_shift: Floats


class MiniLM:
    """The model with its weights and scratch memory; not for use from two threads at once."""

    def __init__(self, directory: Path) -> None:
        """Load `model.safetensors`; the word embeddings stay in the file's pages, which processes share."""
        tensors = _tensors(directory / "model.safetensors")
        self._words = tensors["embeddings.word_embeddings.weight"]
        self._positions = (
            tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        self._scale = tensors["embeddings.LayerNorm.weight"]
        self._shift = tensors["embeddings.LayerNorm.bias"]
        self._layers = [_layer(tensors, f"encoder.layer.{index}.") for index in range(_LAYERS)]
        self._thrice = np.empty((PACK_TOKENS, 3 * WIDTH), np.float32)
        self._wide = np.empty((PACK_TOKENS, _WIDE), np.float32)
        self._context = np.empty((PACK_TOKENS, WIDTH), np.float32)
        self._update = np.empty((PACK_TOKENS, WIDTH), np.float32)

    def embed(self, texts: Sequence[Sequence[int]]) -> Floats:
        """Embed texts of 1 to 256 token ids, specials included: float32 of shape (texts, 384), each row of length 1."""
        vectors = np.empty((len(texts), WIDTH), np.float32)
        for pack in packs([len(text) for text in texts], tokens=PACK_TOKENS):
            vectors[pack] = self._forward([texts[index] for index in pack])
        return vectors

    def _forward(self, texts: list[Sequence[int]]) -> Floats:
        """Embed texts sorted by length, together at most `PACK_TOKENS` tokens."""
        lengths = np.array([len(text) for text in texts])
        hidden = self._words[np.concatenate(texts)]
        hidden += self._positions[np.concatenate([np.arange(length) for length in lengths])]
        _normalise(hidden, self._scale, self._shift)
        runs = [(length, len(list(run))) for length, run in groupby(lengths.tolist())]
        for layer in self._layers:
            self._attend(hidden, runs, layer)
            self._transform(hidden, layer)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        pooled = np.add.reduceat(hidden, starts, axis=0)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled

    def _attend(self, hidden: Floats, runs: list[tuple[int, int]], layer: _Layer) -> None:
        rows = len(hidden)
        thrice = _product(hidden, layer.attention, self._thrice[:rows])
        thrice += layer.attention_bias
        context = self._context[:rows]
        start = 0
        for length, count in runs:
            end = start + length * count
            _attention(
                thrice[start:end].reshape(count, length, 3, _HEADS, _HEAD_WIDTH),
                context[start:end].reshape(count, length, _HEADS, _HEAD_WIDTH),
            )
            start = end
        update = _product(context, layer.projection, self._update[:rows])
        update += layer.projection_bias
        hidden += update
        _normalise(hidden, layer.projection_scale, layer.projection_shift)

    def _transform(self, hidden: Floats, layer: _Layer) -> None:
        rows = len(hidden)
        wide = _product(hidden, layer.up, self._wide[:rows])
        for start in range(0, rows, _GELU_ROWS):
            block = wide[start : start + _GELU_ROWS]
            block += layer.up_bias
            _double_gelu(block)
        update = _product(wide, layer.down, self._update[:rows])
        update += layer.down_bias
        hidden += update
        _normalise(hidden, layer.down_scale, layer.down_shift)


def _product(x: Floats, weight: Floats, out: Floats) -> Floats:
    """`x` times a weight in blocks, into `out`."""
    blocks, _, width = weight.shape
    np.matmul(x, weight, out=out.reshape(len(x), blocks, width).swapaxes(0, 1))
    return out


def _attention(thrice: Floats, context: Floats) -> None:
    """Softmax attention of texts of one length: (texts, tokens, q|k|v, heads, 32) into (texts, tokens, heads, 32)."""
    queries, keys, values = (thrice[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
    scores = np.matmul(queries, keys.swapaxes(2, 3))
    # Taking each row's maximum off first changes nothing but the range of exp(). To see that the range is fine already,
    # as it is on real text, costs a fifth of that.
    if scores.max() > _EXPONENT_LIMIT or scores.min() < -_EXPONENT_LIMIT:
        scores -= scores.max(axis=3, keepdims=True)
    np.exp(scores, out=scores)
    # As a matrix product a third of the time of sum(axis=3).
    total = np.matmul(scores, np.ones(scores.shape[3], np.float32))
    mixed = np.matmul(scores, values)
    np.divide(mixed, total[..., None], out=context.transpose(0, 2, 1, 3))


def _double_gelu(x: Floats) -> None:
    """Turn x into 2·GELU(x) = x·(1 + erf(x/√2)), in place; the half is in the weights that follow."""
    square = x * x
    argument = square * _GELU[-1]
    for coefficient in _GELU[-2:0:-1]:
        argument += coefficient
        argument *= square
    argument += _GELU[0]
    argument *= x
    np.tanh(argument, out=argument)
    argument += np.float32(1)
    x *= argument


def _normalise(x: Floats, scale: Floats, shift: Floats) -> None:
    """Layer normalisation of each row, in place."""
    x -= x.mean(axis=1, keepdims=True)
    deviation = np.vecdot(x, x)
    deviation /= np.float32(WIDTH)
    deviation += _EPSILON
    np.sqrt(deviation, out=deviation)
    x /= deviation[:, None]
    x *= scale
    x += shift


def _tensors(path: Path) -> dict[str, Floats]:
    """Views into a float32 safetensors file: 8 bytes of header length, JSON header, data."""
    file = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(file[:8].tobytes(), "little")
    header = json.loads(file[8:start].tobytes())
    return {
        name: np.asarray(file[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]])
        .view("<f4")
        .reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }


def _layer(tensors: dict[str, Floats], prefix: str) -> _Layer:
    def weight(name: str) -> Floats:
        return tensors[f"{prefix}{name}.weight"].T

    def bias(name: str) -> Floats:
        return tensors[f"{prefix}{name}.bias"]

    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    attention = np.concatenate([weight(part) for part in parts], axis=1)
    attention_bias = np.concatenate([bias(part) for part in parts])
    # Queries are scaled here once instead of every score later.
    attention[:, :WIDTH] /= np.float32(_HEAD_WIDTH**0.5)
    attention_bias[:WIDTH] /= np.float32(_HEAD_WIDTH**0.5)
    return _Layer(
        attention=_blocks(attention),
        attention_bias=attention_bias,
        projection=_blocks(weight("attention.output.dense")),
        projection_bias=bias("attention.output.dense"),
        projection_scale=tensors[f"{prefix}attention.output.LayerNorm.weight"],
        projection_shift=bias("attention.output.LayerNorm"),
        up=_blocks(weight("intermediate.dense")),
        up_bias=bias("intermediate.dense"),
        down=_blocks(weight("output.dense") * np.float32(0.5)),
        down_bias=bias("output.dense"),
        down_scale=tensors[f"{prefix}output.LayerNorm.weight"],
        down_shift=bias("output.LayerNorm"),
    )


def _blocks(weight: Floats) -> Floats:
    """(inputs, outputs) → (blocks, inputs, `_BLOCK` outputs), contiguous."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1, _BLOCK).swapaxes(0, 1))
