"""The API keys of one tenant, as its administrators manage them."""

from __future__ import annotations

from dataclasses import dataclass

from rag import keys
from rag.errors import ConflictError, ForbiddenError, NotFoundError
from rag.store.database import Database, Transaction
from rag.types import ApiKey, Caller, Scope, WantedKey

# Live ones of a tenant; one that a successor stands in for does not count.
MOST_LIVE = 50
# In one answer, the live ones first.
MOST_LISTED = 500


def columns(wanted: WantedKey, key_id: str, digest: bytes, *, created_by: str) -> dict[str, object]:
    """What `create_api_key` writes."""
    return {
        "key_id": key_id,
        "digest": digest,
        "name": wanted.name,
        "role": wanted.role,
        "collections": None if wanted.collections is None else list(wanted.collections),
        "groups": list(wanted.groups),
        "created_by": created_by,
        "expires_at": wanted.expires_at,
    }


@dataclass(frozen=True, slots=True)
class Keyring:
    """Reads and writes as the role rag_query, which cannot read what a secret is compared with.

    A caller who is limited to collections sees, and gives away, nothing beyond them.
    """

    database: Database

    def listed(self, who: Caller) -> list[ApiKey]:
        """Return the latest `MOST_LISTED`, those that have ended too."""
        return self.database.read(Scope.of(who), _keys)

    def create(self, who: Caller, wanted: WantedKey) -> tuple[ApiKey, str]:
        """Make a key and return it with its secret, which is stored nowhere.

        ForbiddenError when it names a collection that the caller does not reach; ConflictError at `MOST_LIVE` keys.
        """
        key, key_id, digest = keys.new()
        collections = _within(who, wanted.collections)
        row = columns(wanted, key_id, digest, created_by=who.principal) | {"collections": collections}

        def work(transaction: Transaction) -> ApiKey:
            transaction.run("lock_keys")
            # A run that was repeated, because its end was not heard of, has nothing left to do.
            if not _keys(transaction, key_id):
                [(live, _)] = transaction.rows("count_keys", but=key_id)
                if live >= MOST_LIVE:
                    msg = f"the tenant has {live} live keys, and {MOST_LIVE} are the limit: revoke what nobody uses"
                    raise ConflictError(msg)
                transaction.run("create_api_key", **row)
            return _key(transaction, key_id)

        return self.database.write(Scope.of(who), work), key

    def revoke(self, who: Caller, key_id: str) -> ApiKey:
        """End a key now; one that has ended stays as it is.

        NotFoundError for an absent, a foreign and an unreachable one alike. ConflictError when a key is used to end
        the last one that can manage all others: a user with the role admin may, and can make another.
        """

        def work(transaction: Transaction) -> ApiKey:
            transaction.run("lock_keys")
            found = _key(transaction, key_id)
            [(_, admins)] = transaction.rows("count_keys", but=key_id)
            if found.status == "live" and _manages_all(found) and not admins and who.principal.startswith("key:"):
                msg = (
                    "this is the last live admin key of the tenant: create another one first (role admin, all "
                    "collections), or rotate this one"
                )
                raise ConflictError(msg)
            transaction.run("revoke_key", key_id=key_id)
            return _key(transaction, key_id)

        return self.database.write(Scope.of(who), work)

    def rotate(self, who: Caller, key_id: str, *, overlap_hours: int) -> tuple[ApiKey, str]:
        """Make a successor that may do the same, and end the old key in so many hours; both live until then.

        NotFoundError as `revoke`; ConflictError when the key has ended, or has a live successor already.
        """
        key, successor, digest = keys.new()

        def work(transaction: Transaction) -> ApiKey:
            transaction.run("lock_keys")
            old = _key(transaction, key_id)
            if old.replaced_by == successor:
                return _key(transaction, successor)
            if old.status != "live":
                msg = f"this key is {old.status}: create a new one"
                raise ConflictError(msg)
            if old.replaced_by and _key(transaction, old.replaced_by).status == "live":
                msg = f"this key is being replaced by {old.replaced_by} already: rotate or revoke that one"
                raise ConflictError(msg)
            transaction.run("succeed_key", key_id=key_id, successor=successor, digest=digest, created_by=who.principal)
            transaction.run("retire_key", key_id=key_id, successor=successor, overlap_hours=overlap_hours)
            return _key(transaction, successor)

        return self.database.write(Scope.of(who), work), key


def _keys(transaction: Transaction, key_id: str | None = None) -> list[ApiKey]:
    return [ApiKey(*row) for row in transaction.rows("api_keys", key_id=key_id, most=MOST_LISTED)]


def _key(transaction: Transaction, key_id: str) -> ApiKey:
    found = _keys(transaction, key_id)
    if not found:
        msg = f"there is no API key {key_id}"
        raise NotFoundError(msg)
    return found[0]


def _manages_all(key: ApiKey) -> bool:
    return key.role == "admin" and key.collections is None


def _within(who: Caller, wanted: tuple[str, ...] | None) -> list[str] | None:
    """The collections of a new key; one that names none reaches what its maker reaches."""
    if who.collections is None or wanted is None:
        reached = wanted if who.collections is None else who.collections
        return None if reached is None else list(reached)
    beyond = sorted(set(wanted) - set(who.collections))
    if beyond:
        msg = f"your credential does not reach {', '.join(beyond)}, and can give away no more than it has"
        raise ForbiddenError(msg)
    return list(wanted)
