"""BM25 by sparse vectors: what counts as the same word, and that the inner product is BM25."""

from __future__ import annotations

import json
import math
import re
import struct
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import lexical

LANGUAGE = st.sampled_from(sorted(lexical.LANGUAGES))
OCEAN_TERM = 806_864_380


def meets(question: str, text: str, language: str = "english") -> bool:
    """Whether all that the question asks for is found in the text."""
    return lexical.ask(question, language).keys() <= lexical.analyse(text, language).keys()


@pytest.mark.parametrize(
    ("question", "text", "language"),
    [
        ("running", "He runs daily.", "english"),
        ("NATO", "the nato summit", "english"),
        ("07-1315", "Docket No. 07-1315 was decided.", "english"),
        ("2018-23-51", "Airworthiness Directive 2018-23-51", "english"),
        ("71137", "net sales of 71,137 million", "english"),
        ("IL2", "interleukin IL-2 levels", "english"),
        ("email", "send an e-mail", "english"),
        ("C++", "written in C++ and Rust", "english"),
        ("C#", "(C#)", "english"),
        ("max_tokens", "set max_tokens to 5", "english"),
        ("max tokens", "set max_tokens to 5", "english"),
        ("jane.doe@example.com", "write to jane.doe@example.com.", "english"),
        ("v1.2.3", "since v1.2.3", "english"),
        ("file", "\ufb01le", "english"),
        ("office", "of\u00adfice", "english"),
        ("cafe", "café", "english"),
        ("café", "cafe\u0301", "english"),
        ("canción", "las canciones", "spanish"),
        ("Häuser", "das Haus", "german"),
        ("Straße", "STRASSE", "german"),
        ("книга", "много книг", "russian"),
        ("東京", "東京都庁", "english"),
        ("人口", "東京の人口は多い", "japanese"),
        ("서울", "서울특별시에서", "korean"),
        ("ภาษา", "ภาษาไทย", "thai"),
        ("हिन्दी", "यह हिन्दी है", "hindi"),
        ("שלום", "שָׁלוֹם", "simple"),
    ],
)
def test_a_question_meets_the_text_that_says_the_same(question: str, text: str, language: str) -> None:
    assert meets(question, text, language)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("spanish", "francés después además interés japonés murió nació energía compañía huracán"),
        ("portuguese", "população educação português informação mãe"),
        ("french", "université première sécurité société"),
        ("italian", "partirò verità qualità"),
    ],
)
def test_a_word_typed_without_its_accents_meets_the_text_that_has_them(language: str, words: str) -> None:
    for word in words.split():
        assert meets(without_accents(word), f"x {word}.", language), word
        assert meets(word, f"x {word}.", language), word


def test_a_word_with_accents_weighs_once_in_a_question() -> None:
    assert lexical.ask("francés", "spanish").total() == 1
    assert lexical.analyse("francés", "spanish").total() == 2


def test_words_that_are_stemmed_alike_without_accents_count_once() -> None:
    for text, language in (("canción mundial", "spanish"), ("été là", "french"), ("résumé café", "english")):
        assert lexical.analyse(text, language).total() == 2


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("71,137", "net sales of 71137 million"),
        ("IL-2", "interleukin IL2 levels"),
        ("e-mails", "send an email"),
        ("example.com", "write to jane@www.example.com."),
    ],
)
def test_what_the_question_joins_meets_the_text_that_writes_it_otherwise(question: str, text: str) -> None:
    assert lexical.ask(question, "english").keys() & lexical.analyse(text, "english").keys()


@pytest.mark.parametrize(
    ("question", "text"),
    [("07-1315", "07-1316"), ("C++", "vitamin C"), ("東京", "京東"), ("हिन्दी", "हिन्दू"), ("policy", "police")],
)
def test_a_question_does_not_meet_what_is_merely_alike(question: str, text: str) -> None:
    assert not meets(question, text)


def test_what_is_written_together_counts_in_its_parts_and_whole() -> None:
    assert lexical.analyse("IL-2", "english") == lexical.analyse("il 2 il2", "english")


def test_a_comma_joins_digits_only() -> None:
    assert lexical.analyse("red,green", "english") == lexical.analyse("red green", "english")
    assert lexical.analyse("71,137", "english") == lexical.analyse("71 137 71137", "english")


def test_stop_words_weigh_nothing_in_a_question_that_has_other_words() -> None:
    assert lexical.ask("What is the boiling point of water?", "english") == lexical.analyse(
        "boiling point water", "english"
    )


def test_a_question_of_nothing_but_stop_words_still_finds_its_text() -> None:
    assert lexical.ask("To be or not to be", "english").total() == 6
    assert meets("To be or not to be", "Hamlet: To be, or not to be, that is the question.")


