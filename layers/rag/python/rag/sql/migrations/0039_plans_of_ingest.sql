-- What every ingest runs, as functions: a session keeps their plans, which for a short document took longer to make than its rows to write.
-- Under the rights and row-level security of who calls them, inside the transaction of the caller.

create function begin_document(
  tenant uuid, document uuid, collection bigint, named text, state text, failure_code text, failure text, version text, bytes bigint,
  allowed text[], lease_seconds double precision, run uuid, message text, delivery integer, place text, modified_at timestamptz
) returns text
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  if is_erased(tenant, place, document, modified_at) then
    return 'settled';
  end if;
  insert into documents as d (
    tenant_id, id, collection_id, key, status, version_id, size, error_code, error_message,
    attempts, leased_until, leased_by, leased_message, leased_delivery, allowed_principals
  ) values (
    tenant, document, collection, named, state, version, bytes, failure_code, failure,
    1, now() + make_interval(secs => lease_seconds), run, message, delivery, allowed
  )
  on conflict (tenant_id, id) do update set
    status = excluded.status, version_id = excluded.version_id, size = excluded.size,
    error_code = excluded.error_code, error_message = excluded.error_message, updated_at = now(),
    attempts = case when d.version_id = excluded.version_id then d.attempts else 0 end + 1,
    unsettled_at = case
      when d.status = 'uploaded' then d.updated_at
      when d.status = 'processing' and d.version_id = excluded.version_id then d.unsettled_at
      else now()
    end,
    requeued_at = case when d.version_id = excluded.version_id then d.requeued_at end,
    leased_until = excluded.leased_until, leased_by = excluded.leased_by,
    leased_message = excluded.leased_message, leased_delivery = excluded.leased_delivery,
    -- Of one that was only announced nobody knew. Else what is there is of the version before, and stays until it goes.
    allowed_principals = case when d.version_id is null then excluded.allowed_principals else d.allowed_principals end
  where d.version_id is distinct from excluded.version_id
    or ((d.status in ('uploaded', 'processing') or d.error_code in ('INTERNAL', 'STUCK', 'BUDGET', 'OUT_OF_MEMORY', 'DISK_FULL'))
      and (coalesce(d.leased_until, '-infinity') <= now() or d.leased_by = excluded.leased_by
        or (d.leased_message = excluded.leased_message and d.leased_delivery < excluded.leased_delivery)));
  if found then
    return 'begun';
  end if;
  return (
    select case
      when status in ('ready', 'failed') and coalesce(error_code, '') not in ('INTERNAL', 'STUCK', 'BUDGET', 'OUT_OF_MEMORY', 'DISK_FULL') then 'settled'
      -- What is only given up for the time being may yet be needed from this message, once that run is over.
      when leased_message = message or status = 'failed' then 'busy'
      else 'duplicate'
    end
    from documents where tenant_id = tenant and id = document
  );
end
$$;
comment on function begin_document is
  'Marks a document as being processed, or as given up: begun. Else why not: this version is settled, another run has this very message (busy) or another one'
  ' (duplicate).';

create function known_embeddings(tenant uuid, document uuid, space smallint, hashes bytea[])
  returns table (content_hash bytea, embedding bytea)
  language plpgsql stable
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  return query
    -- By key: a join would be planned by statistics, and is kept, where the tables were just filled.
    select c.content_hash, halfvec_send(e.embedding) from chunks c, lateral (
      select embedding from embeddings
      where tenant_id = c.tenant_id and space_id = space and chunk_id = c.id
      limit 1
    ) e
    where c.tenant_id = tenant and c.document_id = document and c.content_hash = any (hashes)
    union all
    select p.content_hash, halfvec_send(p.embedding) from pending_embeddings p
    where p.tenant_id = tenant and p.document_id = document and p.space_id = space and p.content_hash = any (hashes);
end
$$;
comment on function known_embeddings is
  'Vectors already paid for: of the document''s version before, and of an attempt that did not end.';

