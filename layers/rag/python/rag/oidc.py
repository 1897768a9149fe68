"""Who may say who somebody is: an issuer of access tokens, and what its claims mean here."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rag.types import Role


class Issuer(BaseModel):
    """One OpenID Connect issuer; a token is accepted for one of its `audiences` or from one of its `client_ids`.

    Both lists are checked where both are given. Which tenant somebody is of is said by a claim, or by the one group
    whose name begins with `tenant_group_prefix`, or is the same for everybody of the issuer (`tenant_id`), who then
    cannot speak for another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, max_length=500)
    audiences: tuple[str, ...] = ()
    client_ids: tuple[str, ...] = ()
    jwks_uri: str = ""
    tenant_claim: str = "tenant_id"
    tenant_group_prefix: str = ""
    tenant_id: uuid.UUID | None = None
    groups_claim: str = "groups"
    roles: dict[str, Role] = Field(default_factory=lambda: {role: role for role in get_args(Role)})
    collections_claim: str = ""
    subject_prefix: str = Field("", max_length=50)
    require: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_meant_for_somebody(self) -> Issuer:
        if not (self.audiences or self.client_ids):
            msg = f"{self.issuer}: name the audiences or the client_ids whose tokens are meant for this API"
            raise ValueError(msg)
        return self

    def is_secure(self) -> bool:
        """Whether keys come over TLS from a host that is named."""
        return all(_is_https(url) for url in (self.issuer, self.jwks_uri) if url)


def check_together(issuers: Sequence[Issuer]) -> None:
    """ValueError where one issuer is named twice, or where two could make the same user of one tenant."""
    for number, one in enumerate(issuers):
        for other in issuers[:number]:
            if one.issuer == other.issuer:
                msg = f"{one.issuer} is named twice"
                raise ValueError(msg)
            apart = one.tenant_id and other.tenant_id and one.tenant_id != other.tenant_id
            if one.subject_prefix == other.subject_prefix and not apart:
                msg = f"give {one.issuer} and {other.issuer} a different subject_prefix: each numbers its users itself"
                raise ValueError(msg)


def _is_https(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and bool(parts.hostname) and not (parts.query or parts.fragment)
