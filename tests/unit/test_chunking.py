from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rag import chunking, parsing, tokens
from rag.types import Chunk, Parsed, Section

_count = tokens.tokenizer(None)

_words = st.sampled_from(
    ["river", "Dr.", "3.5", "stone.", "Ends!", "|", "and,", "長い文。", "x" * 300, "é", "\n", "\n\n", "a\nb"]
)
_texts = st.lists(_words, max_size=120).map(" ".join)
_sections = st.builds(
    Section,
    _texts,
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, "Rocks", "A › " + "B " * 60]),
    st.sampled_from([None, "\n", "\n\n"]),
)
_documents = st.builds(
    Parsed, st.just("text/plain"), st.lists(_sections, max_size=6).map(tuple), st.sampled_from([None, "On rivers"])
)


def _split(*texts: str, title: str | None = None, page: int | None = None, heading: str | None = None) -> list[Chunk]:
    parsed = Parsed("text/plain", tuple(Section(text, page, heading) for text in texts), title)
    return list(chunking.split(parsed, count_tokens=_count))


@given(_documents, st.sampled_from([(20, 40), (60, 100), (150, 250)]))
def test_chunks_hold_every_word_once_and_in_order(parsed: Parsed, sizes: tuple[int, int]) -> None:
    chunks = list(chunking.split(parsed, count_tokens=_count, target=sizes[0], maximum=sizes[1]))

    kept = "".join("".join(chunk.content.split()) for chunk in chunks)
    assert kept == "".join("".join(section.text.split()) for section in parsed.sections)


@given(_documents, st.sampled_from([(20, 40), (60, 100), (150, 250)]))
def test_no_chunk_exceeds_the_maximum_with_its_context(parsed: Parsed, sizes: tuple[int, int]) -> None:
    chunks = list(chunking.split(parsed, count_tokens=_count, target=sizes[0], maximum=sizes[1]))

    assert [chunk.tokens for chunk in chunks] == _count([chunk.text for chunk in chunks])
    assert all(chunk.tokens <= sizes[1] for chunk in chunks)


@given(_documents)
def test_a_chunk_is_a_literal_slice_of_its_page(parsed: Parsed) -> None:
    pages: dict[int | None, str] = {}
    for section in parsed.sections:
        pages[section.page] = f"{pages[section.page]}\n\n{section.text}" if section.page in pages else section.text

    for chunk in chunking.split(parsed, count_tokens=_count):
        # Sections without a sentence leave only white space between their neighbours.
        assert " ".join(chunk.content.split()) in " ".join(pages[chunk.page].split())
        assert chunk.content == chunk.content.strip()


@given(_documents)
def test_equal_documents_give_equal_chunks_with_positions_from_zero(parsed: Parsed) -> None:
    first = list(chunking.split(parsed, count_tokens=_count))

    assert first == list(chunking.split(parsed, count_tokens=_count))
    assert [chunk.position for chunk in first] == list(range(len(first)))


def test_sentences_are_not_cut() -> None:
    sentence = "The quick brown fox jumps over the lazy dog near the river bank today."

    chunks = _split(" ".join([sentence] * 100))

    assert len(chunks) > 5
    assert all(chunk.content.endswith(".") and chunk.content.startswith("The") for chunk in chunks)
    assert all(100 <= chunk.tokens <= 150 for chunk in chunks[:-1])


def test_a_sentence_longer_than_the_maximum_is_cut_between_words() -> None:
    chunks = _split("and then, " * 600)

    assert len(chunks) > 3
    assert {word for chunk in chunks for word in chunk.content.split()} == {"and", "then,"}


def test_a_megabyte_without_a_space_is_cut_too() -> None:
    chunks = _split("a" * 1_000_000)

    assert max(len(chunk.content) for chunk in chunks) <= 4000
    assert sum(len(chunk.content) for chunk in chunks) == 1_000_000


def test_a_chunk_names_its_document_and_heading_unless_it_says_them_itself() -> None:
    body = " ".join(["Water runs down the hill and into the sea again."] * 40)

    chunks = _split("Rivers\n" + body, title="Geography", heading="Rivers")

    assert chunks[0].context == "Geography"
    assert {chunk.context for chunk in chunks[1:]} == {"Geography — Rivers"}
    assert {chunk.heading for chunk in chunks} == {"Rivers"}


