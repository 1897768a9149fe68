"""Conversations: kept for a while, for the principal that has them and nobody else."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import NotFoundError
from rag.types import Conversation, Message, Scope

if TYPE_CHECKING:
    from rag.store.database import Database, Row, Transaction

# As many as one writing removes of what has expired: more than one writing adds.
EXPIRED_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class ConversationStore:
    """Reads and writes as the role rag_query; an expired conversation does not exist any more."""

    database: Database
    ttl_seconds: int

    def recent(self, scope: Scope, principal: str, conversation: uuid.UUID, *, most: int) -> list[Message]:
        """Return the latest messages in their order; NotFoundError when there is no such conversation of theirs."""

        def work(transaction: Transaction) -> list[Row]:
            return transaction.rows("recent_messages", principal=principal, conversation=conversation, most=most)

        rows = self.database.read(scope, work)
        if not rows:
            raise _absent(conversation)
        return [Message(*row) for row in rows if row[0] is not None]

    def keep(
        self, scope: Scope, principal: str, conversation: uuid.UUID, *, new: bool, question: str, answer: str
    ) -> bool:
        """Append a question and its answer, and let the conversation live on; False when it is gone meanwhile."""
        turn = uuid.uuid4()

        def work(transaction: Transaction) -> bool:
            at: dict[str, Any] = {"principal": principal, "conversation": conversation, "ttl_seconds": self.ttl_seconds}
            if new:
                transaction.run("begin_conversation", **at)
            # The row's lock puts the questions of one conversation in a row, each with its answer.
            elif not transaction.rows("extend_conversation", **at):
                return False
            said = {"question": _storable(question), "answer": _storable(answer)}
            transaction.run("add_turn", conversation=conversation, turn=turn, **said)
            transaction.run("drop_expired_conversations", most=EXPIRED_AT_ONCE)
            return True

        return self.database.write(scope, work)

    def conversation(
        self, scope: Scope, principal: str, conversation: uuid.UUID, *, most: int
    ) -> tuple[Conversation, list[Message]]:
        """Return a conversation with its latest messages in their order; NotFoundError when there is none of theirs."""

        def work(transaction: Transaction) -> tuple[list[Row], list[Row]]:
            at: dict[str, Any] = {"principal": principal, "conversation": conversation, "most": most}
            return transaction.rows("conversations", **at), transaction.rows("recent_messages", **at)

        found, messages = self.database.read(scope, work)
        if not found:
            raise _absent(conversation)
        return Conversation(*found[0]), [Message(*row) for row in messages if row[0] is not None]

    def conversations(self, scope: Scope, principal: str, *, most: int) -> Sequence[Conversation]:
        """Return a principal's conversations, the one used last first."""
        wanted: dict[str, Any] = {"principal": principal, "conversation": None, "most": most}
        rows = self.database.read(scope, lambda transaction: transaction.rows("conversations", **wanted))
        return [Conversation(*row) for row in rows]

    def drop_expired(self) -> None:
        """Delete what has expired, of every tenant; as rag_owner."""
        self.database.query("drop_all_expired_conversations")

    def delete(self, scope: Scope, principal: str, conversation: uuid.UUID) -> None:
        """Delete a conversation with its messages; NotFoundError when there is no such conversation of theirs."""
        at: dict[str, Any] = {"principal": principal, "conversation": conversation}
        if not self.database.write(scope, lambda transaction: transaction.rows("delete_conversation", **at)):
            raise _absent(conversation)


def _absent(conversation: uuid.UUID) -> NotFoundError:
    return NotFoundError(f"there is no conversation {conversation}")


def _storable(text: str) -> str:
    """What a model says may hold what PostgreSQL and UTF-8 have no place for."""
    return text.replace("\0", "").encode(errors="replace").decode()
