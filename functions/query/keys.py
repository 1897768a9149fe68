"""Routes for the API keys of one's tenant, which its administrators make, rotate and revoke."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from functions.query import idempotency, schemas
from functions.query.auditing import Audit
from functions.query.callers import Admin
from rag import wiring
from rag.types import ApiKey, KeyStatus, Role, WantedKey

router = APIRouter()

LONGEST_DAYS = 3650


def _printable(text: str) -> str:
    if not text.isprintable():
        msg = "must be printable characters"
        raise ValueError(msg)
    return text


def _distinct(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


KeyId = Annotated[str, Path(pattern="^[0-9A-Za-z]{8}$", description="What stands between `rag_` and the dot.")]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_printable)
]
Group = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128), AfterValidator(_printable)
]


class KeyRequest(schemas.Body):
    """Without `collections` the key reaches all that its maker reaches; it lives on until it ends or is revoked."""

    name: Name
    role: Role = "reader"
    collections: (
        Annotated[list[schemas.CollectionName], Field(min_length=1, max_length=50), AfterValidator(_distinct)] | None
    ) = None
    groups: Annotated[list[Group], Field(max_length=20), AfterValidator(_distinct)] = Field([])
    expires_in_days: Annotated[int, Field(ge=1, le=LONGEST_DAYS)] | None = None
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _ends_once(self) -> Self:
        if self.expires_in_days is not None and self.expires_at is not None:
            raise PydanticCustomError("expiry", "give expires_in_days or expires_at, not both")
        now = datetime.now(UTC)
        if self.expires_at is not None and not now < self.expires_at <= now + timedelta(days=LONGEST_DAYS):
            raise PydanticCustomError("expiry", "expires_at must be a time of the next ten years")
        return self

    @property
    def wanted(self) -> WantedKey:
        ends = self.expires_at
        if self.expires_in_days is not None:
            ends = datetime.now(UTC) + timedelta(days=self.expires_in_days)
        collections = None if self.collections is None else tuple(self.collections)
        return WantedKey(self.name, self.role, collections, tuple(self.groups), ends)


class RotationRequest(schemas.Body):
    """How long the old key lives beside its successor, so that nobody is locked out on the way: 30 days at most."""

    overlap_hours: Annotated[int, Field(ge=0, le=720)] = 24


class KeyBody(BaseModel):
    """A key, but never its secret; `prefix` is what the key begins with."""

    id: str
    prefix: str
    name: str
    role: Role
    collections: list[str] | None
    groups: list[str]
    status: KeyStatus
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None

    @classmethod
    def of(cls, key: ApiKey) -> KeyBody:
        return cls.model_validate({"prefix": f"rag_{key.id}"} | {name: getattr(key, name) for name in ApiKey.__slots__})


class NewKeyBody(KeyBody):
    """With the key itself, in the one answer that has it."""

    api_key: str

    @classmethod
    def shown(cls, key: ApiKey, secret: str) -> NewKeyBody:
        return cls(**dict(KeyBody.of(key)), api_key=secret)


class KeyList(BaseModel):
    keys: list[KeyBody]


@router.get("/v1/keys")
async def list_keys(who: Admin) -> KeyList:
    """List API keys, the live ones first; of those that have ended the latest."""
    return KeyList(keys=[KeyBody.of(key) for key in wiring.keyring().listed(who)])


@router.post("/v1/keys", status_code=201)
async def create_key(request: Request, body: KeyRequest, who: Admin, trail: Audit) -> NewKeyBody:
    """Make an API key; `api_key` is shown in this answer and never again."""
    idempotency.keep(request, shown_once=True)
    made, secret = wiring.keyring().create(who, body.wanted)
    trail.told(key_id=made.id)
    return NewKeyBody.shown(made, secret)


@router.delete("/v1/keys/{key_id}")
async def revoke_key(key_id: KeyId, who: Admin) -> KeyBody:
    """Revoke an API key: it is refused from now on; 409 for the tenant's last one that can manage the others."""
    return KeyBody.of(wiring.keyring().revoke(who, key_id))


@router.post("/v1/keys/{key_id}/rotate", status_code=201)
async def rotate_key(
    request: Request, key_id: KeyId, who: Admin, trail: Audit, body: RotationRequest | None = None
) -> NewKeyBody:
    """Make a key's successor with the same scopes; the old key ends `overlap_hours` later."""
    idempotency.keep(request, shown_once=True)
    hours = (body or RotationRequest()).overlap_hours
    made, secret = wiring.keyring().rotate(who, key_id, overlap_hours=hours)
    trail.told(successor=made.id)
    return NewKeyBody.shown(made, secret)
