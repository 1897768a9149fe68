"""Citations: whatever a model writes, a quote stands literally in the passage that it is ascribed to."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rag.citing import Unmarked, cite
from rag.types import Hit

MARKER = re.compile(r"\[([0-9]+)\]")

OCEAN = (
    "The Pacific is the largest ocean. It covers about 165 million square kilometres. Its mean depth is 4,280 metres."
)
RIVER = "The Nile flows north through eleven countries.\nThe Amazon carries more water than any other river."


def hit(content: str) -> Hit:
    return Hit(
        chunk_id=uuid.uuid4(),
        document_id=uuid.uuid4(),
        collection="default",
        key="geography.txt",
        title=None,
        page=None,
        heading=None,
        position=0,
        content=content,
        content_hash=b"",
        score=0.9,
        cosine=0.8,
        bm25=7.0,
    )


def test_a_marker_becomes_the_sentence_of_the_passage_that_supports_it() -> None:
    cited = cite("The Pacific covers 165 million square kilometres [1].", [hit(OCEAN)])

    assert cited.text == "The Pacific covers 165 million square kilometres [1]."
    assert [c.quote for c in cited.citations] == ["It covers about 165 million square kilometres."]
    assert cited.dropped == 0


def test_citations_are_numbered_in_order_of_appearance() -> None:
    passages = [hit(OCEAN), hit("Nothing of the kind."), hit(RIVER)]

    cited = cite("The Nile flows north [3]. The Pacific is the largest ocean [1].", passages)

    assert cited.text == "The Nile flows north [1]. The Pacific is the largest ocean [2]."
    assert [(c.n, c.hit) for c in cited.citations] == [(1, passages[2]), (2, passages[0])]


def test_two_quotes_of_one_passage_are_two_citations_and_one_quote_is_one() -> None:
    text = "The Pacific is the largest ocean [1]. Its mean depth is 4,280 metres [1]. Largest ocean: the Pacific [1]."

    cited = cite(text, [hit(OCEAN)])

    assert MARKER.findall(cited.text) == ["1", "2", "1"]
    assert [c.quote for c in cited.citations] == [
        "The Pacific is the largest ocean.",
        "Its mean depth is 4,280 metres.",
    ]


def test_a_marker_inside_a_sentence_vouches_for_the_part_before_it() -> None:
    cited = cite("The Pacific is the largest ocean [1] with a mean depth of 4,280 metres [1].", [hit(OCEAN)])

    assert [c.quote for c in cited.citations] == [
        "The Pacific is the largest ocean.",
        "Its mean depth is 4,280 metres.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "The Nile flows north. [1]",
        "The Nile flows north.[1]",
        "The Nile flows north. [1] Nobody knows why.",
        "[1] The Nile flows north. The rest is unknown.",
        "The Nile flows north 【1】.",
        "The Nile flows north [ 1 ].",
    ],
)
def test_markers_are_understood_wherever_models_put_them(text: str) -> None:
    cited = cite(text, [hit(RIVER)])

    assert [c.quote for c in cited.citations] == ["The Nile flows north through eleven countries."]
    assert MARKER.findall(cited.text) == ["1"]


def test_several_numbers_in_one_bracket_are_several_citations() -> None:
    cited = cite("The Pacific is an ocean, the Nile flows north [1, 2].", [hit(OCEAN), hit(RIVER)])

    assert cited.text == "The Pacific is an ocean, the Nile flows north [1][2]."
    assert len(cited.citations) == 2


def test_a_marker_to_a_passage_that_was_not_shown_is_removed() -> None:
    text = "The Nile flows north [1][7]. The Amazon carries water [0]. The Nile flows [99999999999999999999]."

    cited = cite(text, [hit(RIVER)])

    assert cited.text == "The Nile flows north [1]. The Amazon carries water. The Nile flows."
    assert cited.dropped == 3


def test_a_marker_to_a_passage_that_says_nothing_of_the_kind_is_removed() -> None:
    cited = cite("The moon is made of green cheese [1].", [hit(OCEAN)])

    assert cited.text == "The moon is made of green cheese."
    assert cited.citations == ()
    assert cited.dropped == 1


def test_function_words_alone_support_nothing() -> None:
    cited = cite("It is the moon that is there [1].", [hit("It is the tide that was there.")])

    assert cited.citations == ()


def test_inflected_words_of_the_collections_language_support() -> None:
    passage = hit("Los pingüinos nadaban rápidamente. Comían peces.")

    cited = cite("El pingüino nada rápido [1].", [passage], language="spanish")

    assert [c.quote for c in cited.citations] == ["Los pingüinos nadaban rápidamente."]


def test_another_unicode_form_of_the_same_words_is_quoted_as_the_passage_has_it() -> None:
    passage = hit("The cafe\u0301 \ufb01led its o\u00adffice taxes. Then it closed.")

    cited = cite("The caf\u00e9 filed its office taxes [1].", [passage])

    assert [c.quote for c in cited.citations] == ["The cafe\u0301 \ufb01led its o\u00adffice taxes."]


def test_a_long_sentence_is_cut_to_where_the_words_are() -> None:
    filler = "and so on it went for a while with much of no great interest to anybody " * 10
    passage = hit(f"It began, {filler}until the committee rejected the merger, {filler}which was the end.")

    (citation,) = cite("The committee rejected the merger [1].", [passage]).citations

    assert len(citation.quote) <= 300
    assert "the committee rejected the merger," in citation.quote
    assert re.search(rf"(?<!\S){re.escape(citation.quote)}(?!\S)", passage.content)


def test_a_long_run_without_spaces_is_quoted_within_the_limit() -> None:
    passage = hit("東京都の人口は約千四百万人で" * 60)

    (citation,) = cite("東京都の人口は約千四百万人です [1]", [passage], language="japanese").citations

    assert len(citation.quote) <= 300
    assert citation.quote in passage.content


def test_an_answer_without_markers_has_no_citations() -> None:
    cited = cite("The Nile flows north.", [hit(RIVER)])

    assert (cited.text, cited.citations, cited.dropped) == ("The Nile flows north.", (), 0)


FRAGMENTS = st.sampled_from(
    [
        *"[]【】0129,; .\n",
        "[1]",
        "[2]",
        "[3]",
        "[1, 2]",
        "The Nile flows north",
        "the largest ocean",
        "water",
        "\u2028",
        "٣",
    ]
)


@given(
    text=st.one_of(st.text(), st.lists(FRAGMENTS, max_size=25).map("".join)),
    contents=st.lists(st.one_of(st.text(), st.sampled_from([OCEAN, RIVER])), max_size=3),
)
@example(text="[1[9]2]", contents=[OCEAN])
@example(text="water [1[2]]", contents=[RIVER])
def test_whatever_a_model_writes_markers_and_citations_agree_and_quotes_are_literal(
    text: str, contents: list[str]
) -> None:
    passages = [hit(content) for content in contents]

    cited = cite(text, passages)

    assert [c.n for c in cited.citations] == list(range(1, len(cited.citations) + 1))
    assert list(dict.fromkeys(map(int, MARKER.findall(cited.text)))) == [c.n for c in cited.citations]
    for citation in cited.citations:
        assert citation.hit in passages
        assert citation.quote
        assert citation.quote in citation.hit.content
        assert len(citation.quote) <= 300
    assert cited.dropped <= text.count("]") + text.count("】") + text.count(",") + text.count(";")


@given(st.lists(st.text(alphabet="ab1 ,;.[]【】\n\t", max_size=6), max_size=12))
@example(["A sentence ", "[", "1", "]", "[2", ", 3", "]."])
@example(["[1[9", "]2]"])
@example(["a [1] ", "【2】", " b"])
def test_a_text_in_pieces_is_the_text_without_its_markers_however_it_is_cut(pieces: list[str]) -> None:
    whole, text = Unmarked(), "".join(pieces)
    plain = whole.feed(text) + whole.end()
    cut = Unmarked()
    assert "".join(cut.feed(piece) for piece in pieces) + cut.end() == plain
    # Without passages every marker goes.
    assert plain.strip() == cite(text, []).text


def test_what_cannot_become_a_marker_is_not_held_back() -> None:
    unmarked = Unmarked()
    assert [unmarked.feed(piece) for piece in ("Nine days", " [1]", ". See [", "a].")] == [
        "Nine days",
        "",
        ". See",
        " [a].",
    ]
    assert unmarked.end() == ""
