"""All that a database holds, but for what differs between equal runs: times, numbers of rows, and what a run cost."""

from __future__ import annotations

from typing import Any

import psycopg

Rows = dict[str, list[tuple[Any, ...]]]

# What an attempt that was cut short saves or spends, or tells of itself.
STORY = {
    "documents": {"attempts", "leased_by", "leased_message", "leased_delivery"},
    "ingestions": {"attempt", "embedded_count", "model_calls", "tokens", "cost_usd"}
    | {f"{stage}_ms" for stage in ("fetch", "parse", "embed", "store")},
}

# Every call to a model counts, also one whose vectors died with the worker.
SPENT = {"model_usage", "caller_usage"}

_COLUMNS = """
    select table_name, column_name from information_schema.columns
    where table_schema = 'public' and data_type not like 'timestamp%' and is_identity = 'NO'
      and coalesce(column_default, '') !~ 'nextval|gen_random_uuid'
    order by table_name, ordinal_position
"""


def all_rows(dsn: str) -> Rows:
    """By table, its rows in an order of their own."""
    with psycopg.connect(dsn) as connection:
        columns: dict[str, list[str]] = {}
        for table, column in connection.execute(_COLUMNS).fetchall():
            if table not in SPENT and column not in STORY.get(table, ()):
                columns.setdefault(table, []).append(f'"{column}"::text')
        return {
            table: connection.execute(
                f'select {", ".join(names)} from "{table}" order by {", ".join(names)}'.encode()
            ).fetchall()
            for table, names in columns.items()
        }


def differing(left: Rows, right: Rows) -> list[str]:
    """The tables that are not equal."""
    return sorted(table for table in left.keys() | right.keys() if left.get(table) != right.get(table))
