-- Tables, roles and row-level security (docs/architecture.md, "Data").
-- Run as rag_owner, which owns everything here and reads nothing: FORCE applies to it too.

create extension if not exists vector;

-- Roles. Each function connects as its own; passwords are set by the migrate function, never here.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['rag_ingest', 'rag_query', 'rag_authorize', 'rag_admin', 'rag_backup'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      execute format('create role %I login nosuperuser nocreatedb nocreaterole noinherit', wanted);
    end if;
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', wanted, '30s');
    execute format('alter role %I set lock_timeout = %L', wanted, '5s');
    execute format('grant connect on database %I to %I', current_database(), wanted);
    execute format('grant usage on schema public to %I', wanted);
  end loop;
end
$$;
alter role rag_ingest set statement_timeout = '60s';
alter role rag_query set statement_timeout = '8s';
alter role rag_authorize set statement_timeout = '5s';
revoke create on schema public from public;

create function app_tenant() returns uuid
  language sql stable parallel safe
  return nullif(current_setting('app.tenant', true), '')::uuid;
comment on function app_tenant is 'The tenant of this transaction; null, and so no row at all, when none was set.';

create table embedding_spaces (
  id smallint generated always as identity primary key,
  model text not null,
  dimensions smallint not null check (dimensions between 1 and 4000),
  unique (model, dimensions),
  unique (id, dimensions)
);
comment on table embedding_spaces is 'Which model made a vector, and its width: vectors of two spaces are never compared.';

create table tenants (
  id uuid primary key default gen_random_uuid(),
  name text not null unique check (length(name) between 1 and 200),
  created_at timestamptz not null default now()
);

create table api_keys (
  tenant_id uuid not null references tenants on delete cascade,
  id text not null check (length(id) = 8),
  digest bytea not null check (length(digest) = 32),
  role text not null check (role in ('reader', 'writer', 'admin')),
  name text not null default '',
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  primary key (tenant_id, id)
);
create index api_keys_by_id on api_keys (id);
comment on column api_keys.digest is 'sha256 of the secret, which is random and 256 bits wide; the secret itself is stored nowhere.';

create table collections (
  tenant_id uuid not null references tenants on delete cascade,
  id bigint generated always as identity,
  name text not null check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  language text not null default 'english',
  space_id smallint not null references embedding_spaces,
  average_length real not null default 100 check (average_length > 0),
  generation bigint not null default 0,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id),
  unique (tenant_id, name)
);
comment on column collections.average_length is
  'Lexemes per chunk that BM25 divides by: one number for all chunks of the collection, so that equal documents have equal rows whatever came before them.';
comment on column collections.generation is 'Grows with every committed change of the collection.';

create table documents (
  tenant_id uuid not null,
  id uuid not null,
  collection_id bigint not null,
  key text not null check (length(key) between 1 and 1024),
  status text not null check (status in ('uploaded', 'processing', 'ready', 'failed')),
  version_id text,
  content_hash bytea,
  size bigint,
  media_type text,
  title text,
  chunk_count integer not null default 0,
  error_code text,
  error_message text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (tenant_id, id),
  unique (tenant_id, collection_id, key),
  foreign key (tenant_id, collection_id) references collections on delete cascade,
  check ((status = 'ready') <= (chunk_count > 0)),
  check ((status = 'failed') = (error_code is not null))
);
comment on column documents.version_id is
  'The version in S3 that `status` speaks of; the chunks of the one before serve until this one is ready or itself at fault.';

create table chunks (
  tenant_id uuid not null,
  id uuid not null,
  collection_id bigint not null,
  document_id uuid not null,
  position integer not null check (position >= 0),
  page integer check (page > 0),
  heading text,
  content text not null check (content <> ''),
  content_hash bytea not null check (length(content_hash) = 32),
  tokens integer not null check (tokens > 0),
  lexical sparsevec(1000000000) not null,
  lexemes integer[] not null,
  lexeme_count integer not null check (lexeme_count >= 0),
  primary key (tenant_id, id),
  unique (tenant_id, document_id, position),
  foreign key (tenant_id, document_id) references documents on delete cascade
);
-- What every search reads stays in the row; the text, which only hits need, is what moves out of a long one.
alter table chunks alter column lexical set storage main;
create index chunks_by_collection on chunks (tenant_id, collection_id);
comment on column chunks.lexical is 'BM25 weight of each lexeme; its inner product with the idf of a question is the BM25 score.';
comment on column chunks.content_hash is 'sha256 of the text that was embedded (context and content): equal hashes, equal vectors.';

create table embeddings (
  tenant_id uuid not null,
  space_id smallint not null,
  chunk_id uuid not null,
  collection_id bigint not null,
  document_id uuid not null,
  dimensions smallint not null,
  embedding halfvec not null,
  primary key (tenant_id, chunk_id, space_id),
  foreign key (tenant_id, chunk_id) references chunks on delete cascade,
  foreign key (space_id, dimensions) references embedding_spaces (id, dimensions),
  check (vector_dims(embedding) = dimensions)
);
-- Inline: a vector of more than 2 kB would otherwise be fetched from TOAST row by row, 2.5 times slower to scan.
alter table embeddings alter column embedding set storage plain;
create index embeddings_by_collection on embeddings (tenant_id, collection_id, space_id);

