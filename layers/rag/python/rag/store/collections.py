"""Finding and making collections, inside a transaction of their tenant."""

from __future__ import annotations

import psycopg

from rag.errors import ConflictError, NotFoundError, UnavailableError
from rag.store.database import Transaction
from rag.types import Collection, EmbeddingSpace

DEFAULT_COLLECTION = "default"
DEFAULT_LANGUAGE = "english"


def find_collection(transaction: Transaction, space: EmbeddingSpace, name: str) -> Collection | None:
    """Return the collection, or None; ConflictError when its vectors are of another model than the deployment's."""
    rows = transaction.rows("collection", name=name)
    if not rows:
        return None
    *found, model = rows[0]
    collection = Collection(*found)
    if (model, collection.dimensions) != (space.model, space.dimensions):
        msg = (
            f"the collection {name!r} was embedded by {model} ({collection.dimensions} dimensions), "
            f"this deployment uses {space.model} ({space.dimensions}): set that model again, or use other collections"
        )
        raise ConflictError(msg)
    return collection


def existing_collection(transaction: Transaction, space: EmbeddingSpace, name: str) -> Collection:
    """Return the collection; NotFoundError when there is none."""
    found = find_collection(transaction, space, name)
    if found is None:
        msg = f"there is no collection {name!r}"
        raise NotFoundError(msg)
    return found


def create_collection(transaction: Transaction, space: EmbeddingSpace, name: str, language: str) -> bool:
    """Make a collection in the deployment's embedding space; False when there is one of that name."""
    try:
        new = transaction.rows(
            "create_collection", name=name, language=language, model=space.model, dimensions=space.dimensions
        )
    except psycopg.errors.ForeignKeyViolation as error:
        msg = f"there is no tenant {transaction.tenant_id}"
        raise NotFoundError(msg) from error
    if not new and not transaction.rows("collection", name=name):
        msg = f"the embedding space {space.model} ({space.dimensions}) is not set up: run the migrate function"
        raise UnavailableError(msg)
    return bool(new)
