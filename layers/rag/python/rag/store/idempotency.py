"""Requests that name themselves: who is at work on one, and what was answered to it."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import InProgressError, ReusedKeyError
from rag.types import KeptAnswer, RequestClaim, Scope

if TYPE_CHECKING:
    from rag.store.database import Database, Row, Transaction
    from rag.types import Caller

KEPT_SECONDS = 24 * 3600
# More than the function that answers may take: by then whoever had it is dead.
LEASE_SECONDS = 60
_REUSED = "this Idempotency-Key was used for another request; take a new one for each"
_BUSY = "this very request is being carried out; ask again to hear what comes of it"


@dataclass(frozen=True, slots=True)
class IdempotencyStore:
    """Reads and writes as the role rag_query."""

    database: Database

    def claim(self, caller: Caller, key: str, request: bytes) -> RequestClaim | KeptAnswer:
        """Return the right to carry out the request of this name, or what was answered to it.

        ReusedKeyError when the name is another request's; InProgressError while another run is at work on it.
        """
        claim = RequestClaim(caller, hashlib.sha256(key.encode()).digest(), uuid.uuid4())
        request_hash = hashlib.sha256(request).digest()

        def work(transaction: Transaction) -> Row:
            given: dict[str, Any] = {
                "request_hash": request_hash,
                "lease_seconds": LEASE_SECONDS,
                "kept_seconds": KEPT_SECONDS,
            }
            transaction.run("claim_request", **_at(claim), **given)
            # There, and locked by the statement before, whether it took it over or not.
            [row] = transaction.rows("idempotent_request", principal=caller.principal, key_hash=claim.key_hash)
            return row

        kept_hash, attempt, status, media_type, body = self.database.write(Scope(caller.tenant_id), work)
        if kept_hash != request_hash:
            raise ReusedKeyError(_REUSED)
        if status is not None:
            return KeptAnswer(status, media_type, body)
        if attempt != claim.attempt:
            raise InProgressError(_BUSY)
        return claim

    def settle(self, claim: RequestClaim, answer: KeptAnswer, *, seconds: float | None = None) -> None:
        """Keep what was answered; nothing when another run has taken the request over."""
        kept: dict[str, Any] = {"status": answer.status, "media_type": answer.media_type, "body": answer.body}

        def work(transaction: Transaction) -> None:
            transaction.run("settle_request", **_at(claim), **kept, kept_seconds=seconds or KEPT_SECONDS)

        self.database.write(Scope(claim.caller.tenant_id), work)

    def release(self, claim: RequestClaim) -> None:
        """Let the request be tried again: it came to nothing."""
        self.database.write(
            Scope(claim.caller.tenant_id), lambda transaction: transaction.run("release_request", **_at(claim))
        )

    def drop_expired(self) -> None:
        """Forget what is older than it is kept, of every tenant; as rag_owner."""
        self.database.query("drop_all_expired_requests")


def _at(claim: RequestClaim) -> dict[str, Any]:
    return {"principal": claim.caller.principal, "key_hash": claim.key_hash, "attempt": claim.attempt}
