"""Tenants and their API keys."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rag import keys
from rag.errors import InvalidRequestError, NotAuthorizedError, NotFoundError
from rag.store import keyring
from rag.store.collections import DEFAULT_COLLECTION, DEFAULT_LANGUAGE, create_collection
from rag.store.database import Database, Transaction
from rag.types import Caller, EmbeddingSpace, Role, Scope, TenantSummary, WantedKey

if TYPE_CHECKING:
    from rag.spending import Allowance

# How old the note of a key's last use gets before it is made again.
NOTED_SECONDS = 60
# Of the product itself, in `created_by`.
OPERATOR = "operator"
# Tenants in one answer.
MOST_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class KeyStore:
    """Reads as the role rag_authorize, which can read keys, which tenants there are and what they may, no more."""

    database: Database

    def caller(self, key: str) -> Caller:
        """Return whose key it is; NotAuthorizedError when it is malformed, unknown, expired or revoked.

        That it was used is noted at most once in `NOTED_SECONDS`, by a statement that is told and not waited for.
        """
        key_id, digest = keys.parse(key)
        found = self.database.query("api_key", key_id=key_id, seconds=NOTED_SECONDS)
        for tenant_id, stored, role, collections, groups, due, requests, tenants_requests in found:
            if keys.matches(digest, stored):
                if due:
                    self.database.tell("note_use", tenant=tenant_id, key_id=key_id, seconds=NOTED_SECONDS)
                return Caller(
                    tenant_id,
                    f"key:{key_id}",
                    role,
                    None if collections is None else tuple(collections),
                    tuple(groups),
                    requests_per_minute=requests,
                    tenant_requests_per_minute=tenants_requests,
                )
        msg = "the API key is not valid"
        raise NotAuthorizedError(msg)

    def user(self, named: Caller) -> Caller:
        """Return whom a token names with what the tenant may; NotAuthorizedError when that is not there, or to go."""
        for (requests,) in self.database.query("live_tenant", tenant=named.tenant_id):
            return replace(named, tenant_requests_per_minute=requests)
        msg = "there is no such tenant"
        raise NotAuthorizedError(msg)


@dataclass(frozen=True, slots=True)
class TenantStore:
    """Writes as the role rag_admin."""

    database: Database
    space: EmbeddingSpace

    def create(self, name: str, role: Role = "admin") -> tuple[uuid.UUID, str]:
        """Make a tenant with its first key and an empty collection; return its id and the key, shown this once.

        InvalidRequestError when the name is taken.
        """
        tenant_id = uuid.uuid4()
        key, key_id, digest = keys.new()

        def work(transaction: Transaction) -> None:
            if not transaction.rows("create_tenant", name=name):
                msg = f"there is a tenant named {name!r} already"
                raise InvalidRequestError(msg)
            wanted = WantedKey("first", role)
            transaction.run("create_api_key", **keyring.columns(wanted, key_id, digest, created_by=OPERATOR))
            create_collection(transaction, self.space, DEFAULT_COLLECTION, DEFAULT_LANGUAGE)

        self.database.write(Scope(tenant_id), work)
        return tenant_id, key

    def key(self, tenant_id: uuid.UUID, *, revoke_others: bool) -> str:
        """Make an admin key for a tenant who has none left, and, if so wished, end every other; return it, shown once.

        NotFoundError when there is no such tenant, or it is being erased.
        """
        key, key_id, digest = keys.new()

        def work(transaction: Transaction) -> None:
            if not transaction.rows("live_tenant"):
                msg = f"there is no tenant {tenant_id}"
                raise NotFoundError(msg)
            if revoke_others:
                transaction.run("revoke_keys")
            wanted = WantedKey("made by an operator", "admin")
            transaction.run("create_api_key", **keyring.columns(wanted, key_id, digest, created_by=OPERATOR))

        self.database.write(Scope(tenant_id), work)
        return key

    def page(self, after: str) -> tuple[list[TenantSummary], str | None]:
        """Return the tenants whose names come after this one, and the last name where there may be more."""
        found = [TenantSummary(*row) for row in self.database.query("tenants", after=after, most=MOST_LISTED)]
        return found, found[-1].name if len(found) == MOST_LISTED else None

    def limit(self, tenant_id: uuid.UUID, allowance: Allowance, key_id: str | None = None) -> None:
        """Set what a tenant, or one key of it, may ask and use; NotFoundError when there is no such one."""

        def work(transaction: Transaction) -> bool:
            if key_id is None:
                return bool(transaction.rows("limit_tenant", **asdict(allowance)))
            return bool(transaction.rows("limit_key", key_id=key_id, **asdict(allowance)))

        if not self.database.write(Scope(tenant_id), work):
            msg = f"there is no tenant {tenant_id}" if key_id is None else f"the tenant has no key {key_id}"
            raise NotFoundError(msg)