create table pending_embeddings (
  tenant_id uuid not null,
  document_id uuid not null,
  space_id smallint not null,
  content_hash bytea not null,
  embedding halfvec not null,
  primary key (tenant_id, document_id, space_id, content_hash),
  foreign key (tenant_id, document_id) references documents on delete cascade
);
alter table pending_embeddings alter column embedding set storage plain;
comment on table pending_embeddings is 'Checkpoint of a document that is being embedded: paid for, not yet visible. Emptied when the document is ready, failed or gone.';

create table lexeme_statistics (
  tenant_id uuid not null,
  collection_id bigint not null,
  lexeme integer not null,
  id bigint generated by default as identity,
  document_frequency integer not null,
  primary key (tenant_id, collection_id, lexeme, id),
  foreign key (tenant_id, collection_id) references collections on delete cascade
);
comment on table lexeme_statistics is 'In how many chunks a lexeme stands: the sum over its rows. Changes are appended, so that no two ingests wait for one row, and rolled up later.';

create table collection_statistics (
  tenant_id uuid not null,
  collection_id bigint not null,
  id bigint generated always as identity,
  document_count integer not null,
  chunk_count integer not null,
  lexeme_count bigint not null,
  primary key (tenant_id, collection_id, id),
  foreign key (tenant_id, collection_id) references collections on delete cascade
);
comment on table collection_statistics is 'How much a collection holds: the sum over its rows, appended and rolled up like lexeme_statistics.';

create table ingestions (
  tenant_id uuid not null,
  id bigint generated always as identity,
  document_id uuid not null,
  collection_id bigint not null,
  key text not null,
  version_id text,
  outcome text not null check (outcome in ('ready', 'failed', 'forgotten')),
  error_code text,
  chunk_count integer not null default 0,
  embedded_count integer not null default 0,
  started_at timestamptz not null,
  finished_at timestamptz not null default now(),
  primary key (tenant_id, id),
  foreign key (tenant_id, collection_id) references collections on delete cascade
);
create index ingestions_by_document on ingestions (tenant_id, document_id, id);

create table conversations (
  tenant_id uuid not null references tenants on delete cascade,
  id uuid not null default gen_random_uuid(),
  principal text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (tenant_id, id)
);

create table messages (
  tenant_id uuid not null,
  conversation_id uuid not null,
  position integer not null,
  role text not null check (role in ('user', 'assistant')),
  content text not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, conversation_id, position),
  foreign key (tenant_id, conversation_id) references conversations on delete cascade
);

create table feedback (
  tenant_id uuid not null references tenants on delete cascade,
  id uuid not null default gen_random_uuid(),
  request_id text not null,
  principal text not null,
  rating smallint not null check (rating between -1 and 1),
  comment text not null default '',
  created_at timestamptz not null default now(),
  primary key (tenant_id, id)
);

create table audit_log (
  tenant_id uuid not null references tenants on delete cascade,
  id bigint generated always as identity,
  at timestamptz not null default now(),
  principal text not null,
  action text not null,
  request_id text not null,
  details jsonb not null default '{}',
  primary key (tenant_id, id)
);

-- Row-level security on every tenant table, for the owner as well.
do $$
declare
  scoped text;
  tenant_column text;
begin
  foreach scoped in array array[
    'tenants', 'api_keys', 'collections', 'documents', 'chunks', 'embeddings', 'pending_embeddings', 'lexeme_statistics',
    'collection_statistics', 'ingestions', 'conversations', 'messages', 'feedback', 'audit_log'
  ] loop
    tenant_column := case scoped when 'tenants' then 'id' else 'tenant_id' end;
    execute format('alter table %I enable row level security', scoped);
    execute format('alter table %I force row level security', scoped);
    execute format(
      'create policy of_tenant on %1$I to rag_ingest, rag_query using (%2$I = (select app_tenant())) with check (%2$I = (select app_tenant()))',
      scoped, tenant_column);
    execute format('create policy for_backup on %I for select to rag_backup using (true)', scoped);
    execute format('grant select on %I to rag_backup', scoped);
  end loop;
end
$$;
grant select on embedding_spaces to rag_ingest, rag_query, rag_backup;

-- The authorizer looks a key up before it knows the tenant; the administrator makes tenants and their keys.
create policy for_authorize on api_keys for select to rag_authorize using (true);
grant select on api_keys to rag_authorize;
create policy for_admin on tenants to rag_admin using (true) with check (true);
create policy for_admin on api_keys to rag_admin using (true) with check (true);
create policy for_admin on collections to rag_admin using (true) with check (true);
grant select, insert on tenants, collections to rag_admin;
grant select on embedding_spaces to rag_admin;
grant select, insert on api_keys to rag_admin;
grant update (expires_at, revoked_at) on api_keys to rag_admin;

grant select on tenants to rag_ingest;
grant select, insert on collections to rag_ingest;
grant update (generation) on collections to rag_ingest;
grant select, insert, update, delete on documents, chunks, embeddings, pending_embeddings to rag_ingest;
grant select, insert, delete on lexeme_statistics, collection_statistics to rag_ingest;
grant update (document_frequency) on lexeme_statistics to rag_ingest;
grant select, insert on ingestions to rag_ingest;

grant select on documents, chunks, embeddings, lexeme_statistics, collection_statistics, ingestions to rag_query;
grant select, insert on collections to rag_query;
grant select, insert, delete on conversations, messages to rag_query;
grant select, insert on feedback to rag_query;
grant insert on audit_log to rag_query;
