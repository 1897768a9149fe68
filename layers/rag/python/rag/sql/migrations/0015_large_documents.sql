-- A document too large to hold in memory: its chunks wait here, out of sight, until all of them are embedded.

create table pending_documents (
  tenant_id uuid not null,
  document_id uuid not null,
  version_id text not null,
  chunk_count integer not null default 0,
  complete boolean not null default false,
  embedded_through integer not null default 0,
  embedded_count integer not null default 0,
  content_hash bytea,
  media_type text,
  title text,
  primary key (tenant_id, document_id),
  foreign key (tenant_id, document_id) references documents on delete cascade
);
comment on table pending_documents is 'How far a large document has come; emptied with pending_chunks when it is ready, failed or gone.';
comment on column pending_documents.chunk_count is 'How many of its first chunks are in pending_chunks: all of them once it is `complete`.';
comment on column pending_documents.embedded_through is 'The vectors of so many first chunks are in pending_embeddings; `embedded_count` of them the model was asked for.';

create table pending_chunks (
  tenant_id uuid not null,
  document_id uuid not null,
  position integer not null,
  id uuid not null,
  page integer,
  heading text,
  context text not null,
  content text not null,
  content_hash bytea not null,
  tokens integer not null,
  average_length real not null,
  lexical sparsevec(1000000000) not null,
  lexemes integer[] not null,
  lexeme_count integer not null,
  primary key (tenant_id, document_id, position),
  foreign key (tenant_id, document_id) references pending_documents on delete cascade
);
create index pending_chunks_by_hash on pending_chunks (tenant_id, document_id, content_hash);
comment on table pending_chunks is 'What becomes rows of `chunks` in one transaction, when the document is whole.';

do $$
declare
  scoped text;
begin
  foreach scoped in array array['pending_documents', 'pending_chunks'] loop
    execute format('alter table %I enable row level security', scoped);
    execute format('alter table %I force row level security', scoped);
    execute format(
      'create policy of_tenant on %I to rag_ingest, rag_query using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()))',
      scoped);
    execute format('create policy for_backup on %I for select to rag_backup using (true)', scoped);
    execute format('grant select on %I to rag_backup', scoped);
    execute format('grant select, insert, update, delete on %I to rag_ingest', scoped);
    execute format(
      'create policy of_tenant_for_erase on %I to rag_erase using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()))',
      scoped);
    execute format('grant select, delete on %I to rag_erase', scoped);
  end loop;
end
$$;
grant select on pending_documents to rag_query;
-- What was weighed before the collection's average length changed is left to maintenance.
grant update (reweighing) on collections to rag_ingest;
