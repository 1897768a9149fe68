-- What is erased leaves nothing but the fact: who asked for it, what was removed, and that nothing older may come back.

do $$
begin
  if not exists (select from pg_roles where rolname = 'rag_erase') then
    create role rag_erase login nosuperuser nocreatedb nocreaterole noinherit;
  end if;
  execute format('grant connect on database %I to rag_erase', current_database());
end
$$;
alter role rag_erase set idle_in_transaction_session_timeout = '30s';
alter role rag_erase set lock_timeout = '5s';
-- The chunks of the largest document go in one statement.
alter role rag_erase set statement_timeout = '300s';
grant usage on schema public to rag_erase;

create table erasures (
  tenant_id uuid not null,
  id uuid not null default gen_random_uuid(),
  scope text not null check (scope in ('document', 'collection', 'tenant')),
  collection text,
  document_id uuid,
  key text,
  last_version text,
  requested_by text not null,
  requested_at timestamptz not null default now(),
  finished_at timestamptz,
  removed jsonb not null default '{}' check (jsonb_typeof(removed) = 'object'),
  primary key (tenant_id, id),
  check ((scope = 'tenant') = (collection is null)),
  check ((scope = 'document') = (document_id is not null)),
  check (finished_at is null or (key is null and last_version is null))
);
-- No reference to tenants: the receipt outlives the tenant.
create index erasures_by_place on erasures (tenant_id, collection, document_id);
comment on table erasures is 'Receipts of what was erased, and tombstones: no version from before `requested_at` is indexed again.';
comment on column erasures.key is 'Of the document, while there is work to do: what is erased is not named afterwards.';
comment on column erasures.last_version is 'The newest version in S3 when the erasure was asked for; what is newer stays.';

alter table erasures enable row level security;
alter table erasures force row level security;
create policy of_tenant on erasures to rag_ingest, rag_query
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on erasures for select to rag_backup using (true);
create policy for_admin on erasures to rag_admin using (true) with check (true);
-- It looks for erasures that nobody is at work on before it knows their tenants.
create policy for_erase on erasures to rag_erase using (true) with check (tenant_id = (select app_tenant()));
grant select on erasures to rag_ingest, rag_backup, rag_erase;
grant select, insert on erasures to rag_query, rag_admin;
grant update (removed, finished_at, key, last_version) on erasures to rag_erase;

do $$
declare
  scoped text;
begin
  foreach scoped in array array['collections', 'documents', 'chunks', 'pending_embeddings', 'collection_statistics', 'lexeme_changes', 'ingestions'] loop
    execute format(
      'create policy of_tenant_for_erase on %I to rag_erase using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()))',
      scoped);
  end loop;
end
$$;
create policy of_tenant_for_erase on tenants to rag_erase using (id = (select app_tenant()));
grant select, delete on tenants, collections, documents, chunks, pending_embeddings, ingestions to rag_erase;
grant update (generation) on collections to rag_erase;
grant insert on ingestions, collection_statistics, lexeme_changes to rag_erase;
grant select on embedding_spaces to rag_erase;

create function is_erased(tenant uuid, place text, document uuid, modified_at timestamptz) returns boolean
  language sql stable
  as $$
  select exists (
    select from erasures
    where tenant_id = tenant
      and (collection is null or collection = place and (document_id is null or document_id = document))
      -- S3 tells seconds. Once everything of that second is gone, what there is came later.
      and case when finished_at is null then modified_at <= requested_at else modified_at < date_trunc('second', requested_at) end
  )
$$;
comment on function is_erased is 'Whether a version in S3, last modified then, is older than an erasure of its document, collection or tenant.';
