"""Finding and making collections, inside a transaction of their tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from rag.errors import ConflictError, NotFoundError, UnavailableError
from rag.store.database import Row, Transaction
from rag.types import Collection, EmbeddingSpace

DEFAULT_COLLECTION = "default"
DEFAULT_LANGUAGE = "english"


def find_collection(transaction: Transaction, space: EmbeddingSpace, name: str) -> Collection | None:
    """Return the collection, or None; ConflictError when its vectors are of another model than the deployment's."""
    rows = transaction.first_rows("collection", name=name)
    return of_this_deployment(space, rows[0]) if rows else None


def only_collection(transaction: Transaction, space: EmbeddingSpace, name: str) -> Collection | None:
    """As `find_collection`, in a transaction that does nothing else."""
    rows = transaction.last_rows("collection", name=name)
    return of_this_deployment(space, rows[0]) if rows else None


def searched_collection(
    transaction: Transaction, name: str, **question: object
) -> tuple[dict[str, Any], Sequence[Row]]:
    """Return what a search says of the collection and of BM25, and its candidates; NotFoundError when there is none."""
    rows = transaction.rows("search", binary=True, name=name, **question)
    if not rows:
        raise _absent(name)
    [(head, *_), *candidates] = rows
    return head, candidates


def of_this_deployment(space: EmbeddingSpace, row: Iterable[Any]) -> Collection:
    """The collection of a row; ConflictError when its vectors are of another model than the deployment's."""
    *columns, model = row
    collection = Collection(*columns)
    if (model, collection.dimensions) != (space.model, space.dimensions):
        msg = (
            f"the collection {collection.name!r} was embedded by {model} ({collection.dimensions} dimensions), "
            f"this deployment uses {space.model} ({space.dimensions}): set that model again, or use other collections"
        )
        raise ConflictError(msg)
    return collection


def existing_collection(transaction: Transaction, space: EmbeddingSpace, name: str) -> Collection:
    """Return the collection; NotFoundError when there is none."""
    found = find_collection(transaction, space, name)
    if found is None:
        raise _absent(name)
    return found


def _absent(name: str) -> NotFoundError:
    return NotFoundError(f"there is no collection {name!r}")


def create_collection(transaction: Transaction, space: EmbeddingSpace, name: str, language: str) -> bool:
    """Make a collection in the deployment's embedding space; False when there is one of that name.

    NotFoundError for a name that is out of the transaction's scope, as for a tenant that is not there.
    """
    try:
        new = transaction.rows(
            "create_collection", name=name, language=language, model=space.model, dimensions=space.dimensions
        )
    except psycopg.errors.ForeignKeyViolation as error:
        msg = f"there is no tenant {transaction.scope.tenant_id}"
        raise NotFoundError(msg) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise _absent(name) from error
    if not new and not transaction.rows("collection", name=name):
        msg = f"the embedding space {space.model} ({space.dimensions}) is not set up: run the migrate function"
        raise UnavailableError(msg)
    return bool(new)
