"""The catalogue of the migrated database: what isolation stands on holds of every table, policy, function and role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.security.test_rows import ACROSS, BACKUP

# None of them says anything of a tenant.
OF_NO_TENANT = ["embedding_spaces", "reconciliations", "schema_migrations"]
# Who looks past the policy of tenants, at what, besides ACROSS and the backup: (table, role) → why.
EXCEPTIONS = {
    ("conversations", "rag_owner"): "expired ones only",
    ("idempotent_requests", "rag_owner"): "expired ones only",
    ("tenants", "rag_reconcile"): "may make the canary's, and no other",
}
# The functions of rag_definer say themselves what they let out; it cannot log in.
DEFINER = "rag_definer"
# Not of one tenant: sizes, for maintenance; who has something to be told; a trigger, of its row's tenant; what is old.
ACROSS_TENANTS = {"collection_sizes", "tenants_to_notify", "tell_of_document", "drop_old_audit"}
# Shown to a tenant's admins alone, who see every document, and of documents that are gone.
BESIDE_SCOPES = ["audit_documents"]

_TENANT_TABLES = """
    select c.oid, c.relname::text as name, c.relrowsecurity, c.relforcerowsecurity,
      array(
        select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      )
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
"""
_POLICIES = """
    select p.tablename::text, p.policyname::text, r::text, p.cmd, p.permissive = 'PERMISSIVE',
      coalesce(p.qual, '') ~ 'app_tenant\\(\\)',
      case
        when p.cmd in ('SELECT', 'DELETE') then true
        when p.with_check is null then p.cmd <> 'INSERT' and p.qual ~ 'app_tenant\\(\\)'
        else p.with_check ~ 'app_tenant\\(\\)'
      end
    from pg_policies p, unnest(p.roles) r where p.schemaname = 'public'
"""
_DEFINERS = """
    select proname::text, prosrc || coalesce(pg_get_function_sqlbody(oid), '') from pg_proc
    where prosecdef and pronamespace = 'public'::regnamespace
