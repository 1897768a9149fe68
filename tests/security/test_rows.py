"""Rows of another tenant: whatever a transaction says or fails to say, no role of a function reads or changes one."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

pytestmark = pytest.mark.slow

# Which roles look across tenants, at which tables, and what for.
ACROSS: Mapping[str, Mapping[str, str]] = {
    "rag_authorize": {
        "api_keys": "whose key it is, before the tenant is known",
        "tenants": "whether a token's tenant exists",
        "erasures": "whether a token's tenant is being erased",
    },
    "rag_admin": dict.fromkeys(("tenants", "api_keys", "collections", "erasures"), "makes and ends tenants"),
    "rag_reconcile": dict.fromkeys(("tenants", "collections", "documents"), "compares them with the bucket"),
    "rag_erase": {"erasures": "which of them nobody is at work on"},
}
# It reads everything and writes nothing.
BACKUP = "rag_backup"

_TABLES = """
    select c.relname::text, array_agg(a.attname::text order by a.attnum),
      array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum),
      array_agg(a.attnotnull and not a.atthasdef and a.attidentity = '' order by a.attnum),
      array_agg(a.attidentity <> 'a' and a.attgenerated = '' order by a.attnum)
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relrowsecurity
    group by c.relname order by c.relname
"""
_CHECKS = """
    select conrelid::regclass::text, conname from pg_constraint
    where contype in ('c', 'f') and connamespace = 'public'::regnamespace
"""
_ROLES = "select rolname::text from pg_roles where rolname like 'rag\\_%' and rolcanlogin order by 1"
# Of a type without its modifiers; all of them are far from being over.
_VALUES = {
    "uuid": "gen_random_uuid()",
    "text": "md5(random()::text)",
    "bytea": "sha256(random()::text::bytea)",
    "timestamp with time zone": "now() + interval '1 day'",
    "interval": "interval '1 day'",
    "date": "current_date",
    "boolean": "false",
    "jsonb": "'{}'",
    "halfvec": "'[1,2,3]'",
    "sparsevec": "'{1:1}/1000000000'",
    "integer[]": "'{1}'",
    "text[]": "'{one}'",
}
_NUMBER = "1"


@dataclass(frozen=True)
class Table:
    """A table with a row of each tenant; `tenant` is the column that says whose."""

    name: str
    columns: Sequence[str]
    needed: Sequence[str]
    types: Mapping[str, str]

    @property
    def tenant(self) -> str:
        return "id" if self.name == "tenants" else "tenant_id"

    def insert(self, tenant: uuid.UUID, after: str = "") -> str:
        """A row with everything that it must have."""
        columns = dict.fromkeys((self.tenant, *self.needed))
        values = [f"'{tenant}'" if name == self.tenant else self._value(name) for name in columns]
        return f"insert into {self.name} ({', '.join(columns)}) values ({', '.join(values)}) {after}"

    def _value(self, column: str) -> str:
        return _VALUES.get(self.types[column].partition("(")[0], _NUMBER)

    def attempts(self, own: uuid.UUID, foreign: uuid.UUID) -> dict[str, str]:
        """How the foreign row could be read or changed; of what is read the tenants' ids are the rows."""
        key, name = self.tenant, self.name
        changed = next(column for column in reversed(self.columns) if column != key)
        any_row = f"on conflict do nothing returning {key}"
        return {
            "select": f"select {key} from {name}",
            "select where": f"select {key} from {name} where {key} = '{foreign}'",
            "copy to": f"copy (select {key} from {name}) to stdout",
            "copy table to": f"copy {name} ({key}) to stdout",
            **{
                f"update {column}": f"update {name} set {column} = {column} returning {key}"
                for column in (key, changed)
            },
            "update where": f"update {name} set {changed} = {changed} where {key} = '{foreign}' returning {key}",
            "move": f"update {name} set {key} = '{foreign}' where {key} = '{own}' returning {key}",
            "delete": f"delete from {name} returning {key}",
            "delete where": f"delete from {name} where {key} = '{foreign}' returning {key}",
            # Who asks for the row back may see it or is refused; these write it all the same, if they may.
            "insert blindly": self.insert(foreign),
            "move blindly": f"update {name} set {key} = '{foreign}'",
            "insert": self.insert(foreign, f"returning {key}"),
            "insert on conflict": self.insert(foreign, any_row),
            "copy from": f"copy {name} ({', '.join(dict.fromkeys((key, *self.needed)))}) from stdin",
        }


@dataclass(frozen=True)
class Filled:
    database: Any
    tables: Sequence[Table]
    own: uuid.UUID
    foreign: uuid.UUID