def test_every_list_of_stop_words_belongs_to_a_language_and_is_written_as_words_are_compared() -> None:
    assert lexical.STOP_WORDS.keys() <= lexical.LANGUAGES
    for words in lexical.STOP_WORDS.values():
        assert words == unicodedata.normalize("NFKC", words).casefold()


@pytest.mark.parametrize(
    ("character", "word"), [("猫", "黒猫"), ("水", "水を"), ("강", "한강"), ("ก", "กา"), ("書", "書店")]
)
def test_one_character_of_a_language_without_spaces_meets_only_itself_alone_and_a_word_of_two_meets_all(
    character: str, word: str
) -> None:
    assert meets(character, f"{character}、{word}", "japanese")
    assert not meets(character, f"{word}。", "japanese")
    assert meets(word, f"それは{word}だ。", "japanese")


def test_the_languages_that_are_documented_are_those_there_are() -> None:
    told = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text().split("\n## Languages\n")[1]
    _, words, grammar, pairs, *_ = told.split("\n## ")[0].split("\n- ")
    assert names(words) == lexical.LANGUAGES - lexical.UNSTEMMED | {"simple"}
    assert names(grammar) == lexical.STOP_WORDS.keys()
    assert names(pairs) == lexical.UNSTEMMED - {"simple"}


def names(text: str) -> set[str]:
    return set(re.findall("`([a-z]+)`", text))


def without_accents(text: str) -> str:
    return "".join(mark for mark in unicodedata.normalize("NFD", text) if not unicodedata.combining(mark))


@pytest.mark.parametrize("language", lexical.STOP_WORDS)
def test_stop_words_are_recognised_with_and_without_their_accents(language: str) -> None:
    alone = lexical.analyse("7351", language)
    for word in lexical.STOP_WORDS[language].split():
        for written in (word, word.capitalize(), unicodedata.normalize("NFD", word), without_accents(word)):
            assert lexical.ask(f"{written} 7351", language) == alone, written


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("spanish", "también aquí según así aún cuál cuándo cuántos dónde él está están había más mí qué quién sí tú"),
        ("french", "après très déjà à où là même mêmes étaient était étant êtes être"),
        ("german", "für können über während"),
        ("italian", "può così già né perché più è sì"),
        ("portuguese", "também são à às após até está estão já lá não você vocês"),
        ("dutch", "één"),
    ],
)
def test_stop_words_as_people_write_them_weigh_nothing(language: str, words: str) -> None:
    assert lexical.ask(f"{words} 7351", language) == lexical.analyse("7351", language)


def test_term_ids_never_change_because_the_index_keeps_them() -> None:
    assert lexical.analyse("ocean", "english") == Counter({OCEAN_TERM: 1})


@given(st.text(st.sampled_from("ab01_-./:@,+#' \n"), max_size=40) | st.text(st.characters(max_codepoint=127)))
def test_ascii_is_read_as_any_script_is(text: str) -> None:
    text = text.casefold()
    for short, every in zip(lexical._patterns(ascii_only=True), lexical._patterns(ascii_only=False), strict=True):
        assert short.findall(text) == every.findall(text)


@pytest.mark.parametrize("mark", [chr(code) for code in range(33, 127) if not chr(code).isalnum()])
def test_a_word_beside_a_mark_is_what_the_patterns_find(mark: str) -> None:
    for piece in (f"trains{mark}", f"{mark}trains", f"{mark}{mark}trains.{mark}", f"tra{mark}ins", mark):
        assert lexical.analyse(piece, "english") == Counter(lexical._Terms("english").every(piece))


@given(text=st.text(), language=LANGUAGE)
def test_any_text_gives_ids_that_a_sparsevec_can_hold(text: str, language: str) -> None:
    counts = lexical.analyse(text, language)

    assert all(1 <= term < lexical.DIMENSIONS for term in counts)
    assert all(count >= 1 for count in counts.values())
    assert not counts or lexical.ask(text, language)


@given(words=st.lists(st.sampled_from(["ocean", "river", "deep", "IL-2", "東京都"]), min_size=1))
def test_the_order_of_words_does_not_matter(words: list[str]) -> None:
    assert lexical.analyse(" ".join(words), "english") == lexical.analyse(" ".join(reversed(words)), "english")


@pytest.mark.parametrize("text", ["a" * 200_000, "a-" * 100_000, "東" * 100_000, "__" * 100_000, "\u0301" * 200_000])
def test_monstrous_text_ends_in_few_terms(text: str) -> None:
    """Quadratic work would take minutes here."""
    assert len(lexical.analyse(text, "english")) <= 2


def test_words_that_differ_after_the_64th_character_are_the_same() -> None:
    assert lexical.analyse("x" * 64, "simple") == lexical.analyse("x" * 5000, "simple")