create function finish_document(
  tenant uuid, document uuid, collection bigint, named text, state text, version text, hash bytea, bytes bigint, media text, heading text,
  chunks integer, failure_code text, failure text, said jsonb, said_wrongly text, warned text[], allowed text[], beside text
) returns table (lexeme integer, chunk_count bigint, lexeme_count bigint)
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  return query
    with gone as (
      delete from chunks c where c.tenant_id = tenant and c.document_id = document returning c.lexemes, c.lexeme_count
    ), finished as (
      insert into documents as d (
        tenant_id, id, collection_id, key, status, version_id, content_hash, size, media_type, title, chunk_count, error_code, error_message,
        metadata, metadata_error, warnings, allowed_principals, sidecar_version_id
      ) values (
        tenant, document, collection, named, state, version, hash, bytes, media, heading, finish_document.chunks, failure_code, failure,
        coalesce(said, '{}'), said_wrongly, warned, allowed, beside
      )
      on conflict (tenant_id, id) do update set
        status = excluded.status, version_id = excluded.version_id, content_hash = excluded.content_hash, size = excluded.size,
        media_type = excluded.media_type, title = excluded.title, chunk_count = excluded.chunk_count,
        error_code = excluded.error_code, error_message = excluded.error_message, updated_at = now(),
        metadata = coalesce(said, d.metadata), metadata_error = excluded.metadata_error, warnings = excluded.warnings,
        allowed_principals = excluded.allowed_principals, sidecar_version_id = excluded.sidecar_version_id, leased_until = null
    )
    select null::integer, count(*), coalesce(sum(g.lexeme_count), 0)::bigint from gone g
    union all
    select l.lexeme, count(*), 0::bigint from gone g, unnest(g.lexemes) as l (lexeme) group by l.lexeme;
end
$$;
comment on function finish_document is
  'Removes a document''s chunks and has it say what it is now; returns how many chunks of how many lexemes there were, and in how many each lexeme stood.'
  ' Metadata that cannot be used leaves what was there before.';

create function record_attempt(
  tenant uuid, document uuid, collection bigint, named text, version text, ended text, failure_code text, failure text, chunks integer,
  embedded integer, began timestamptz, fetching integer, parsing integer, embedding integer, calls integer, spent_tokens bigint,
  spent_usd double precision
) returns void
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
begin
  insert into ingestions (
    tenant_id, document_id, collection_id, key, version_id, outcome, error_code, error_message, chunk_count, embedded_count, started_at,
    attempt, fetch_ms, parse_ms, embed_ms, store_ms, model_calls, tokens, cost_usd
  ) values (
    tenant, document, collection, named, version, ended, failure_code, failure, chunks, embedded, began,
    coalesce((select attempts from documents where tenant_id = tenant and id = document), 1),
    fetching, parsing, embedding, extract(epoch from clock_timestamp() - now()) * 1000, calls, spent_tokens, spent_usd
  );
end
$$;
comment on function record_attempt is 'What became of one attempt at a document; the time of the transaction is that of its stage.';

create function record_ingestion(
  tenant uuid, document uuid, collection bigint, changed sparsevec[], more_documents integer, more_chunks integer, more_lexemes bigint,
  place text, modified_at timestamptz
) returns table (average_length real, erased boolean)
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  delete from pending_embeddings where tenant_id = tenant and document_id = document;
  delete from pending_documents where tenant_id = tenant and document_id = document;
  delete from recognised_pages where tenant_id = tenant and document_id = document;
  insert into lexeme_changes (tenant_id, collection_id, changes)
  select tenant, collection, given.changes from unnest(changed) as given (changes);
  insert into collection_statistics (tenant_id, collection_id, document_count, chunk_count, lexeme_count)
  values (tenant, collection, more_documents, more_chunks, more_lexemes);
  return query
    update collections c set generation = c.generation + 1 where c.tenant_id = tenant and c.id = collection
    returning c.average_length, is_erased(tenant, place, document, modified_at);
end
$$;
comment on function record_ingestion is
  'What a document changed in the statistics, and the collection''s next generation; nothing of its checkpoint is left.';

create function unrolled_statistics(tenant uuid, collection bigint) returns table (unrolled bigint, bytes bigint, chunks bigint)
  language plpgsql stable rows 1
  set plan_cache_mode = force_generic_plan
  as $$
begin
  return query
    select count(*),
      coalesce((select sum(pg_column_size(l.changes)) from lexeme_changes l where l.tenant_id = tenant and l.collection_id = collection), 0)::bigint,
      coalesce(sum(s.chunk_count), 0)::bigint
    from collection_statistics s where s.tenant_id = tenant and s.collection_id = collection;
end
$$;
comment on function unrolled_statistics is
  'How many ingests'' rows of statistics there are, how many bytes of them a question would read, and how many chunks.';

revoke execute on function begin_document, known_embeddings, finish_document, record_attempt, record_ingestion, unrolled_statistics from public;
grant execute on function begin_document, known_embeddings, finish_document to rag_ingest;
grant execute on function record_attempt, record_ingestion, unrolled_statistics to rag_ingest, rag_erase;
