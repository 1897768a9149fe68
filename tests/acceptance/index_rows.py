"""All that the index holds of a collection, without what differs from run to run: ids, versions and times."""

from __future__ import annotations

from typing import Any

from tests.acceptance.platform_process import PlatformProcess
from tests.lexeme_counts import LEXEME_COUNTS

Rows = dict[str, list[tuple[Any, ...]]]

_QUERIES = {
    "documents": """
        select d.key, d.status, d.content_hash, d.size, d.media_type, d.title, d.chunk_count, d.error_code
        from documents d where d.collection_id = %(collection)s order by d.key""",
    "chunks": """
        select d.key, c.position, c.page, c.heading, c.content, c.content_hash, c.tokens, c.lexical::text, c.lexemes,
          c.lexeme_count
        from chunks c join documents d on d.id = c.document_id
        where c.collection_id = %(collection)s order by d.key, c.position""",
    "embeddings": """
        select d.key, c.position, e.dimensions, e.embedding::text
        from embeddings e join chunks c on c.id = e.chunk_id join documents d on d.id = e.document_id
        where e.collection_id = %(collection)s order by d.key, c.position""",
    "lexemes": f"""
        select lexeme, sum(document_frequency) from {LEXEME_COUNTS} where collection_id = %(collection)s
        group by lexeme having sum(document_frequency) <> 0 order by lexeme""",
    "totals": """
        select sum(document_count), sum(chunk_count), sum(lexeme_count) from collection_statistics
        where collection_id = %(collection)s""",
    "pending": """
        select d.key, p.content_hash from pending_embeddings p join documents d on d.id = p.document_id
        where d.collection_id = %(collection)s""",
}
_RUNS = """
    select key, outcome, chunk_count from ingestions
    where collection_id = %(collection)s and outcome in ('ready', 'failed', 'forgotten') order by key, id"""


def rows_of(platform: PlatformProcess, name: str) -> Rows:
    """By table; two collections with the same documents are equal in it."""
    collection = _collection(platform, name)
    return {table: platform.rows(query, collection) for table, query in _QUERIES.items()}


def ingestions_of(platform: PlatformProcess, name: str) -> list[tuple[Any, ...]]:
    """Every time that a document came to its end: key, outcome, chunks."""
    return platform.rows(_RUNS, _collection(platform, name))


def _collection(platform: PlatformProcess, name: str) -> dict[str, Any]:
    [(found,)] = platform.rows("select id from collections where name = %(name)s", {"name": name})
    return {"collection": found}
