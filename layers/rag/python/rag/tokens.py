"""How many tokens a text has: exactly, by the embedding model's own `tokenizer.json`, or estimated without one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Thai, Lao, Burmese, Khmer, kana, Han, Hangul: about one token per character.
_UNSPACED = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
_TOKENS_PER_WORD = 1.33  # measured on English prose: 1.4 % above MiniLM's count
_LONG_WORD = 12
_BATCH = 2048


def tokenizer(path: Path | str | None) -> Callable[[Sequence[str]], list[int]]:
    """A function from texts to their numbers of tokens, special tokens not counted; `path` names a `tokenizer.json`."""
    if path is None:
        return lambda texts: [estimate(text) for text in texts]
    from tokenizers import Tokenizer  # noqa: PLC0415 - 12 MB that only those who count exactly need

    exact = Tokenizer.from_file(str(path))
    # Files made for inference cut and pad every text to one length: counts would all be that length.
    exact.no_truncation()
    exact.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        # What the library builds for each text is a hundred times the number that is kept of it.
        slices = (list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH))
        return [len(text) for batch in slices for text in exact.encode_batch_fast(batch, add_special_tokens=False)]

    return count


def estimate(text: str) -> int:
    """Tokens by rule of thumb: 1.33 a word, more for a long one; one a character in scripts without spaces."""
    # `re` keeps what it compiled; ASCII need not wait for it.
    unspaced = 0 if text.isascii() else len(re.findall(_UNSPACED, text))
    words = re.sub(_UNSPACED, " ", text).split() if unspaced else text.split()
    overlong = sum([length // _LONG_WORD for length in map(len, words) if length >= _LONG_WORD])
    return unspaced + overlong + round(len(words) * _TOKENS_PER_WORD)
