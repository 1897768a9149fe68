-- What ingests changed in the frequencies of lexemes are arrays, in which a question finds its lexeme by bisection: of a sparse vector it read
-- every place, for each lexeme. So more of them may gather before they are added up.

alter table lexeme_changes add column lexemes integer[], add column counts integer[];
alter table lexeme_changes alter column lexemes set storage plain, alter column counts set storage plain;
alter table lexeme_changes alter column changes drop not null;
alter table lexeme_changes no force row level security;
-- A row has room for one of both.
with read as (
  select c.tenant_id, c.collection_id, c.id,
    array_agg(split_part(pair, ':', 1)::int order by split_part(pair, ':', 1)::int) as lexemes,
    array_agg(split_part(pair, ':', 2)::float8::int order by split_part(pair, ':', 1)::int) as counts
  from lexeme_changes c, unnest(string_to_array(trim(both '{}' from split_part(c.changes::text, '/', 1)), ',')) as pair
  group by c.tenant_id, c.collection_id, c.id
)
update lexeme_changes c set changes = null, lexemes = r.lexemes, counts = r.counts
from read r where r.tenant_id = c.tenant_id and r.collection_id = c.collection_id and r.id = c.id;
alter table lexeme_changes force row level security;
alter table lexeme_changes alter column lexemes set not null, alter column counts set not null,
  add check (cardinality(lexemes) = cardinality(counts)), drop column changes;
comment on column lexeme_changes.lexemes is 'In their order, each once.';

create or replace function document_frequencies(wanted_collection bigint, lexemes integer[]) returns integer[]
  language plpgsql stable
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
  -- By a name that is no column.
  wanted integer[] := lexemes;
begin
  return array(
    select coalesce(kept.document_frequency, 0) + coalesce(changed.document_frequency, 0)
    from unnest(wanted) with ordinality as asked (lexeme, place)
    left join lateral (
      select case when block.lexemes[slot] = asked.lexeme then block.document_frequencies[slot] end as document_frequency
      from (
        select b.lexemes, b.document_frequencies from lexeme_blocks b
        where b.tenant_id = tenant and b.collection_id = wanted_collection and b.first <= asked.lexeme
        order by b.first desc
        limit 1
      ) as block, width_bucket(asked.lexeme, block.lexemes) as slot
    ) as kept on true
    left join (
      -- Each row is read once, for all lexemes: `offset` keeps it outermost.
      select found.lexeme, sum(c.counts[found.slot])::int as document_frequency
      from lexeme_changes c cross join lateral (
        select a.lexeme, width_bucket(a.lexeme, c.lexemes) as slot from unnest(wanted) as a (lexeme) offset 0
      ) as found
      where c.tenant_id = tenant and c.collection_id = wanted_collection and c.lexemes[found.slot] = found.lexeme
      group by found.lexeme
    ) as changed on changed.lexeme = asked.lexeme
    order by asked.place
  );
end
$$;

drop function record_ingestion(uuid, uuid, bigint, sparsevec[], integer, integer, bigint, text, timestamptz);
create function record_ingestion(
  tenant uuid, document uuid, collection bigint, changed integer[], changes integer[], begins integer[], ends integer[],
  more_documents integer, more_chunks integer, more_lexemes bigint, place text, modified_at timestamptz
) returns table (average_length real, erased boolean)
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  delete from pending_embeddings where tenant_id = tenant and document_id = document;
  delete from pending_documents where tenant_id = tenant and document_id = document;
  delete from recognised_pages where tenant_id = tenant and document_id = document;
  insert into lexeme_changes (tenant_id, collection_id, lexemes, counts)
  select tenant, collection, changed[given.first : given.last], changes[given.first : given.last]
  from unnest(begins, ends) as given (first, last);
  insert into collection_statistics (tenant_id, collection_id, document_count, chunk_count, lexeme_count)
  values (tenant, collection, more_documents, more_chunks, more_lexemes);
  return query
    update collections c set generation = c.generation + 1 where c.tenant_id = tenant and c.id = collection
    returning c.average_length, is_erased(tenant, place, document, modified_at);
end
$$;
comment on function record_ingestion is
  'What a document changed in the statistics, and the collection''s next generation; nothing of its checkpoint is left. All changed lexemes are one array, as'
  ' are their changes: a row has those from `begins` to `ends`.';

create or replace function unrolled_statistics(tenant uuid, collection bigint) returns table (unrolled bigint, bytes bigint, chunks bigint)
  language plpgsql stable rows 1
  set plan_cache_mode = force_generic_plan
  as $$
begin
  return query
    select count(*),
      coalesce((
        select sum(pg_column_size(l.lexemes) + pg_column_size(l.counts)) from lexeme_changes l
        where l.tenant_id = tenant and l.collection_id = collection
      ), 0)::bigint,
      coalesce(sum(s.chunk_count), 0)::bigint
    from collection_statistics s where s.tenant_id = tenant and s.collection_id = collection;
end
$$;

revoke execute on function record_ingestion from public;
grant execute on function record_ingestion to rag_ingest, rag_erase;

-- A session may have their plans since the tables were empty: none reads a whole one.
alter function begin_document set enable_seqscan = off;
alter function known_embeddings set enable_seqscan = off;
alter function finish_document set enable_seqscan = off;
alter function record_attempt set enable_seqscan = off;
alter function record_ingestion set enable_seqscan = off;
alter function unrolled_statistics set enable_seqscan = off;
