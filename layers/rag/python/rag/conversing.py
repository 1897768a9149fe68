"""Questions that lean on the ones before them: put so that they stand alone, answered, and kept."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rag import disarming, lexical, prompting, withholding
from rag.answering import Reply
from rag.completing import Cache, Chat, complete
from rag.deadline import Deadline
from rag.errors import UnavailableError
from rag.prompting import CountTokens
from rag.searching import Question, Stopwatch
from rag.types import Message, Scope

REWRITE_SECONDS = 5.0
# What of a conversation a question is understood by.
REMEMBERED_MESSAGES = 6
REMEMBERED_TOKENS = 1_000

_LONGEST_QUESTION = 1_000
_ANSWER_TOKENS = 200


class Store(Protocol):
    def recent(self, scope: Scope, principal: str, conversation: uuid.UUID, *, most: int) -> Sequence[Message]: ...
    def keep(
        self, scope: Scope, principal: str, conversation: uuid.UUID, *, new: bool, question: str, answer: str
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """A question in a conversation and its reply.

    `rewritten` is what was searched for in its place, if anything, as neutral text: it is a model's.
    """

    conversation: uuid.UUID | None
    rewritten: str | None
    reply: Reply
    timings_ms: dict[str, float]


def converse(
    question: Question,
    *,
    principal: str,
    conversation: uuid.UUID | None,
    answer: Callable[[Question], Reply],
    llm: Chat,
    store: Store,
    cache: Cache,
    count_tokens: CountTokens,
    deadline: Deadline,
) -> Turn:
    """Answer a question of a conversation, of a new one where None is given, and keep both as they were put.

    The question is searched for and answered in its standalone form: whoever asks that outright gets the same answer,
    from the same cache. NotFoundError for a conversation that is absent, expired or somebody else's, before anything
    is asked. One that is deleted while its question is answered stays deleted, and what
    cannot be kept is answered all the same: the turn then names none.
    """
    timings = Stopwatch()
    said = store.recent(question.scope, principal, conversation, most=REMEMBERED_MESSAGES) if conversation else ()
    rewritten = None
    if said:
        with timings.measure("rewrite"):
            rewritten = rewrite(question, said, llm=llm, cache=cache, count_tokens=count_tokens, deadline=deadline)
    reply = answer(replace(question, text=rewritten or question.text))
    place = conversation or uuid.uuid4()
    try:
        with timings.measure("keep"):
            kept = store.keep(
                question.scope,
                principal,
                place,
                new=conversation is None,
                question=question.text,
                answer=reply.answer.text,
            )
    except UnavailableError:
        kept = False  # the answer is there, and was paid for
    shown = None if rewritten is None else disarming.disarm(rewritten, [rewritten])
    return Turn(place if kept else None, shown, reply, timings.milliseconds)


def rewrite(
    question: Question,
    said: Sequence[Message],
    *,
    llm: Chat,
    cache: Cache,
    count_tokens: CountTokens,
    deadline: Deadline,
) -> str | None:
    """Return the question as it would be put without the conversation, or None where it stands as it is.

    It stands as it is, too, when the model gives no usable form of it within five seconds.
    """
    messages = prompting.rewrite(question.text, said, budget_tokens=REMEMBERED_TOKENS, count_tokens=count_tokens)
    try:
        completion, _ = complete(
            messages,
            key=cache.answer_key(question.tenant_id, "rewrite", llm.chat_model, messages),
            llm=llm,
            cache=cache,
            deadline=Deadline.after(deadline.within(REWRITE_SECONDS)),
            most_tokens=_ANSWER_TOKENS,
        )
    except UnavailableError:
        return None
    if withholding.withheld(completion.text, messages[0]["content"]):
        return None
    return standalone(completion.text, question.text, said)


def standalone(text: str, question: str, said: Sequence[Message]) -> str | None:
    """Return the model's text if it can be a form of the question that differs from it, else None.

    One line of printable text, of its words one at least that somebody has said, and no address that nobody has.
    """
    form = text.strip().strip("\"'“”`").strip()
    if not form.isprintable() or not 0 < len(form) <= _LONGEST_QUESTION or form == question:
        return None
    heard = [question, *(message.content for message in said)]
    if disarming.disarm(form, heard).count(disarming.LEFT_OUT) > form.count(disarming.LEFT_OUT):
        return None
    words = {lexeme for each in heard for lexeme in _lexemes(each)}
    return form if words & _lexemes(form) else None


def _lexemes(text: str) -> set[int]:
    return set(lexical.ask(text, "english"))