def test_the_inner_product_is_bm25() -> None:
    texts = ["cats chase mice", "dogs chase cats and cats flee", "mice eat cheese all day long"]
    counts = [lexical.analyse(text, "english") for text in texts]
    lengths = [count.total() for count in counts]
    average = sum(lengths) / len(lengths)
    frequencies = Counter(term for count in counts for term in count)
    weights = lexical.question(lexical.ask("cats", "english"), frequencies, len(texts))
    (cat,) = weights

    scores = [
        sum(weight * lexical.weigh(count, average).get(term, 0) for term, weight in weights.items()) for count in counts
    ]

    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = [
        idf * count[cat] * 2.2 / (count[cat] + 1.2 * (0.25 + 0.75 * length / average))
        for count, length in zip(counts, lengths, strict=True)
    ]
    assert scores == pytest.approx(expected)
    assert scores[1] > scores[0] > scores[2] == 0


def test_rarer_terms_weigh_more_and_none_weighs_less_than_nothing() -> None:
    weights = [lexical.idf(frequency, 1000) for frequency in range(1001)]

    assert weights == sorted(weights, reverse=True)
    assert weights[-1] > 0


def test_a_term_that_no_chunk_has_keeps_its_weight_in_the_question() -> None:
    weights = lexical.question(lexical.ask("unicorn ocean", "english"), {OCEAN_TERM: 5}, 10)

    assert len(weights) == 2
    assert max(weights, key=weights.__getitem__) != OCEAN_TERM


def test_an_ordinary_chunk_that_says_each_word_of_the_question_once_scores_what_is_possible() -> None:
    counts = lexical.ask("deep ocean", "english")
    weights = lexical.question(counts, {OCEAN_TERM: 5}, 10)
    chunk = lexical.weigh({**dict.fromkeys(range(1, 99), 1), **counts}, average_length=100)

    score = sum(weight * chunk[term] for term, weight in weights.items())

    assert score == pytest.approx(lexical.possible(counts, {OCEAN_TERM: 5}, 10))


def test_statistics_that_lag_behind_a_deletion_do_no_harm() -> None:
    assert lexical.idf(7, 5) == lexical.idf(5, 5)
    assert lexical.question({OCEAN_TERM: 1}, {OCEAN_TERM: 3}, 0)[OCEAN_TERM] > 0


def reciprocal_rank(scores: dict[str, float], relevant: str) -> float:
    return 1 / (1 + sum(score > scores[relevant] for score in scores.values())) if relevant in scores else 0.0


@pytest.mark.data
@pytest.mark.parametrize(("name", "language", "least"), [("xquad-en", "english", 0.95), ("xquad-es", "spanish", 0.95)])
def test_questions_find_their_paragraphs_by_words_alone(
    shared_data: Path, name: str, language: str, least: float
) -> None:
    """The mean reciprocal rank of bm25s on the same sets is 0.958 and 0.955."""
    folder = shared_data / "retrieval" / name
    documents = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    questions = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    relevant = dict(line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text().splitlines()[1:])
    postings: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for document in documents:
        counts = lexical.analyse(f"{document['title']} {document['text']}", language)
        for term, weight in lexical.weigh(counts).items():
            postings[term][document["_id"]] = weight

    ranks = []
    for asked in questions:
        counts = lexical.ask(asked["text"], language)
        frequencies = {term: len(postings[term]) for term in counts if term in postings}
        scores: defaultdict[str, float] = defaultdict(float)
        for term, idf in lexical.question(counts, frequencies, len(documents)).items():
            for document_id, weight in postings.get(term, {}).items():
                scores[document_id] += idf * weight
        ranks.append(reciprocal_rank(scores, relevant[asked["_id"]]))

    assert sum(ranks) / len(ranks) >= least


@given(
    counts=st.dictionaries(st.integers(1, 10**9), st.integers(1, 1000), min_size=1).map(Counter),
    before=st.integers(1, 100),
    after=st.integers(1, 100),
)
def test_weighing_anew_gives_what_weighing_at_once_gives(counts: Counter[int], before: int, after: int) -> None:
    kept = {
        term: struct.unpack("f", struct.pack("f", weight))[0] for term, weight in lexical.weigh(counts, before).items()
    }
    assert lexical.reweigh(kept, counts.total(), before, after) == lexical.weigh(counts, after)


@pytest.mark.parametrize(
    ("current", "lexemes", "chunks", "average"),
    [
        (100, 63 * 10, 63, 100),  # too few to tell
        (100, 64 * 10, 64, 20),
        (100, 1000 * 40, 1000, 100),  # within a quarter
        (100, 1000 * 39, 1000, 78),
        (100, 1000 * 300, 1000, 100),  # never more
        (10, 1000 * 300, 1000, 100),
        (10, 1000 * 6, 1000, 10),
        (10, 1000 * 7, 1000, 14),
        (100, 0, 64, 1),
    ],
)
def test_the_average_length_follows_what_has_drifted(current: float, lexemes: int, chunks: int, average: float) -> None:
    assert lexical.average_length(current, lexeme_count=lexemes, chunk_count=chunks) == average
