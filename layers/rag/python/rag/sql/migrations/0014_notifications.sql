-- What is to be told of documents that have become ready or failed: an outbox, written by whoever writes the document.

create table notifications (
  tenant_id uuid not null,
  id uuid not null default gen_random_uuid(),
  document_id uuid not null,
  collection text not null,
  key text not null,
  version_id text,
  status text not null check (status in ('ready', 'failed')),
  error_code text,
  error_message text,
  chunk_count integer not null,
  uploaded_at timestamptz not null,
  settled_at timestamptz not null default now(),
  due_at timestamptz not null,
  provisional boolean not null default false,
  on_bus boolean not null default false,
  attempts integer not null default 0,
  primary key (tenant_id, id),
  -- Nothing is told of what is gone.
  foreign key (tenant_id, document_id) references documents on delete cascade
);
create index notifications_by_document on notifications (tenant_id, document_id);
comment on table notifications is 'Told at least once and then gone: a row is there from the commit that it tells of until the bus, and the webhook where there is one, have taken it.';
comment on column notifications.due_at is 'When it is told next: put off while somebody is at it, and after each failure.';
comment on column notifications.provisional is
  'The run that wrote it is still at work on the document: what becomes of that takes its place, unless the run is killed.';
comment on column notifications.on_bus is 'The bus has it; the webhook has not yet.';

alter table notifications enable row level security;
alter table notifications force row level security;
create policy of_tenant on notifications to rag_ingest
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on notifications for select to rag_backup using (true);
create policy for_definer on notifications to rag_definer using (true) with check (true);
grant select on notifications to rag_backup;
grant select, update, delete on notifications to rag_ingest;
grant select, insert, delete on notifications to rag_definer;
grant select (name) on collections to rag_definer;

grant create on schema public to rag_definer;

create function tell_of_document() returns trigger
  language plpgsql security definer
  set search_path = pg_catalog, public, pg_temp
  as $$
declare
  running boolean := coalesce(new.leased_until > now(), false);
begin
  delete from notifications
  where tenant_id = new.tenant_id and document_id = new.id and provisional and due_at > now();
  insert into notifications (
    tenant_id, document_id, collection, key, version_id, status, error_code, error_message, chunk_count, uploaded_at,
    due_at, provisional
  )
  select new.tenant_id, new.id, c.name, new.key, new.version_id, new.status, new.error_code, left(new.error_message, 1000),
    new.chunk_count, new.created_at, case when running then new.leased_until else now() end, running
  from collections c where c.tenant_id = new.tenant_id and c.id = new.collection_id;
  return null;
end
$$;
comment on function tell_of_document is 'Whoever writes a final state writes its notification: no path through the code can forget it.';
alter function tell_of_document owner to rag_definer;

create function tenants_to_notify() returns table (tenant_id uuid, due bigint, oldest timestamptz)
  language sql stable security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    select n.tenant_id, count(*) filter (where n.due_at <= now()), min(n.settled_at) from notifications n
    where not n.provisional or n.due_at <= now()
    group by n.tenant_id order by min(n.due_at);
  end;
comment on function tenants_to_notify is
  'Which tenants'' documents are still to be told of, how many are due, and since when the oldest waits; nothing of what they are.';
alter function tenants_to_notify owner to rag_definer;
-- Asked for again, a document waits anew, and no message that is among the dead letters has it any more.
grant update (unsettled_at, attempts, leased_message) on documents to rag_definer;
set local role rag_definer;
create or replace function retry_document(wanted uuid) returns boolean
  language sql volatile security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    update documents set
      status = 'uploaded', error_code = null, error_message = null, updated_at = now(), unsettled_at = now(),
      attempts = 0, leased_message = 'retry'
    where tenant_id = (select app_tenant()) and id = wanted and status = 'failed'
    returning true;
  end;
revoke all on function tell_of_document, tenants_to_notify from public;
grant execute on function tell_of_document, tenants_to_notify to rag_ingest;
-- A trigger's function is run by whoever fires it; who makes the trigger must be allowed to.
grant execute on function tell_of_document to rag_owner;
reset role;
revoke create on schema public from rag_definer;

create trigger tell_of_new_document after insert on documents
  for each row when (new.status in ('ready', 'failed')) execute function tell_of_document();
create trigger tell_of_document after update on documents
  for each row when (
    new.status in ('ready', 'failed')
    and (old.status, old.version_id, old.error_code, old.error_message)
      is distinct from (new.status, new.version_id, new.error_code, new.error_message)
  ) execute function tell_of_document();
