-- A question is one statement: what BM25 weighs with is read, and both legs are asked, where they stand; passages are read of those chunks
-- only that may be hits. The nearest chunks of a large collection are found by a function of its own, whose plan a session keeps
-- (rag.store.maintenance): to plan that statement takes as long as all else around the index, and longer the more collections have one.

drop function dense_search(uuid, text, halfvec, integer);
drop function candidates(
  uuid, bigint, smallint, integer, halfvec, integer[], integer[], integer[], sparsevec, uuid[], integer, boolean
);
drop function searched_collection(uuid, text, integer[]);
drop function dense_candidates(bigint, smallint, integer, halfvec, uuid[], integer);

create view searched_collections with (security_invoker = true) as
  select c.tenant_id, c.id, c.name, c.language, c.space_id, c.average_length,
    to_regproc('nearest_of_' || c.id) is not null and (
      select count(*) = 2 from pg_index
      where indisvalid and indexrelid in (to_regclass('embeddings_of_' || c.id), to_regclass('chunks_of_' || c.id))
    ) as indexed,
    s.dimensions, s.model
  from collections c join embedding_spaces s on s.id = c.space_id;
comment on view searched_collections is
  '`indexed` once both indexes of its own are valid, and the function is there that asks one of them: until then a collection is searched exactly.';
grant select on searched_collections to rag_ingest, rag_query, rag_erase;

create or replace function found_collection(wanted text)
  returns table (
    id bigint, name text, language text, space_id smallint, average_length real, indexed boolean, dimensions smallint, model text
  )
  language plpgsql stable rows 1
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
begin
  return query
    select id, name, language, space_id, average_length, indexed, dimensions, model from searched_collections
    where tenant_id = tenant and name = wanted;
end
$$;

