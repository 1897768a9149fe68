-- Bucket and index are compared by a function of its own, which sees of every tenant which versions are where, and no content.

do $$
begin
  if not exists (select from pg_roles where rolname = 'rag_reconcile') then
    create role rag_reconcile login nosuperuser nocreatedb nocreaterole noinherit;
  end if;
  alter role rag_reconcile set idle_in_transaction_session_timeout = '30s';
  alter role rag_reconcile set lock_timeout = '5s';
  alter role rag_reconcile set statement_timeout = '60s';
  execute format('grant connect on database %I to rag_reconcile', current_database());
  grant usage on schema public to rag_reconcile;
end
$$;

-- In the order in which S3 lists keys: that of their UTF-8.
create index documents_by_key on documents (tenant_id, collection_id, key collate "C");
create index documents_unsettled on documents (unsettled_at) where status in ('uploaded', 'processing');

create table reconciliations (
  bucket text primary key,
  after_key text not null default '',
  began_at timestamptz,
  ended_at timestamptz,
  running_until timestamptz,
  compared bigint not null default 0,
  missing bigint not null default 0,
  outdated bigint not null default 0,
  orphaned bigint not null default 0
);
comment on table reconciliations is
  'How far the comparison of a bucket with the index has come: what it counted so far is of the pass that began at `began_at`, and the next run goes on after `after_key`.';
grant select, insert, update on reconciliations to rag_reconcile;

create policy for_reconcile on tenants for select to rag_reconcile using (true);
create policy for_reconcile on collections for select to rag_reconcile using (true);
create policy for_reconcile on documents for select to rag_reconcile using (true);
create policy for_reconcile_to_settle on documents for update to rag_reconcile
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_reconcile_to_tell on ingestions for insert to rag_reconcile with check (tenant_id = (select app_tenant()));
grant select (id) on tenants to rag_reconcile;
grant select (tenant_id, id, name) on collections to rag_reconcile;
grant select (
  tenant_id, id, collection_id, key, version_id, status, updated_at, unsettled_at, requeued_at, leased_until, attempts
) on documents to rag_reconcile;
grant update (status, error_code, error_message, updated_at, requeued_at) on documents to rag_reconcile;
grant insert on ingestions to rag_reconcile;

-- Whose document proves that what is uploaded becomes searchable.
create policy for_canary on tenants for insert to rag_reconcile with check (id = '0caa4a00-0000-4000-8000-000000000000');
grant insert (id, name) on tenants to rag_reconcile;
