-- What a scope comes to is asked once for a question, instead of in each of its statements by each of its tables; the row policies say the same
-- in fewer words, because a statement sets up what each of them might ask before it looks at a row; and what is put together as text,
-- planned for every question, names no table that has such policies.

-- As the functions of rag_definer have it: where names are looked up in another place than the last time a kept plan is made anew.
alter role rag_query set search_path = pg_catalog, public, pg_temp;

create function app_scope() returns text
  language plpgsql stable
  as $$
begin
  return nullif(current_setting('app.tenant', true) || current_setting('app.identities', true) || current_setting('app.collections', true), '');
end
$$;
comment on function app_scope is 'The scope of the transaction, as text; null where nothing of it is said.';

create or replace function app_collection_ids() returns bigint[]
  language plpgsql stable
  as $$
begin
  if current_setting('app.collections', true) = '*' then
    return null;
  elsif current_setting('app.remembered', true) = app_scope() then
    return current_setting('app.remembered_collections', true)::bigint[];
  end if;
  return array(select id from collections where tenant_id = app_tenant() and name = any (app_collections()));
end
$$;
comment on function app_collection_ids is 'Of the collections that the transaction is limited to; null: it is not.';

create or replace function app_sees_documents() returns boolean
  language plpgsql stable
  as $$
begin
  if current_setting('app.identities', true) = '*' then
    return true;
  elsif current_setting('app.remembered', true) = app_scope() then
    return current_setting('app.remembered_documents', true)::boolean;
  end if;
  return not has_restricted_documents();
end
$$;

create or replace function app_sees_collection(wanted_collection bigint) returns boolean
  language plpgsql stable
  as $$
begin
  return app_sees_documents() and coalesce(wanted_collection = any (app_collection_ids()), true);
end
$$;

create function remember_scope() returns void
  language plpgsql stable
  as $$
begin
  if current_setting('app.identities', true) = '*' and current_setting('app.collections', true) = '*' then
    return;
  end if;
  perform set_config('app.remembered', '', true);
  perform set_config('app.remembered_collections', coalesce(app_collection_ids()::text, ''), true),
    set_config('app.remembered_documents', app_sees_documents()::text, true);
  perform set_config('app.remembered', coalesce(app_scope(), ''), true);
end
$$;
comment on function remember_scope is
  'What the transaction''s scope comes to, kept until it ends or names another scope: for what sees one snapshot all the time, as a question does.';

-- Null is what there is no limit to: a scope that sees all, or a document that is for everyone.
alter policy in_scope on documents using (
  coalesce(collection_id = any ((select app_collection_ids())::bigint[]), true)
  and coalesce(allowed_principals && (select app_identities()), true)
);
do $$
declare
  scoped text;
  of_collection text := 'coalesce(collection_id = any ((select app_collection_ids())::bigint[]), true)';
  -- Row by row, as `offset` has it: a search looks at some hundred rows, and there may be a million documents to gather.
  shown text := 'exists (select from documents d where d.tenant_id = %1$I.tenant_id and d.id = %1$I.document_id offset 0)';
begin
  foreach scoped in array array['lexeme_blocks', 'lexeme_changes', 'collection_statistics'] loop
    execute format('alter policy in_scope on %I using (%s)', scoped, of_collection);
  end loop;
  foreach scoped in array array['chunks', 'embeddings', 'ingestions'] loop
    execute format('alter policy in_scope on %1$I using (' || of_collection || ' and ((select app_sees_documents()) or ' || shown || '))', scoped);
  end loop;
end
$$;

create function seen_places(asked uuid[], most integer) returns integer[]
  language plpgsql stable
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
begin
  return array(
    select n.place from unnest(asked) with ordinality as n (document, place)
    where exists (select from documents d where d.tenant_id = tenant and d.id = n.document offset 0)
    order by n.place limit most
  );
end
$$;
comment on function seen_places is 'The places in a list of documents of those that the transaction sees, the first `most` of them.';

grant create on schema public to rag_definer;
set local role rag_definer;
create or replace function exact_dense_candidates(
  wanted_collection bigint, space smallint, asked halfvec, within uuid[], depth integer,
  out chunks uuid[], out documents uuid[], out distances double precision[]
)
  language plpgsql stable security definer
  set search_path = pg_catalog, public, pg_temp
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
  whole boolean := app_sees_collection(wanted_collection);
  reach integer := case when whole then depth else 4 * depth end;
  found integer;
  places integer[];
