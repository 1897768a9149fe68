-- A graph is searched three eighths wider with each tenfold of its chunks beyond 100,000.

create or replace function search(
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
  whole boolean;
  wide integer := ef_search;
begin
  perform set_config('app.tenant', tenant::text, true);
  perform remember_scope();
  select id, name, language, space_id, average_length, indexed, dimensions, model into place from searched_collections
  where tenant_id = tenant and name = wanted;
  if place.id is null then
    return;
  end if;
  -- What a filter or row-level security takes away the nearest ones behind it make up for.
  whole := filters is null and app_sees_collection(place.id);
  -- Searched equally wide, a graph has the less of the nearest the more chunks it is of.
  if place.indexed and asked is not null then
    wide := coalesce((
      select ef_search * greatest(1 + 0.375 * log(greatest(reltuples, 1) / 100000), 1) from pg_class where oid = to_regclass('embeddings_of_' || place.id)
    ), ef_search);
  end if;
  -- What was deleted takes places in the graph until the next vacuum.
  perform set_config('hnsw.ef_search', least(greatest(wide, depth + depth / 4), 1000)::text, true),
    set_config('hnsw.iterative_scan', case when whole then 'off' else 'relaxed_order' end, true);
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
      if coalesce(cardinality(near_chunks), 0) < expected and whole then
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
    ), lead as materialized (
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
