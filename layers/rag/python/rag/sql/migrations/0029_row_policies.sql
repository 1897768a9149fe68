-- Row-level security shows the API what its caller may see: the collections of the transaction's scope, the documents that are for everyone or
-- name one of its identities, and through documents all that shows something of them. Beside the policies of tenants, which stay.
-- What of the scope is not said shows nothing; `*` says everything. In plpgsql, because a statement's planner would take SQL apart each time.

create function app_identities() returns text[]
  language plpgsql stable parallel safe
  as $$
begin
  return case current_setting('app.identities', true)
    when '*' then null
    else coalesce(nullif(current_setting('app.identities', true), ''), '{}')::text[]
  end;
end
$$;
comment on function app_identities is 'What a document that is not for everyone must name; null: it need not, the transaction sees all.';

create function app_collections() returns text[]
  language plpgsql stable parallel safe
  as $$
begin
  return case current_setting('app.collections', true)
    when '*' then null
    else coalesce(nullif(current_setting('app.collections', true), ''), '{}')::text[]
  end;
end
$$;
comment on function app_collections is 'The names of the collections that the transaction sees; null: all of its tenant.';

create function app_collection_ids() returns bigint[]
  language plpgsql stable
  as $$
begin
  return array(select id from collections where tenant_id = app_tenant() and name = any (app_collections()));
end
$$;
comment on function app_collection_ids is 'Of the collections that the transaction is limited to.';

-- What it hides it must see: as the owner, and of the transaction's tenant only, like every function.
create policy of_tenant_for_owner on documents for select to rag_owner using (tenant_id = (select app_tenant()));
create function has_restricted_documents() returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, public, pg_temp
  -- The first one found is enough, and a scan of the table may find it last.
  set enable_seqscan = off
  as $$
begin
  return exists (select from documents where tenant_id = app_tenant() and allowed_principals is not null);
end
$$;
comment on function has_restricted_documents is 'Whether the transaction''s tenant has a document that is not for everyone.';
revoke all on function has_restricted_documents from public;

create function app_sees_documents() returns boolean
  language plpgsql stable
  as $$
begin
  return app_identities() is null or not has_restricted_documents();
end
$$;
comment on function app_sees_documents is 'Whether the transaction sees every document of the collections that it sees: then none need be asked about.';

create function app_sees_collection(wanted_collection bigint) returns boolean
  language plpgsql stable
  as $$
begin
  return app_sees_documents() and (app_collections() is null or wanted_collection = any (app_collection_ids()));
end
$$;
comment on function app_sees_collection is 'Whether the transaction sees every document of a collection.';

create function keep_tenant(tenant uuid) returns void
  language plpgsql stable
  as $$
begin
  if tenant is distinct from app_tenant() then
    raise exception 'the tenant of the transaction was changed' using errcode = 'insufficient_privilege';
  end if;
end
$$;
comment on function keep_tenant is 'An error where the transaction is not, or not any more, of this tenant.';

create policy in_scope on collections as restrictive to rag_query
  using ((select app_collections()) is null or name = any ((select app_collections())::text[]));

-- For the functions of rag_definer as well: what they say of a document they say to their caller.
create policy in_scope on documents as restrictive to rag_query, rag_definer using (
  ((select app_collections()) is null or collection_id = any ((select app_collection_ids())::bigint[]))
  and (allowed_principals is null or (select app_identities()) is null or allowed_principals && (select app_identities()))
);
grant select (collection_id, allowed_principals) on documents to rag_definer;

do $$
declare
  scoped text;
  of_collection text := '((select app_collections()) is null or collection_id = any ((select app_collection_ids())::bigint[]))';
  -- Row by row, as `offset` has it: a search looks at some hundred rows, and there may be a million documents to gather.
  shown text := 'exists (select from documents d where d.tenant_id = %1$I.tenant_id and d.id = %1$I.document_id offset 0)';
begin
  foreach scoped in array array['lexeme_blocks', 'lexeme_changes', 'collection_statistics'] loop
    execute format('create policy in_scope on %I as restrictive to rag_query using (%s)', scoped, of_collection);
  end loop;
  foreach scoped in array array['chunks', 'embeddings', 'ingestions'] loop
    execute format('create policy in_scope on %1$I as restrictive to rag_query using ('
      || of_collection || ' and ((select app_sees_documents()) or ' || shown || '))', scoped);
  end loop;
  foreach scoped in array array['pending_documents', 'pending_chunks', 'pending_embeddings'] loop
    execute format('create policy in_scope on %1$I as restrictive to rag_query using ('
      '(select app_collections() is null and app_sees_documents()) or ' || shown || ')', scoped);
  end loop;
end
$$;

