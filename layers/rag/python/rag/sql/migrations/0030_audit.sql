-- Who did what, and which documents were shown: rows that are added, read, and go when their time is over.
-- Nothing was ever written to the table as it was.

alter table audit_log
  drop constraint audit_log_pkey, drop column id, drop column details,
  add column id uuid not null,
  add column role text not null,
  add column outcome smallint not null,
  add column address inet,
  add column details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
  add primary key (tenant_id, id);
create index audit_log_in_order on audit_log (tenant_id, at, id);
-- Whatever the tenant, the oldest go first.
create index audit_log_by_age on audit_log (at);
comment on table audit_log is 'Added to by what acts for a tenant; nobody may change a row, and what is over goes by drop_old_audit alone.';
comment on column audit_log.id is 'Of who writes: a transaction that is repeated after a lost connection adds the row once.';
comment on column audit_log.outcome is 'The status that the request was answered with (RFC 9110).';
comment on column audit_log.address is 'Where the request came from, as the gateway saw it.';

create table audit_documents (
  tenant_id uuid not null,
  audit_id uuid not null,
  document_id uuid not null,
  at timestamptz not null default now(),
  version_id text,
  positions integer[] not null,
  primary key (tenant_id, audit_id, document_id),
  foreign key (tenant_id, audit_id) references audit_log on delete cascade
);
-- No reference to documents: who was shown one is asked when it is gone, too.
create index audit_documents_of_document on audit_documents (tenant_id, document_id, at, audit_id);
comment on table audit_documents is 'Which documents a request was about, and of those that it was shown the places of the passages.';
comment on column audit_documents.version_id is 'The version in S3 that was served; null where the document was not there, or not yet.';

alter table audit_documents enable row level security;
alter table audit_documents force row level security;
create policy of_tenant on audit_documents to rag_query
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on audit_documents for select to rag_backup using (true);
grant select on audit_documents to rag_backup;

-- Time and tenant are not the writer's to choose.
revoke all on audit_log from rag_query;
grant select on audit_log, audit_documents to rag_query;
grant insert (tenant_id, id, principal, role, action, outcome, request_id, address, details) on audit_log to rag_query, rag_admin;
grant insert (tenant_id, audit_id, document_id, version_id, positions) on audit_documents to rag_query;
create policy of_tenant_for_admin on audit_log for insert to rag_admin with check (tenant_id = (select app_tenant()));

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'rows of % are added and never changed', tg_table_name using errcode = 'insufficient_privilege';
end
$$;
comment on function refuse_change is 'For whoever would have the right, the owner too.';
create trigger append_only before update or truncate on audit_log execute function refuse_change();
create trigger append_only before update or truncate on audit_documents execute function refuse_change();

create policy for_definer on audit_log to rag_definer using (true) with check (false);
create policy for_definer on erasures for select to rag_definer using (true);
grant select (tenant_id, id, at), delete on audit_log to rag_definer;
grant select (tenant_id, scope, finished_at) on erasures to rag_definer;
grant create on schema public to rag_definer;

create function drop_old_audit(days integer, most integer) returns bigint
  language sql volatile security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    with old as (
      select tenant_id, id from audit_log where at < now() - make_interval(days => greatest(days, 30)) order by at limit most
    ), gone as (
      delete from audit_log a using old where a.tenant_id = old.tenant_id and a.id = old.id returning a.id
    )
    select count(*) from gone;
  end;
comment on function drop_old_audit is 'Deletes `most` of the rows that are older than so many days, of every tenant; none of the last 30 days, whoever asks.';
alter function drop_old_audit owner to rag_definer;

create function erase_audit(most integer) returns bigint
  language sql volatile security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    with doomed as (
      select tenant_id, id from audit_log
      where tenant_id = (select app_tenant()) and exists (
        select from erasures e where e.tenant_id = (select app_tenant()) and e.scope = 'tenant' and e.finished_at is null
      )
      order by at limit most
    ), gone as (
      delete from audit_log a using doomed where a.tenant_id = doomed.tenant_id and a.id = doomed.id returning a.id
    )
    select count(*) from gone;
  end;
comment on function erase_audit is 'Deletes `most` rows of the tenant of the transaction, where all that the tenant has is to be erased; none otherwise.';
alter function erase_audit owner to rag_definer;

set local role rag_definer;
revoke all on function drop_old_audit, erase_audit from public;
grant execute on function drop_old_audit to rag_owner;
grant execute on function erase_audit to rag_erase;
reset role;
revoke create on schema public from rag_definer;

-- Erasing a person: what the index forgets is the principal's, and no document goes.
alter table erasures add column principal text;
comment on column erasures.principal is 'Whose data is to go, while there is work to do: who is erased is not named afterwards.';
do $$
declare
  checked text;
begin
  for checked in select conname from pg_constraint where conrelid = 'erasures'::regclass and contype = 'c' loop
    execute format('alter table erasures drop constraint %I', checked);
  end loop;
end
$$;
alter table erasures
  add check (scope in ('document', 'collection', 'tenant', 'principal')),
  add check (jsonb_typeof(removed) = 'object'),
  add check ((scope in ('tenant', 'principal')) = (collection is null)),
  add check ((scope = 'document') = (document_id is not null)),
  add check ((scope = 'principal' and finished_at is null) = (principal is not null)),
  add check (finished_at is null or (key is null and last_version is null));
grant update (principal) on erasures to rag_erase;
create or replace function is_erased(tenant uuid, place text, document uuid, modified_at timestamptz) returns boolean
  language sql stable
  as $$
  select exists (
    select from erasures
    where tenant_id = tenant and scope <> 'principal'
      and (collection is null or collection = place and (document_id is null or document_id = document))
      -- S3 tells seconds. Once everything of that second is gone, what there is came later.
      and case when finished_at is null then modified_at <= requested_at else modified_at < date_trunc('second', requested_at) end
  )
$$;
create index feedback_by_principal on feedback (tenant_id, principal);
create policy of_tenant_for_erase on conversations to rag_erase
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy of_tenant_for_erase on feedback to rag_erase
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy of_tenant_for_erase on idempotent_requests to rag_erase
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
grant select, delete on conversations, feedback to rag_erase;
grant select (tenant_id, principal, key_hash), delete on idempotent_requests to rag_erase;
