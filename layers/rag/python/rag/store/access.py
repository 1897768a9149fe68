"""Tenants and their API keys."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from rag import keys
from rag.errors import InvalidRequestError, NotAuthorizedError, NotFoundError
from rag.store.collections import DEFAULT_COLLECTION, DEFAULT_LANGUAGE, create_collection
from rag.store.database import Database, Transaction
from rag.types import Caller, EmbeddingSpace, Role


@dataclass(frozen=True, slots=True)
class KeyStore:
    """Reads as the role rag_authorize, which can read this one table and nothing else."""

    database: Database

    def caller(self, key: str) -> Caller:
        """Return whose key it is; NotAuthorizedError when it is malformed, unknown, expired or revoked."""
        key_id, digest = keys.parse(key)
        for tenant_id, stored, role in self.database.query("api_key", key_id=key_id):
            if keys.matches(digest, stored):
                return Caller(tenant_id, f"key:{key_id}", role)
        msg = "the API key is not valid"
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
            transaction.run("create_api_key", key_id=key_id, digest=digest, role=role, name="first")
            create_collection(transaction, self.space, DEFAULT_COLLECTION, DEFAULT_LANGUAGE)

        self.database.write(tenant_id, work)
        return tenant_id, key

    def limit(self, tenant_id: uuid.UUID, *, requests_per_day: int | None, tokens_per_day: int | None) -> None:
        """Set what a tenant may use of the models in a day; None: as the deployment says, 0: any number.

        NotFoundError when there is no such tenant.
        """

        def work(transaction: Transaction) -> bool:
            found = transaction.rows("limit_tenant", requests_per_day=requests_per_day, tokens_per_day=tokens_per_day)
            return bool(found)

        if not self.database.write(tenant_id, work):
            msg = f"there is no tenant {tenant_id}"
            raise NotFoundError(msg)