begin
  loop
    if within is null then
      select array_agg(chunk_id), array_agg(document_id), array_agg(distance) into chunks, documents, distances
      from (
        select chunk_id, document_id, embedding <=> asked as distance from embeddings
        where tenant_id = tenant and collection_id = wanted_collection and space_id = space
        order by distance limit reach
      ) as nearest;
    else
      -- Planned anew each time: it depends on how many documents these are.
      execute
        'select array_agg(chunk_id), array_agg(document_id), array_agg(distance) from ('
        'select chunk_id, document_id, embedding <=> $1 as distance from embeddings '
        'where tenant_id = $2 and collection_id = $3 and space_id = $4 and document_id in (select unnest($5)) '
        'order by distance limit $6) as nearest'
        into chunks, documents, distances using asked, tenant, wanted_collection, space, within, reach;
    end if;
    exit when whole;
    found := cardinality(chunks);
    places := seen_places(documents, depth);
    exit when reach is null or found < reach or cardinality(places) = depth;
    reach := null;
  end loop;
  if not whole then
    chunks := array(select chunks[place] from unnest(places) place);
    documents := array(select documents[place] from unnest(places) place);
    distances := array(select distances[place] from unnest(places) place);
  end if;
end
$$;

create or replace function exact_lexical_candidates(wanted_collection bigint, question sparsevec, within uuid[], depth integer)
  returns table (chunk_id uuid, document_id uuid, content_hash bytea, negated double precision)
  language plpgsql stable rows 50 security definer
  set search_path = pg_catalog, public, pg_temp
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
  whole boolean := app_sees_collection(wanted_collection);
  reach integer := case when whole then depth else 4 * depth end;
  places integer[];
  chunks uuid[];
  documents uuid[];
  hashes bytea[];
  scores double precision[];
begin
  loop
    if within is null then
      select array_agg(id), array_agg(document_id), array_agg(content_hash), array_agg(negated) into chunks, documents, hashes, scores
      from (
        select id, document_id, content_hash, lexical <#> question as negated from chunks
        where tenant_id = tenant and collection_id = wanted_collection
        order by negated limit reach
      ) as best;
    else
      execute
        'select array_agg(id), array_agg(document_id), array_agg(content_hash), array_agg(negated) from ('
        'select id, document_id, content_hash, lexical <#> $1 as negated from chunks '
        'where tenant_id = $2 and collection_id = $3 and document_id in (select unnest($4)) '
        'order by negated limit $5) as best'
        into chunks, documents, hashes, scores using question, tenant, wanted_collection, within, reach;
    end if;
    exit when whole;
    places := seen_places(documents, depth);
    exit when reach is null or cardinality(chunks) < reach or cardinality(places) = depth;
    reach := null;
  end loop;
  if whole then
    return query select * from unnest(chunks, documents, hashes, scores);
  else
    return query select chunks[place], documents[place], hashes[place], scores[place] from unnest(places) place;
  end if;
end
$$;

create or replace function lexical_candidates(
  wanted_collection bigint, alone integer[], paired integer[], lexemes integer[], question sparsevec, within uuid[], depth integer
)
  returns table (chunk_id uuid, document_id uuid, content_hash bytea, negated double precision)
  language plpgsql stable security definer rows 50
  set search_path = pg_catalog, public, pg_temp
  as $$
declare
  tenant uuid := app_tenant();
  sought text := format('lexemes && %L', alone);
  others integer[] := array(select unnest(lexemes) except select unnest(alone));
  one integer;
  whole boolean := app_sees_collection(wanted_collection);
  reach integer := case when whole then depth else 4 * depth end;
  places integer[];
  chunks uuid[];
  documents uuid[];
  hashes bytea[];
  scores double precision[];
begin
  foreach one in array paired loop
    others := array_remove(others, one);
    exit when others = '{}';
    sought := sought || format(' or lexemes && %L and lexemes && %L', array[one], others);
  end loop;
  loop
    -- Only with the collection in its text does it match the collection's own index.
    execute format(
      'select array_agg(id), array_agg(document_id), array_agg(content_hash), array_agg(negated) from ('
      'select id, document_id, content_hash, lexical <#> $1 as negated from chunks '
      'where tenant_id = $2 and collection_id = %s and (%s) %s order by negated limit $3) as best',
      wanted_collection, sought, case when within is not null then 'and document_id in (select unnest($4))' end
    ) into chunks, documents, hashes, scores using question, tenant, reach, within;
    exit when whole;
    places := seen_places(documents, depth);
    exit when reach is null or cardinality(chunks) < reach or cardinality(places) = depth;
    reach := null;
  end loop;
  if whole then
    return query select * from unnest(chunks, documents, hashes, scores);
  else
    return query select chunks[place], documents[place], hashes[place], scores[place] from unnest(places) place;
  end if;
end
$$;
reset role;
revoke create on schema public from rag_definer;

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
  perform set_config('hnsw.ef_search', ef_search::text, true),
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
