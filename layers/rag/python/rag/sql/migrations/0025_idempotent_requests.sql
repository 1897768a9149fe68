-- Requests that name themselves (Idempotency-Key): asked again, they are answered as they were, and do nothing again.

create table idempotent_requests (
  tenant_id uuid not null references tenants on delete cascade,
  principal text not null,
  key_hash bytea not null,
  request_hash bytea not null,
  attempt uuid not null,
  leased_until timestamptz not null,
  status smallint check (status between 200 and 299),
  media_type text,
  body bytea,
  expires_at timestamptz not null,
  primary key (tenant_id, principal, key_hash)
);
create index idempotent_requests_by_expiry on idempotent_requests (tenant_id, expires_at);
comment on table idempotent_requests is 'Each for the principal that asked, and for a day; of the key that names it only the SHA-256.';
comment on column idempotent_requests.request_hash is 'SHA-256 of method, path, query and body: another request under the same name is refused.';
comment on column idempotent_requests.attempt is 'Who is at work on it; who was taken over from keeps nothing.';
comment on column idempotent_requests.leased_until is 'A run that was killed blocks no longer than this.';
comment on column idempotent_requests.status is 'Null while it is worked on. What came to nothing is not kept: asked again, it is tried again.';
comment on column idempotent_requests.body is 'Null where what was answered is shown only once.';

alter table idempotent_requests enable row level security;
alter table idempotent_requests force row level security;
create policy of_tenant on idempotent_requests to rag_query
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on idempotent_requests for select to rag_backup using (true);
create policy of_expired_for_owner on idempotent_requests to rag_owner using (expires_at <= now());
grant select on idempotent_requests to rag_backup;
grant select, insert, update, delete on idempotent_requests to rag_query;