-- A receipt is left of what is gone; while the document is there, who does not see it sees no receipt.
create function is_hidden(document uuid) returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, public, pg_temp
  as $$
begin
  return not (app_identities() is null) and exists (
    select from documents d
    where d.tenant_id = app_tenant() and d.id = document and not (d.allowed_principals && app_identities())
  );
end
$$;
comment on function is_hidden is 'Whether a document of the transaction''s tenant is for others only.';
revoke all on function is_hidden from public;
grant execute on function has_restricted_documents, is_hidden to rag_query, rag_definer;

create policy in_scope on erasures as restrictive to rag_query using (
  ((select app_collections()) is null or collection = any ((select app_collections())::text[]))
  and (document_id is null or not is_hidden(document_id))
);

-- Of what is hidden the lists make up for: they are put in order first, and the best are asked about until they are full. Under row-level
-- security every row would be asked about; so these two look past that of chunks and embeddings as lexical_candidates does, and not past that
-- of documents.
create policy for_definer on embeddings for select to rag_definer using (true);
grant select (tenant_id, chunk_id, document_id, collection_id, space_id, embedding) on embeddings to rag_definer;

grant create on schema public to rag_definer;
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
begin
  loop
    if within is null then
      select array_agg(chunk_id), array_agg(document_id), array_agg(distance) into chunks, documents, distances
      from (
        select * from (
          select chunk_id, document_id, embedding <=> asked as distance from embeddings
          where tenant_id = tenant and collection_id = wanted_collection and space_id = space
          order by distance limit reach
        ) as near
        where whole or exists (select from documents d where d.tenant_id = tenant and d.id = near.document_id offset 0)
        limit depth
      ) as nearest;
    else
      -- Planned anew each time: it depends on how many documents these are.
      execute
        'select array_agg(chunk_id), array_agg(document_id), array_agg(distance) from ('
        'select * from ('
        'select chunk_id, document_id, embedding <=> $1 as distance from embeddings '
        'where tenant_id = $2 and collection_id = $3 and space_id = $4 and document_id in (select unnest($5)) '
        'order by distance limit $7) as near '
        'where $8 or exists (select from documents d where d.tenant_id = $2 and d.id = near.document_id offset 0) limit $6) as nearest'
        into chunks, documents, distances using asked, tenant, wanted_collection, space, within, depth, reach, whole;
    end if;
    exit when whole or reach is null or cardinality(chunks) = depth;
    reach := null;
  end loop;
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
  chunks uuid[];
  documents uuid[];
  hashes bytea[];
  scores double precision[];
begin
  loop
    if within is null then
      select array_agg(id), array_agg(document_id), array_agg(content_hash), array_agg(negated) into chunks, documents, hashes, scores
      from (
        select * from (
          select id, document_id, content_hash, lexical <#> question as negated from chunks
          where tenant_id = tenant and collection_id = wanted_collection
          order by negated limit reach
        ) as best
        where whole or exists (select from documents d where d.tenant_id = tenant and d.id = best.document_id offset 0)
        limit depth
      ) as shown;
    else
      execute
        'select array_agg(id), array_agg(document_id), array_agg(content_hash), array_agg(negated) from ('
        'select * from ('
        'select id, document_id, content_hash, lexical <#> $1 as negated from chunks '
        'where tenant_id = $2 and collection_id = $3 and document_id in (select unnest($4)) '
        'order by negated limit $6) as best '
        'where $7 or exists (select from documents d where d.tenant_id = $2 and d.id = best.document_id offset 0) limit $5) as shown'
        into chunks, documents, hashes, scores using question, tenant, wanted_collection, within, depth, reach, whole;
    end if;
    exit when whole or reach is null or cardinality(chunks) = depth;
    reach := null;
  end loop;
  return query select * from unnest(chunks, documents, hashes, scores);
end
$$;
alter function exact_dense_candidates owner to rag_definer;
alter function exact_lexical_candidates owner to rag_definer;

set local role rag_definer;
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
      'select * from ('
      'select id, document_id, content_hash, lexical <#> $1 as negated from chunks '
      'where tenant_id = $2 and collection_id = %s and (%s) %s order by negated limit $5) as best '
      'where $6 or exists (select from documents d where d.tenant_id = $2 and d.id = best.document_id offset 0) limit $3) as shown',
      wanted_collection, sought, case when within is not null then 'and document_id in (select unnest($4))' end
    ) into chunks, documents, hashes, scores using question, tenant, depth, within, reach, whole;
    exit when whole or reach is null or cardinality(chunks) = depth;
    reach := null;
  end loop;
  return query select * from unnest(chunks, documents, hashes, scores);
end
$$;
revoke all on function exact_dense_candidates, exact_lexical_candidates from public;
grant execute on function exact_dense_candidates, exact_lexical_candidates to rag_query;
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