"""
# Rule → rows that break it; the parameter is of tables without a tenant.
RULES = {
    "a role of a function owns nothing, is above nothing, and is in no other role": """
        select rolname::text from pg_roles r
        where rolname like 'rag\\_%%' and rolname <> 'rag_owner' and (
          rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication
          or exists (select from pg_auth_members m where m.member = r.oid)
          or exists (select from pg_class c where c.relowner = r.oid)
          or (rolname <> 'rag_definer' and exists (select from pg_proc p where p.proowner = r.oid))
          or has_schema_privilege(rolname, 'public', 'create'))
    """,
    "the owner is bound by row-level security as well": """
        select rolname::text from pg_roles where rolname = 'rag_owner' and (rolsuper or rolbypassrls)
    """,
    "nobody but the owner may truncate, refer to, or put a trigger on a table": """
        select grantee || ' ' || privilege_type || ' ' || table_name from information_schema.role_table_grants
        where table_schema = 'public' and privilege_type in ('TRUNCATE', 'REFERENCES', 'TRIGGER')
          and grantee <> 'rag_owner'
          and grantee in (select rolname from pg_roles where not rolsuper union select 'PUBLIC')
    """,
    "nothing is granted to everyone": """
        select table_name || ' ' || privilege_type from information_schema.role_table_grants
        where table_schema = 'public' and grantee = 'PUBLIC'
          -- The extension's own.
          and table_name not in (select relname from pg_class c join pg_depend d on d.objid = c.oid and d.deptype = 'e')
    """,
    "a view asks with the rights of who asks it, and no copy of rows is kept in one": """
        select relname::text from pg_class
        where relnamespace = 'public'::regnamespace
          and (relkind = 'm' or relkind = 'v' and not coalesce('security_invoker=true' = any (reloptions), false))
    """,
    "a function with its owner's rights looks names up in a fixed place and is not everyone's": """
        select proname::text from pg_proc p
        where pronamespace = 'public'::regnamespace and prosecdef and (
          not coalesce('search_path=pg_catalog, public, pg_temp' = any (proconfig), false)
          or proacl is null or exists (select from aclexplode(proacl) where grantee = 0)
          or proowner::regrole::text not in ('rag_owner', 'rag_definer'))
    """,
    "a unique index of a tenant's table begins with the tenant": """
        select i.indexrelid::regclass::text
        from pg_index i join pg_class c on c.oid = i.indrelid
        join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
        where c.relnamespace = 'public'::regnamespace and i.indisunique and c.relname <> all (%(none)s)
          and a.attname <> case c.relname when 'tenants' then 'id' else 'tenant_id' end
          -- Administrators give tenants their names.
          and i.indexrelid <> 'tenants_name_key'::regclass
    """,
    "a reference between tenants' tables is of one tenant": """
        select conname::text from pg_constraint k
        join pg_class c on c.oid = k.conrelid join pg_class f on f.oid = k.confrelid
        where k.contype = 'f' and c.relnamespace = 'public'::regnamespace and f.relname <> all (%(none)s)
          and not exists (
            select from unnest(k.conkey, k.confkey) as pair (ours, theirs)
            join pg_attribute o on o.attrelid = k.conrelid and o.attnum = ours and o.attname = 'tenant_id'
            join pg_attribute t on t.attrelid = k.confrelid and t.attnum = theirs
              and t.attname = case f.relname when 'tenants' then 'id' else 'tenant_id' end)
    """,
    "what belongs to a document or a collection is shown to the API by its caller's scope": """
        select c.relname::text from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname <> all (%(beside)s)
          and (c.relname in ('collections', 'documents') or exists (
            select from pg_attribute a
            where a.attrelid = c.oid and a.attname in ('document_id', 'collection_id', 'chunk_id')))
          and has_any_column_privilege('rag_query', c.oid, 'select')
          and not exists (
            select from pg_policies p
            where p.tablename = c.relname and p.permissive = 'RESTRICTIVE' and p.cmd = 'ALL'
              and 'rag_query' = any (p.roles))
    """,
}


# What breaks a rule, and what is named for it.
PLANTED = {
    "create table notes (tenant_id uuid primary key)": "notes",
    "create table counters (id int primary key)": "counters",
    "alter table chunks no force row level security": "chunks",
    "create policy open on chunks for select to rag_query using (true)": ("chunks", "open"),
    "create policy open on chunks for insert to rag_query with check (true)": ("chunks", "open"),
    "drop policy in_scope on chunks": "chunks",
    "grant truncate on chunks to rag_ingest": "rag_ingest TRUNCATE chunks",
    "grant select on chunks to public": "chunks SELECT",
    "grant rag_ingest to rag_query": "rag_query",
    "alter role rag_ingest bypassrls": "rag_ingest",
    "alter role rag_owner bypassrls": "rag_owner",
    "create view shelves as select * from documents": "shelves",
    "create materialized view shelves as select * from documents": "shelves",
    "create function peek() returns bigint language sql security definer as 'select count(*) from chunks'": "peek",
    "create unique index by_key on documents (key)": "by_key",
    "alter table feedback add foreign key (id) references tenants (id)": "feedback_id_fkey",
}


def inspected(connection: psycopg.Connection[Any]) -> tuple[dict[str, int], list[tuple[str, object]]]:
    """How much of each kind there is, and what breaks which rule."""
    violations: list[tuple[str, object]] = []
    tables = connection.execute(_TENANT_TABLES).fetchall()
    for _, name, enabled, forced, columns in tables:
        if (name in OF_NO_TENANT) == ("tenant_id" in columns or name == "tenants"):
            violations.append(("a table is a tenant's or is listed as nobody's", name))
        if name not in OF_NO_TENANT and not (enabled and forced):
            violations.append(("row-level security is on, and for the owner", name))
    policies = connection.execute(_POLICIES.encode()).fetchall()
    for table, policy, role, command, permissive, reads, writes in policies:
        across = table in ACROSS.get(role, ()) or (table, role) in EXCEPTIONS or role == DEFINER
        across |= role == BACKUP and command == "SELECT"
        if permissive and not across and not ((reads or command == "INSERT") and writes):
            violations.append(("a policy names the tenant, of what is read and of what is written", (table, policy)))
    functions = connection.execute(_DEFINERS.encode()).fetchall()
    for function, body in functions:
        if function not in ACROSS_TENANTS and "app_tenant()" not in body:
            violations.append(("a function with its owner's rights asks for the tenant", function))
    for rule, query in RULES.items():
        found = connection.execute(
            query.encode(), {"none": OF_NO_TENANT, "beside": OF_NO_TENANT + BESIDE_SCOPES}
        ).fetchall()
        violations += [(rule, one) for (one,) in found]
    return {"tables": len(tables), "policies": len(policies), "functions": len(functions)}, violations


def test_the_catalogue_keeps_every_rule_of_isolation(database: Any, record_attack: Callable[..., None]) -> None:
    with psycopg.connect(database.superuser_dsn()) as connection:
        found, violations = inspected(connection)
    figure = ", ".join(f"{count} {kind}" for kind, count in found.items())
    record_attack(
        "H2", tried=sum(found.values()) + len(RULES), succeeded=len(violations), figure=f"{figure}; rules broken 0"
    )
    assert violations == []


@pytest.mark.parametrize("change", PLANTED)
def test_what_breaks_a_rule_is_found(module_database: Any, change: str) -> None:
    with psycopg.connect(module_database.superuser_dsn()) as connection:
        connection.execute(change.encode())
        assert PLANTED[change] in [what for _, what in inspected(connection)[1]]
        connection.rollback()
