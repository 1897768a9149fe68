"""The stand-in model on follow-up questions and on orders, over the prompts that the platform really sends."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime

import pytest

from local import followups
from rag import prompting
from rag.reranking import ordered
from rag.types import Message
from tests.unit.test_prompting import hit

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SAID = (Message("user", "How long do refunds take?", NOW), Message("assistant", "Nine days. [1]", NOW))


def words(texts: object) -> list[int]:
    return [len(str(text).split()) for text in texts]  # type: ignore[attr-defined]


def read(messages: list[dict[str, str]]) -> followups.Asked:
    asked = followups.read([(message["role"], message["content"]) for message in messages])
    assert asked is not None
    return asked


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("And in Spain?", "How long do refunds take? And in Spain?"),
        (
            "Who in the company has to approve them first?",
            "How long do refunds take? Who in the company has to approve them first?",
        ),
        ("How many days of leave does everybody have?", "How many days of leave does everybody have?"),
    ],
)
def test_a_question_that_leans_on_the_one_before_is_put_behind_it(question: str, form: str) -> None:
    messages = prompting.rewrite(question, SAID, budget_tokens=1000, count_tokens=words)
    assert followups.rewritten(read(messages)) == form


def test_passages_are_ordered_by_their_likeness_to_the_question() -> None:
    hits = [hit("Off topic."), hit("On topic."), hit("Beside it.")]
    asked = read(prompting.order("Topic?", hits, budget_tokens=1000, count_tokens=words))
    assert (asked.heading, asked.texts) == ("candidates", ("Off topic.", "On topic.", "Beside it."))

    vectors = [array("f", pair).tobytes() for pair in ([0.0, 1.0], [1.0, 0.0], [0.6, 0.8])]
    answer = followups.ordered(array("f", [1.0, 0.0]).tobytes(), vectors)
    assert answer == "[2] > [3] > [1]"
    assert ordered(answer, 3) == [1, 2, 0]


def test_an_ordinary_question_is_neither() -> None:
    asking = prompting.prompt("Who?", [hit("One.")], budget_tokens=100, count_tokens=words)
    assert followups.read([(message["role"], message["content"]) for message in asking.messages]) is None
    assert followups.read([("user", 'Conversation (JSON lines):\n{broken\n\nQuestion: "Who?"')]) is None
    assert followups.read([]) is None
