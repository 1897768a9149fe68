-- Keys that a tenant's administrators make themselves: how far each reaches, who made it, when it was used last.

alter table api_keys
  add column collections text[] check (cardinality(collections) between 1 and 50 and array_position(collections, null) is null),
  add column groups text[] not null default '{}' check (cardinality(groups) <= 20 and array_position(groups, null) is null),
  add column created_by text not null default '',
  add column last_used_at timestamptz,
  add column lifetime interval,
  add column replaced_by text;
comment on column api_keys.collections is 'The names of those that the key reaches, whether there are any of that name or not; null: all.';
comment on column api_keys.groups is 'Whose documents it may see besides those of everybody in the tenant.';
comment on column api_keys.last_used_at is 'To the minute: what is used all the time is not written all the time.';
comment on column api_keys.lifetime is 'What the key was given at first, and its successor gets: a rotation cuts `expires_at`.';
comment on column api_keys.replaced_by is 'The id of its successor, once it is rotated.';
-- Room for `last_used_at`, so that its updates touch no index.
alter table api_keys set (fillfactor = 70);

-- Administrators reach the keys of their own tenant through the API; what a secret is compared with is the authorizer's alone.
grant select (tenant_id, id, name, role, collections, groups, created_at, created_by, expires_at, lifetime, replaced_by, last_used_at, revoked_at)
  on api_keys to rag_query;
grant insert (tenant_id, id, digest, name, role, collections, groups, created_by, expires_at, lifetime) on api_keys to rag_query;
grant update (expires_at, revoked_at, replaced_by) on api_keys to rag_query;

-- The authorizer may say of a key that it is used now, and nothing else. The statement is sent behind the answer and waited for by nobody
-- (`KeyStore.caller`); it passes a row that another one holds, and its commit does not wait for the disk: a minute lost is no loss.
revoke select on api_keys from rag_authorize;
grant select (tenant_id, id, digest, role, collections, groups, expires_at, revoked_at, last_used_at) on api_keys to rag_authorize;
grant update (last_used_at) on api_keys to rag_authorize;
create policy for_authorize_to_note on api_keys for update to rag_authorize using (true) with check (last_used_at = now());
alter role rag_authorize set synchronous_commit = off;
