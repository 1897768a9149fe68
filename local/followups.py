"""What the model that is none does with a conversation and with a list: it joins, and it compares embeddings.

It reads the prompts of `rag.prompting` for rewriting a follow-up question and for ordering passages.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

_QUESTION = re.compile(r"Question: (\".*\")")
_WORD = re.compile(r"[^\W_]+")
# English words that point back to something that was said, and how short a question leans on the one before anyway.
_POINTING_WORDS = """
it its he him his she her they them their this that these those there then one ones same else other others also too
former latter
"""
_POINTING = frozenset(_POINTING_WORDS.split())
_SHORT = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """The question, and what stands before it: earlier questions (`conversation`) or passages (`candidates`)."""

    heading: str
    question: str
    texts: tuple[str, ...]


def read(messages: Sequence[tuple[str, str]]) -> Asked | None:
    """What the last user message asks, or None when it is neither a conversation nor a list of candidates."""
    said = next((text for role, text in reversed(messages) if role == "user"), "")
    first, *lines = said.split("\n")
    heading = {"Conversation (JSON lines):": "conversation", "Candidates (JSON lines):": "candidates"}.get(first)
    question = _QUESTION.fullmatch(lines[-1]) if lines else None
    if heading is None or question is None:
        return None
    try:
        items = [json.loads(line) for line in lines[:-1] if line.startswith("{")]
        kept = [item["text"] for item in items if heading == "candidates" or item["role"] == "user"]
        return Asked(heading, json.loads(question[1]), tuple(map(str, kept)))
    except (KeyError, ValueError):
        return None


def rewritten(asked: Asked) -> str:
    """The last question behind the one before it, where it is short or points back; it understands neither."""
    words = [word.casefold() for word in _WORD.findall(asked.question)]
    if not asked.texts or (len(words) > _SHORT and _POINTING.isdisjoint(words)):
        return asked.question
    return " ".join(f"{asked.texts[-1]} {asked.question}".split())


def ordered(question: bytes, vectors: Sequence[bytes]) -> str:
    """`[2] > [1]`: the passages by the cosine of their embeddings (float32, of length 1) to the question's."""
    asking = array("f", question)
    cosines = [math.fsum(map(mul, asking, array("f", vector))) for vector in vectors]
    return " > ".join(f"[{n + 1}]" for n in sorted(range(len(vectors)), key=lambda n: -cosines[n]))
