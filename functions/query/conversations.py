"""Routes of the conversations that questions were asked in."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from functions.query import questions
from functions.query.callers import Reader
from rag import wiring
from rag.types import Scope

router = APIRouter()

# The latest ones; what nobody reads on a page of a conversation is not sent.
MESSAGES = 200


@router.get("/v1/conversations")
async def list_conversations(
    who: Reader, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> questions.ConversationList:
    """List the conversations of this key, the one used last first."""
    found = wiring.conversation_store().conversations(Scope.of(who), who.principal, most=limit)
    return questions.ConversationList(conversations=[questions.ConversationBody.of(one) for one in found])


@router.get("/v1/conversations/{conversation_id}")
async def get_conversation(conversation_id: uuid.UUID, who: Reader) -> questions.ConversationDetail:
    """Return what was said in a conversation of this key, its latest 200 messages at most."""
    found = wiring.conversation_store().conversation(Scope.of(who), who.principal, conversation_id, most=MESSAGES)
    return questions.ConversationDetail.whole(*found)


@router.delete("/v1/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: uuid.UUID, who: Reader) -> None:
    """Delete a conversation of this key with all its messages."""
    wiring.conversation_store().delete(Scope.of(who), who.principal, conversation_id)