def test_a_long_context_is_shortened_from_the_outside() -> None:
    heading = "Part One of the very long book › Chapter Two on the rivers of the north › The Thames"

    chunk = _split("Water runs down.", title="T" * 5000, heading=heading)[0]

    assert chunk.context.endswith("The Thames")
    assert chunk.tokens < 60


def test_a_heading_alone_is_joined_to_what_follows_on_its_page() -> None:
    parsed = Parsed(
        "text/html",
        (
            Section("Animals", None, "Animals"),
            Section("Cats\nCats sleep for most of the day and hunt at night.", None, "Animals › Cats"),
        ),
    )

    (chunk,) = chunking.split(parsed, count_tokens=_count)

    assert chunk.content == "Animals\n\nCats\nCats sleep for most of the day and hunt at night."
    assert chunk.heading == "Animals › Cats"


def test_small_pages_are_not_joined() -> None:
    parsed = Parsed("application/pdf", (Section("First.", 1), Section("Second.", 2)))

    assert [(chunk.page, chunk.content) for chunk in chunking.split(parsed, count_tokens=_count)] == [
        (1, "First."),
        (2, "Second."),
    ]


def test_a_heading_inside_a_section_opens_the_next_chunk_rather_than_ending_one() -> None:
    body = " ".join(["Water runs down the hill and into the sea again today."] * 11)

    chunks = _split(f"{body}\nSecond part\n{body}")

    assert not any(chunk.content.endswith("Second part") for chunk in chunks)


def test_counting_is_asked_for_in_batches() -> None:
    calls = []

    def count(texts: list[str]) -> list[int]:
        calls.append(len(texts))
        return _count(texts)

    chunking.split(Parsed("text/plain", (Section("One short sentence. " * 5000),)), count_tokens=count)

    assert len(calls) < 10


# Tables and records


def _table(*rows: str, heading: str | None = None) -> list[Chunk]:
    return list(
        chunking.split(Parsed("text/csv", (Section("\n".join(rows), None, heading, "\n"),)), count_tokens=_count)
    )


def _row(number: int) -> str:
    return f"Team: Number {number} | City: St. John's. And others | Cups: {number % 7}"


def test_several_rows_make_a_chunk_and_none_is_cut() -> None:
    rows = [_row(number) for number in range(200)]

    chunks = _table("Team | City | Cups", *rows)

    assert 10 < len(chunks) < 100
    assert [row for chunk in chunks for row in chunk.content.split("\n")] == ["Team | City | Cups", *rows]
    assert all("Team: " in chunk.content and "Cups: " in chunk.content for chunk in chunks)


def test_a_row_too_long_is_cut_between_its_cells_and_its_rest_says_whose_it_is() -> None:
    row = " | ".join(["id: 17", *(f"column {number}: " + "words of it " * 15 for number in range(12))])

    chunks = _table("id | columns", row, heading="Sheet")

    assert len(chunks) > 3
    assert " ".join(chunk.content for chunk in chunks).split() == f"id | columns {row}".split()
    assert all(chunk.content.startswith("column ") for chunk in chunks[1:])
    assert [chunk.heading for chunk in chunks[1:]] == ["Sheet › id: 17"] * (len(chunks) - 1)
    assert all("id: 17" in chunk.text for chunk in chunks)


def test_the_rest_of_a_cell_too_long_names_its_column() -> None:
    chunks = _table("id: 17 | remarks: " + "It rained all day. " * 200 + "| last: 1")

    assert {chunk.heading for chunk in chunks[2:-1]} == {"id: 17 › remarks"}
    assert all("remarks" in chunk.text for chunk in chunks)


def test_records_are_packed_whole_and_parted_by_empty_lines() -> None:
    parsed = parsing.parse("\n".join(f'{{"id": {n}, "note": "One.\\n\\nTwo."}}' for n in range(60)).encode(), "x.jsonl")

    chunks = list(chunking.split(parsed, count_tokens=_count))

    records = [record for chunk in chunks for record in chunk.content.split("\n\n")]
    assert records == [f"id: {n}\nnote: One.\nTwo." for n in range(60)]
    assert 1 < len(chunks) < 30