@pytest.fixture
def filled(database: Any) -> Filled:
    """Every table has a row of two tenants; what else a row must be is not checked here."""
    tenants = uuid.uuid4(), uuid.uuid4()
    with psycopg.connect(database.superuser_dsn(), autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        for table, constraint in connection.execute(_CHECKS).fetchall():
            connection.execute(
                sql.SQL("alter table {} drop constraint {}").format(*map(sql.Identifier, (table, constraint)))
            )
        tables = []
        for name, columns, types, needed, given in connection.execute(_TABLES).fetchall():
            wanted = [column for column, must, can in zip(columns, needed, given, strict=True) if must and can]
            tables.append(Table(name, columns, wanted, dict(zip(columns, types, strict=True))))
            for tenant in tenants:
                connection.execute(tables[-1].insert(tenant).encode())
    return Filled(database, tables, *tenants)


def touched(connection: psycopg.Connection[Any], statement: str, row: bytes) -> list[str]:
    """The tenants of the rows that it reads or changes; nothing where it is refused."""
    with connection.cursor() as cursor:
        if not statement.startswith("copy "):
            cursor.execute(statement.encode())
            if cursor.description is None:
                return [row.decode().partition("\t")[0]] * cursor.rowcount
            return [str(tenant) for (tenant,) in cursor.fetchall()]
        with cursor.copy(statement.encode()) as copy:
            if statement.endswith("from stdin"):
                copy.write(row)
            else:
                return [tenant for (tenant,) in copy.rows()]
    return [row.decode().partition("\t")[0]]


def bind(connection: psycopg.Connection[Any], tenant: str | None) -> None:
    """All of a tenant, as far as a transaction can say so."""
    said = sql.SQL("begin; select set_config('app.identities', '*', true), set_config('app.collections', '*', true)")
    if tenant is not None:
        said += sql.SQL(", set_config('app.tenant', {}, true)").format(tenant)
    connection.execute(said)


def attempted(
    connection: psycopg.Connection[Any], table: Table, filled: Filled, said: Callable[[], Sequence[str | None]]
) -> Iterator[tuple[str | None, str, list[str]]]:
    """What was said of the tenant, what was tried, and of which tenants the rows were; of each nothing is left."""
    needed = [column for column in table.needed if column != table.tenant]
    row = "\t".join([str(filled.foreign), *("1" for _ in needed)]).encode() + b"\n"
    for name, statement in table.attempts(filled.own, filled.foreign).items():
        for tenant in said():
            bind(connection, tenant)
            try:
                found = touched(connection, statement, row)
            except psycopg.Error:
                found = []
            connection.execute("rollback")
            yield tenant, name, found


def test_no_role_reads_or_changes_a_row_of_another_tenant_whatever_the_transaction_says(
    filled: Filled, record_attack: Callable[..., None], amount: Callable[[str], int]
) -> None:
    own, foreign = filled.own, filled.foreign
    odd = itertools.cycle([None, "", "x", "NULL", f"{own} {foreign}", f"{own}' or true --", str(own).upper()])
    others = amount("settings of the tenant")
    tried, seen, leaks = 0, set(), []

    def said() -> Sequence[str | None]:
        return [*itertools.islice(odd, others), str(own)]

    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        roles = [role for (role,) in connection.execute(_ROLES).fetchall() if role != BACKUP]
    for role in roles:
        with psycopg.connect(filled.database.dsn(role), autocommit=True, prepare_threshold=None) as connection:
            for table in filled.tables:
                if table.name in ACROSS.get(role, ()):
                    continue
                for tenant, name, found in attempted(connection, table, filled, said):
                    tried += 1
                    if str(foreign) in found:
                        leaks.append((role, table.name, tenant, name))
                    if str(own) in found and name == "select":
                        seen.add((role, table.name))
    record_attack(
        "H1",
        tried=tried,
        succeeded=len(leaks),
        figure=f"{len(filled.tables)} tables, {len(roles)} roles, rows of others 0",
    )
    assert leaks == []
    # It would have been seen: of its own tenant each of these roles reads the rows.
    assert {table for role, table in seen if role == "rag_ingest"} >= {
        "documents",
        "chunks",
        "embeddings",
        "notifications",
    }
    assert {table for role, table in seen if role == "rag_query"} >= {
        "documents",
        "chunks",
        "conversations",
        "messages",
    }


# What it is that breaks isolation, and by which attempt it is found.
BREACHES = {
    "create policy open on documents for select to rag_query using (true)": "select",
    "alter table documents disable row level security": "select where",
    "create policy open on feedback for insert to rag_query with check (true)": "insert blindly",
    "grant update on conversations to rag_query;"
    "create policy open on conversations for update to rag_query using (true) with check (true)": "move blindly",
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_row_that_is_let_through_is_found(filled: Filled, breach: str) -> None:
    [table] = [table for table in filled.tables if f" {table.name} " in breach]
    with psycopg.connect(filled.database.superuser_dsn()) as connection:
        connection.execute(breach.encode())
    with psycopg.connect(filled.database.dsn("rag_query"), autocommit=True, prepare_threshold=None) as connection:
        found = list(attempted(connection, table, filled, lambda: [str(filled.own)]))
    assert BREACHES[breach] in {name for _, name, tenants in found if str(filled.foreign) in tenants}