create function document_frequencies(wanted_collection bigint, lexemes integer[]) returns integer[]
  language plpgsql stable
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
begin
  return array(
    select coalesce(kept.document_frequency, 0) + coalesce(changed.document_frequency, 0)
    from unnest(lexemes) with ordinality as asked (lexeme, place)
    left join lateral (
      select case when block.lexemes[slot] = asked.lexeme then block.document_frequencies[slot] end as document_frequency
      from (
        select b.lexemes, b.document_frequencies from lexeme_blocks b
        where b.tenant_id = tenant and b.collection_id = wanted_collection and b.first <= asked.lexeme
        order by b.first desc
        limit 1
      ) as block, width_bucket(asked.lexeme, block.lexemes) as slot
    ) as kept on true
    left join lateral (
      select round(-sum(changes <#> format('{%s:1}/1000000000', asked.lexeme)::sparsevec))::int as document_frequency
      from lexeme_changes where tenant_id = tenant and collection_id = wanted_collection
    ) as changed on true
    order by place
  );
end
$$;
comment on function document_frequencies is 'In how many chunks of the collection each of the lexemes stands.';

create function weighed(
  lexemes integer[], counts integer[], frequencies integer[], chunk_count bigint, budget integer, alone_budget integer, depth integer,
  out question sparsevec, out rare integer[], out alone integer[]
)
  language plpgsql immutable
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  select
    format('{%s}/1000000000', string_agg(
      -- As rag.lexical has it.
      lexeme || ':' || count * ln(1 + (chunk_count - capped + 0.5::float8) / (capped + 0.5::float8)), ','
    )),
    coalesce(array_agg(lexeme) filter (where reached <= budget or reached - frequency < depth), '{}'),
    coalesce(array_agg(lexeme) filter (where reached <= alone_budget or reached - frequency < depth), '{}')
  into question, rare, alone
  from (
    select lexeme, count, frequency, least(frequency, chunk_count) as capped,
      sum(frequency) over (order by frequency, lexeme) as reached
    from unnest(lexemes, counts, frequencies) as counted (lexeme, count, frequency)
  ) as ordered;
end
$$;
comment on function weighed is
  'A question as BM25 asks it, and its lexemes that tell most, rarest first, as long as they stand in no more than `budget` chunks together; as many '
  'at least as it takes to stand in `depth` chunks, since a shorter list would be filled by looking at every chunk, for a second at a million. '
  '`alone`: as many of them as stand in no more than `alone_budget`.';

create function filtered_documents(wanted_collection bigint, filters jsonb) returns table (id uuid, chunk_count integer)
  language plpgsql stable rows 1000
  as $$
begin
  -- Put together of what is asked for, so that nothing else is looked at for each document.
  return query execute
    'select id, chunk_count from documents where tenant_id = $1 and collection_id = $2'
    || case when filters ? 'document_ids' then ' and id = any (array(select jsonb_array_elements_text($3 -> ''document_ids''))::uuid[])' else '' end
    || case when filters ? 'keys' then ' and key = any (array(select jsonb_array_elements_text($3 -> ''keys'')))' else '' end
    || coalesce((
      select string_agg(format(' and jsonb_path_match(%s, ($3 ->> %L)::jsonpath, $3 -> ''values'')', place, name), '')
      from (values
        ('document_id', 'to_jsonb(id)'), ('key', 'to_jsonb(key)'), ('media_type', 'coalesce(to_jsonb(media_type), ''null'')'),
        ('title', 'coalesce(to_jsonb(title), ''null'')'), ('created_at', 'to_jsonb(extract(epoch from created_at) * 1000000)'),
        ('updated_at', 'to_jsonb(extract(epoch from updated_at) * 1000000)'), ('metadata', 'metadata')
      ) as fields (name, place)
      where filters ? name
    ), '')
    using app_tenant(), wanted_collection, filters;
end
$$;
comment on function filtered_documents is 'The documents of a collection that a filter lets through (rag.store.filters).';

create function exact_dense_candidates(
  wanted_collection bigint, space smallint, asked halfvec, within uuid[], depth integer,
  out chunks uuid[], out documents uuid[], out distances double precision[]
)
  language plpgsql stable
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
begin
  if within is null then
    select array_agg(chunk_id), array_agg(document_id), array_agg(distance) into chunks, documents, distances
    from (
      select chunk_id, document_id, embedding <=> asked as distance from embeddings
      where tenant_id = tenant and collection_id = wanted_collection and space_id = space
      order by distance limit depth
    ) as nearest;
  else
    -- Planned anew each time: it depends on how many documents these are.
    execute
      'select array_agg(chunk_id), array_agg(document_id), array_agg(distance) from ('
      'select chunk_id, document_id, embedding <=> $1 as distance from embeddings '
      'where tenant_id = $2 and collection_id = $3 and space_id = $4 and document_id in (select unnest($5)) '
      'order by distance limit $6) as nearest'
      into chunks, documents, distances using asked, tenant, wanted_collection, space, within, depth;
  end if;
end
$$;
comment on function exact_dense_candidates is 'The nearest chunks of a collection, or of these documents in it.';

create function dense_candidates(
  wanted_collection bigint, space smallint, width integer, asked halfvec, within uuid[], depth integer,
  out chunks uuid[], out documents uuid[], out distances double precision[]
)
  language plpgsql stable
  as $$
begin
  if within is null then
    execute format('select * from nearest_of_%s($1, $2, $3)', wanted_collection)
    into chunks, documents, distances using app_tenant(), asked, depth;
  else
    -- Only with the collection and the width in its text does it match the collection's own index.
    execute format(
      'select array_agg(chunk_id), array_agg(document_id), array_agg(distance) from ('
      'select chunk_id, document_id, embedding::halfvec(%s) <=> $1 as distance from embeddings '
      'where tenant_id = $2 and collection_id = %s and space_id = %s and document_id in (select unnest($4)) '
      'order by distance limit $3) as nearest',
      width, wanted_collection, space
    ) into chunks, documents, distances using asked, app_tenant(), depth, within;
  end if;
end
$$;
comment on function dense_candidates is
  'The nearest chunks by the collection''s own index, only `within` these documents if given; fewer than there are unless it iterates.';

create function search(
  tenant uuid, wanted text, assumed text, asked halfvec, lexemes integer[], counts integer[], filters jsonb,
  depth integer, shown integer, exact_chunks integer, budget integer, alone_budget integer, ef_search integer
)
  returns table (
    found json, chunk_id uuid, document_id uuid, content_hash bytea, cosine double precision, bm25 double precision,
    key text, title text, page integer, heading text, "position" integer, content text
  )
  language plpgsql stable rows 100
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  place record;
  chunk_count bigint;
  frequencies integer[];
  question sparsevec;
  rare integer[];
  alone integer[];
  within uuid[];
  expected integer := depth;
  by_index boolean;
  near_chunks uuid[] := '{}';
  near_documents uuid[];
  distances double precision[];
  worded_chunks uuid[];
  worded_documents uuid[];
  hashes bytea[];
  negated double precision[];
begin
  perform set_config('app.tenant', tenant::text, true), set_config('hnsw.ef_search', ef_search::text, true),
    set_config('hnsw.iterative_scan', case when filters is null then 'off' else 'relaxed_order' end, true);
  select id, name, language, space_id, average_length, indexed, dimensions, model into place from searched_collections
  where tenant_id = tenant and name = wanted;
  if place.id is null then
    return;
  end if;
  -- In a language that is not the collection's these are other lexemes.
  if lexemes is not null and place.language = assumed then
    chunk_count := coalesce((
      select sum(s.chunk_count) from collection_statistics s where s.tenant_id = tenant and s.collection_id = place.id
    ), 0);
    frequencies := document_frequencies(place.id, lexemes);
    select * into question, rare, alone from weighed(lexemes, counts, frequencies, chunk_count, budget, alone_budget, depth);
  end if;
  return query select json_build_object(
      'collection', row_to_json(place), 'chunk_count', chunk_count, 'frequencies', frequencies, 'question', question::text
    ), null::uuid, null::uuid, null::bytea, null::float8, null::float8, null, null, null::int, null, null::int, null;
  -- To what another model has made nothing is near: the caller says so.
  if place.dimensions <> vector_dims(asked) or lexemes is not null and place.language <> assumed then
    return;
  end if;

  by_index := place.indexed;
  if filters is not null then
    select coalesce(sum(d.chunk_count), 0), coalesce(array_agg(d.id), '{}') into expected, within
    from filtered_documents(place.id, filters) d;
    by_index := by_index and expected > exact_chunks;
    expected := least(expected, depth);
  end if;

  if asked is not null then
    if by_index then
      select * into near_chunks, near_documents, distances
      from dense_candidates(place.id, place.space_id, place.dimensions, asked, within, depth);
      -- What was deleted stands in an index until the next vacuum: a search that goes on finds what is behind it.
      if coalesce(cardinality(near_chunks), 0) < expected and filters is null then
        perform set_config('hnsw.iterative_scan', 'relaxed_order', true);
        select * into near_chunks, near_documents, distances
        from dense_candidates(place.id, place.space_id, place.dimensions, asked, within, depth);
      end if;
    end if;
    if not by_index or coalesce(cardinality(near_chunks), 0) < expected then
      select * into near_chunks, near_documents, distances
      from exact_dense_candidates(place.id, place.space_id, asked, within, depth);
    end if;
    near_chunks := coalesce(near_chunks, '{}');
  end if;

  if question is null then
    -- Equal texts are equally far: where the order hangs on nothing else, all are read.
    if distances[shown] = distances[shown + 1] then
      shown := depth;
    end if;
    return query
      select null::json, n.chunk_id, n.document_id, c.content_hash, 1 - n.distance, 0::float8,
        d.key, d.title, c.page, c.heading, c.position, c.content
      from unnest(near_chunks[:shown], near_documents[:shown], distances[:shown]) as n (chunk_id, document_id, distance)
      join chunks c on c.tenant_id = tenant and c.id = n.chunk_id
      join documents d on d.tenant_id = tenant and d.id = n.document_id;
    return;
  end if;

  if by_index then
    select array_agg(l.chunk_id), array_agg(l.document_id), array_agg(l.content_hash), array_agg(l.negated)
    into worded_chunks, worded_documents, hashes, negated
    from lexical_candidates(
      place.id, alone, rare[cardinality(alone) + 1 :], lexemes, question, within, depth
    ) l where l.negated < 0;
    if asked is null and coalesce(cardinality(worded_chunks), 0) < expected and cardinality(alone) < cardinality(rare) then
      select array_agg(l.chunk_id), array_agg(l.document_id), array_agg(l.content_hash), array_agg(l.negated)
      into worded_chunks, worded_documents, hashes, negated
      from lexical_candidates(place.id, rare, '{}', lexemes, question, within, depth) l where l.negated < 0;
    end if;
  end if;
  if not by_index
    or asked is null and coalesce(cardinality(worded_chunks), 0) < expected and cardinality(rare) < cardinality(lexemes)
  then
    select array_agg(l.chunk_id), array_agg(l.document_id), array_agg(l.content_hash), array_agg(l.negated)
    into worded_chunks, worded_documents, hashes, negated
    from exact_lexical_candidates(place.id, question, within, depth) l where l.negated < 0;
  end if;

  return query
    with both_legs as materialized (
      select n.chunk_id, n.document_id, c.content_hash, 1 - n.distance as cosine, coalesce(-(c.lexical <#> question), 0) as bm25
      from unnest(near_chunks, near_documents, distances) as n (chunk_id, document_id, distance)
      join chunks c on c.tenant_id = tenant and c.id = n.chunk_id
      union all
      select w.chunk_id, w.document_id, w.content_hash,
        case when asked is null then 0 else coalesce((
          select 1 - (embedding <=> asked) from embeddings
          where tenant_id = tenant and chunk_id = w.chunk_id and space_id = place.space_id
        ), 0) end,
        -w.negated
      from unnest(worded_chunks, worded_documents, hashes, negated) as w (chunk_id, document_id, content_hash, negated)
      where w.chunk_id <> all (near_chunks)
    ), lead as (
      select greatest(most[1], 1) as best, 0.62 * (0.7 + 0.3 * coalesce(most[2] / nullif(most[1], 0), 1)) as share
      from (select array(select bm25 from both_legs order by bm25 desc limit 2) as most) as two
    ), ordered as materialized (
      -- Nearly as rag.ranking orders them, who decides: of these it may want the passages.
      select b.*, row_number() over (order by share * cosine + (1 - share) * bm25 / best desc) as rank
      from both_legs b, lead
    )
    select null::json, o.chunk_id, o.document_id, o.content_hash, o.cosine, o.bm25,
      d.key, d.title, c.page, c.heading, c.position, c.content
    from ordered o
    join chunks c on c.tenant_id = tenant and c.id = o.chunk_id
    join documents d on d.tenant_id = tenant and d.id = o.document_id
    where o.rank <= shown
    union all
    select null, o.chunk_id, o.document_id, o.content_hash, o.cosine, o.bm25, null, null, null, null, null, null
    from ordered o where o.rank > shown;
end
$$;
comment on function search is
  'A question in one statement: first a row of the collection and of what BM25 weighs with; then the best chunks of each leg that is asked, each with its '
  'score in both, and the passages of about the best `shown` of them. A dense question without words gives these only.';
