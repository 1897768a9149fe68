"""Which messages of a batch may be why its sandbox ended, so that they do so to no other."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from rag.records import named
from rag.types import JSON


class Store(Protocol):
    def under_way(
        self, tenant_id: uuid.UUID, documents: Sequence[uuid.UUID], messages: Sequence[str]
    ) -> dict[uuid.UUID, int]: ...


def suspects(groups: list[list[JSON]], bucket: str, store: Store) -> list[list[JSON]]:
    """Return the groups whose document was under way when a sandbox ended, the least often begun first.

    Of those that were under way together one is the cause: what is innocent is ready before that one is tried again.
    """
    again = [group for group in groups if any(receives(record) > 1 for record in group)]
    documents = {group[0]["messageId"]: _documents(group, bucket) for group in again}
    begun = _begun(again, documents, store)
    tried = {
        message: max((begun[one] for one in found if one in begun), default=0) for message, found in documents.items()
    }
    suspected = [group for group in again if tried[group[0]["messageId"]]]
    return sorted(suspected, key=lambda group: tried[group[0]["messageId"]])


def receives(record: JSON) -> int:
    return int(record["attributes"]["ApproximateReceiveCount"])


Document = tuple[uuid.UUID, uuid.UUID]


def _documents(group: list[JSON], bucket: str) -> set[Document]:
    """Tenant and id of what the messages name."""
    found = set()
    for record in group:
        try:
            places = [one.location for one in named(record["body"], bucket)]
        except ValueError:  # that it is no notification is told when its turn comes
            continue
        found |= {(place.tenant_id, place.document_id) for place in places}
    return found


def _begun(again: list[list[JSON]], documents: dict[str, set[Document]], store: Store) -> dict[Document, int]:
    messages = [record["messageId"] for group in again for record in group]
    of_tenant: defaultdict[uuid.UUID, set[uuid.UUID]] = defaultdict(set)
    for tenant, document in set().union(*documents.values()):
        of_tenant[tenant].add(document)
    return {
        (tenant, document): attempts
        for tenant, ids in of_tenant.items()
        for document, attempts in store.under_way(tenant, list(ids), messages).items()
    }
