from __future__ import annotations

import pytest

from rag.parsing import cleaning, decoding, unwrapping

_RUSSIAN = "Володя гимназист, он учится в Швейцарии и хочет получить аттестат, чтобы повторить поступление."
_JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
_CHINESE = "維基大典始於丙戌年七夕，迄今得文二千一百八十九。天地玄黃，宇宙洪荒。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (_RUSSIAN, "koi8-r"),
        (_RUSSIAN, "cp1251"),
        (_JAPANESE, "shift_jis"),
        (_JAPANESE, "euc-jp"),
        (_JAPANESE, "iso2022_jp"),
        (_CHINESE, "big5"),
        ("Das Mädchen aß früh einen großen Käse für über fünf Mark, und es fror.", "cp1252"),
        ("Plain words, and more of them.", "utf-16-le"),
        ("Plain words, and more of them.", "utf-16-be"),
        ("Plain words, and more of them.", "utf-32-le"),
        ("Plain words, and more of them.", "utf-32-be"),
        (_JAPANESE, "utf-16"),
        (_JAPANESE, "utf-8-sig"),
    ],
)
def test_text_is_decoded_without_being_told_how(text: str, encoding: str) -> None:
    assert decoding.decode(text.encode(encoding)) == text


def test_a_declared_encoding_that_does_not_fit_is_not_believed() -> None:
    assert decoding.decode("schön".encode(), "ascii") == "schön"
    assert decoding.decode("schön und gut".encode("cp1252"), "utf-8") == "schön und gut"
    assert decoding.decode(b"plain", "no-such-encoding") == "plain"


def test_clean_text_has_one_kind_of_line_break_and_no_controls() -> None:
    dirty = "A\x00b\ud800\r\nc\u2028d  e \t f\n \n \n\n    indented\ufeff cafe\u0301 \ufb01ne\u00ad"

    assert cleaning.clean(dirty) == "Ab\nc\nd e f\n\n    indented café fine"


def test_wrapped_prose_becomes_paragraphs_and_rows_stay_rows() -> None:
    text = (
        "The river rises in the northern hills and runs for two hundred miles\n"
        "before it reaches the sea, where a port was built in the last century\n"
        "by the town.\n"
        "Another paragraph starts here.\n"
        "\n"
        "Alabama 18,870 23,022 22,650\n"
        "Alaska 209 3,062 3,209\n"
        "- an item\n"
        "- another item\n"
    )

    river = (
        "The river rises in the northern hills and runs for two hundred miles before it reaches the sea, where a port"
    )

    assert unwrapping.unwrap_text(text).split("\n") == [
        f"{river} was built in the last century by the town.",
        "Another paragraph starts here.",
        "",
        "Alabama 18,870 23,022 22,650",
        "Alaska 209 3,062 3,209",
        "- an item",
        "- another item",
        "",
    ]


def test_text_that_was_never_wrapped_is_left_alone() -> None:
    code = "def f(x):\n    return x\n\n\nprint(f(1))\n"

    assert unwrapping.unwrap_text(code) == code


def test_words_broken_by_a_hyphen_are_mended_as_the_document_writes_them() -> None:
    page = "An ef\x02ficient, high\x02dimensional and well\x02known way of us\x02ing Lucene\x02BM25 here"
    other = "Well-known things are high. A dimensional thing is using it."

    mended = unwrapping.unwrap_pages([page, other])[0]

    assert mended.replace("\n", " ") == "An efficient, high-dimensional and well-known way of using Lucene-BM25 here"


def test_a_number_broken_at_a_dash_is_whole_again() -> None:
    first = "Since the directive known to everybody in the field as AD 2018–"
    page = f"{first}\n23–51 was issued, the agency has determined that\nmore is needed."

    assert "AD 2018–23–51 was issued" in unwrapping.unwrap_pages([page])[0]
