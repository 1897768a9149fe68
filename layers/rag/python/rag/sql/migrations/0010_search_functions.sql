-- A question's statements as functions: a session keeps their plans, which took as long as what they do. Each names the tenant of its
-- transaction itself, so that it can be a transaction of its own; stable, so that all of it is of one snapshot. Who calls them has its
-- own rights and row-level security, except where it is said. The plans are generic, lookups by key: to plan anew with
-- the values known, as PostgreSQL would choose, is a sixth of a dense question.

create function found_collection(wanted text)
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
    select c.id, c.name, c.language, c.space_id, c.average_length,
      (
        select count(*) = 2 from pg_index
        where indisvalid and indexrelid in (to_regclass('embeddings_of_' || c.id), to_regclass('chunks_of_' || c.id))
      ),
      s.dimensions, s.model
    from collections c join embedding_spaces s on s.id = c.space_id
    where c.tenant_id = tenant and c.name = wanted;
end
$$;
comment on function found_collection is
  'A collection of the transaction''s tenant; `indexed` once both indexes of its own are there and valid: until then it is searched exactly.';

create function searched_collection(tenant uuid, wanted text, lexemes integer[])
  returns table (
    id bigint, name text, language text, space_id smallint, average_length real, indexed boolean, dimensions smallint, model text,
    chunk_count bigint, frequencies integer[]
  )
  language plpgsql stable rows 1
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  perform set_config('app.tenant', tenant::text, true);
  return query
    select c.*,
      coalesce((
        select sum(s.chunk_count) from collection_statistics s where s.tenant_id = tenant and s.collection_id = c.id
      ), 0)::bigint,
      array(
        select coalesce(kept.document_frequency, 0) + coalesce(changed.document_frequency, 0)
        from unnest(lexemes) with ordinality as asked (lexeme, place)
        left join lateral (
          select case when block.lexemes[slot] = asked.lexeme then block.document_frequencies[slot] end as document_frequency
          from (
            select b.lexemes, b.document_frequencies from lexeme_blocks b
            where b.tenant_id = tenant and b.collection_id = c.id and b.first <= asked.lexeme
            order by b.first desc
            limit 1
          ) as block, width_bucket(asked.lexeme, block.lexemes) as slot
        ) as kept on true
        left join lateral (
          select round(-sum(changes <#> format('{%s:1}/1000000000', asked.lexeme)::sparsevec))::int as document_frequency
          from lexeme_changes where tenant_id = tenant and collection_id = c.id
        ) as changed on true
        order by place
      )
    from found_collection(wanted) c;
end
$$;
comment on function searched_collection is
  'With what BM25 needs to weigh a question: how many chunks there are, and in how many of them each lexeme stands.';

create function dense_candidates(
  wanted_collection bigint, space smallint, width integer, asked halfvec, within uuid[], depth integer
)
  returns table (chunk_id uuid, document_id uuid, distance double precision)
  language plpgsql stable rows 50
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
begin
  if asked is null then
    return;
  elsif width is not null then
    -- Only with the collection and the width in its text does it match the collection's own index.
    return query execute format(
      'select chunk_id, document_id, embedding::halfvec(%s) <=> $1 as distance from embeddings '
      'where tenant_id = $2 and collection_id = %s and space_id = %s %s order by distance limit $3',
      width, wanted_collection, space, case when within is not null then 'and document_id in (select unnest($4))' end
    ) using asked, tenant, depth, within;
  elsif within is not null then
    -- Planned anew each time: it depends on how many documents these are.
    return query execute
      'select chunk_id, document_id, embedding <=> $1 as distance from embeddings '
      'where tenant_id = $2 and collection_id = $3 and space_id = $4 and document_id in (select unnest($5)) '
      'order by distance limit $6'
      using asked, tenant, wanted_collection, space, within, depth;
  else
    return query
      select chunk_id, document_id, embedding <=> asked as distance from embeddings
      where tenant_id = tenant and collection_id = wanted_collection and space_id = space
      order by distance limit depth;
  end if;
end
$$;
comment on function dense_candidates is
  'The nearest chunks: by the collection''s own index when the width of its vectors is given, else of all; only `within` these documents if given.';

grant create, usage on schema public to rag_definer;
drop function lexical_candidates(bigint, integer[], sparsevec);
create function lexical_candidates(
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
begin
  foreach one in array paired loop
    others := array_remove(others, one);
    exit when others = '{}';
    sought := sought || format(' or lexemes && %L and lexemes && %L', array[one], others);
  end loop;
  -- Only with the collection in its text does it match the collection's own index.
  return query execute format(
    'select id, document_id, content_hash, lexical <#> $1 as negated from chunks '
    'where tenant_id = $2 and collection_id = %s and (%s) %s order by negated limit $3',
    wanted_collection, sought, case when within is not null then 'and document_id in (select unnest($4))' end
  ) using question, tenant, depth, within;
end
$$;
comment on function lexical_candidates is
  'The best chunks of those in a collection that have one of the lexemes `alone`, or one of those `paired` and another of the question''s; '
  'of the tenant of the transaction, whoever calls.';
alter function lexical_candidates owner to rag_definer;
set local role rag_definer;
revoke all on function lexical_candidates from public;
grant execute on function lexical_candidates to rag_query;
reset role;
revoke create on schema public from rag_definer;

create function exact_lexical_candidates(wanted_collection bigint, question sparsevec, within uuid[], depth integer)
  returns table (chunk_id uuid, document_id uuid, content_hash bytea, negated double precision)
  language plpgsql stable rows 50
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  tenant uuid := app_tenant();
begin
  if within is null then
    return query
      select id, document_id, content_hash, lexical <#> question as negated from chunks
      where tenant_id = tenant and collection_id = wanted_collection
      order by negated limit depth;
  else
    return query execute
      'select id, document_id, content_hash, lexical <#> $1 as negated from chunks '
      'where tenant_id = $2 and collection_id = $3 and document_id in (select unnest($4)) '
      'order by negated limit $5'
      using question, tenant, wanted_collection, within, depth;
  end if;
end
$$;
comment on function exact_lexical_candidates is 'The best chunks of a collection, or of these documents in it.';

create function candidates(
  tenant uuid, wanted_collection bigint, space smallint, width integer, asked halfvec, alone integer[], paired integer[],
  lexemes integer[], question sparsevec, within uuid[], depth integer, iterate boolean
)
  returns table (
    chunk_id uuid, document_id uuid, content_hash bytea, cosine double precision, bm25 double precision,
    key text, title text, page integer, heading text, "position" integer, content text
  )
  language plpgsql stable rows 100
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  perform set_config('app.tenant', tenant::text, true), set_config('hnsw.ef_search', '100', true),
    set_config('hnsw.iterative_scan', case when iterate then 'relaxed_order' else 'off' end, true);
  return query
    with dense as materialized (
      select * from dense_candidates(wanted_collection, space, width, asked, within, depth)
    ), lexical as materialized (
      select * from lexical_candidates(wanted_collection, alone, paired, lexemes, question, within, depth)
      where question is not null and width is not null and negated < 0
      union all
      select * from exact_lexical_candidates(wanted_collection, question, within, depth)
      where question is not null and width is null and negated < 0
    )
    select d.chunk_id, d.document_id, c.content_hash, 1 - d.distance, coalesce(-(c.lexical <#> question), 0),
      o.key, o.title, c.page, c.heading, c.position, c.content
    from dense d
    join chunks c on c.tenant_id = tenant and c.id = d.chunk_id
    join documents o on o.tenant_id = tenant and o.id = d.document_id
    union all
    select l.chunk_id, l.document_id, l.content_hash,
      coalesce((
        select 1 - (embedding <=> asked) from embeddings
        where tenant_id = tenant and chunk_id = l.chunk_id and space_id = space
      ), 0),
      -l.negated, o.key, o.title, c.page, c.heading, c.position, c.content
    from lexical l
    join chunks c on c.tenant_id = tenant and c.id = l.chunk_id
    join documents o on o.tenant_id = tenant and o.id = l.document_id
    where l.chunk_id not in (select chunk_id from dense);
end
$$;
comment on function candidates is
  'The best chunks of each leg that is asked, each with its score in both and its passage; by the collection''s indexes when `width` is given. '
  '`iterate`: on until the dense leg is full, whatever a filter or rows that are gone take away.';

create function dense_search(tenant uuid, wanted text, asked halfvec, depth integer)
  returns table (
    id bigint, name text, language text, space_id smallint, average_length real, indexed boolean, dimensions smallint, model text,
    chunk_id uuid, document_id uuid, content_hash bytea, cosine double precision, bm25 double precision,
    key text, title text, page integer, heading text, "position" integer, content text
  )
  language plpgsql stable rows 20
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  perform set_config('app.tenant', tenant::text, true);
  return query
    select c.*, f.* from found_collection(wanted) c
    left join lateral candidates(
      -- What another model has made finds nothing here, and is no error until the caller knows the collection.
      tenant, c.id, c.space_id, case when c.indexed then c.dimensions::int end,
      case when c.dimensions = vector_dims(asked) then asked end, null, null, null, null, null, depth, false
    ) f on true;
end
$$;
comment on function dense_search is 'A dense question in one statement: the collection, beside each of its candidates.';
