-- Search at every size: how a large collection is searched by its own indexes, and who makes them.

-- A filter finds its documents first; their vectors are reached by this.
create index embeddings_by_document on embeddings (tenant_id, document_id, space_id);

-- A search is over before compiling it would pay.
alter role rag_query set jit = off;

-- Two functions must look past row-level security, and say themselves what they let out. Their owner may read these
-- columns of every tenant; nobody can log in as it.
do $$
begin
  if not exists (select from pg_roles where rolname = 'rag_definer') then
    create role rag_definer nologin nosuperuser nocreatedb nocreaterole noinherit;
  end if;
  -- To become it below, and not to have its rights otherwise.
  execute format('grant rag_definer to %I with inherit false, set true', current_user);
end
$$;
grant create, usage on schema public to rag_definer;
create policy for_definer on chunks for select to rag_definer using (true);
grant select (tenant_id, id, collection_id, document_id, lexical, lexemes) on chunks to rag_definer;

-- The overlap of arrays is not leakproof, so that under row-level security no index would serve it.
create function lexical_candidates(wanted_collection bigint, rare integer[], question sparsevec)
  returns table (chunk_id uuid, document_id uuid, negated double precision)
  language plpgsql stable security definer rows 1000
  set search_path = pg_catalog, public, pg_temp
  -- With the values known, the planner sees that the partial index of this collection serves.
  set plan_cache_mode = force_custom_plan
  as $$
begin
  return query
    select c.id, c.document_id, c.lexical <#> question from chunks c
    where c.tenant_id = (select app_tenant()) and c.collection_id = wanted_collection and c.lexemes && rare;
end
$$;
comment on function lexical_candidates is
  'The chunks of a collection that have one of these lexemes, scored; of the tenant of the transaction, whoever calls.';
alter function lexical_candidates owner to rag_definer;

create policy for_definer on collections for select to rag_definer using (true);
create policy for_definer on collection_statistics for select to rag_definer using (true);
grant select (id, space_id) on collections to rag_definer;
grant select (collection_id, chunk_count) on collection_statistics to rag_definer;

create function collection_sizes() returns table (collection_id bigint, space_id smallint, chunk_count bigint)
  language sql stable security definer
  set search_path = pg_catalog, public, pg_temp
begin atomic
  select c.id, c.space_id, sum(s.chunk_count)
  from collections c join collection_statistics s on s.collection_id = c.id group by c.id, c.space_id;
end;
comment on function collection_sizes is 'How many chunks each collection has: what maintenance, as the owner, must know of the tenants and no more.';
alter function collection_sizes owner to rag_definer;

set local role rag_definer;
revoke all on function lexical_candidates, collection_sizes from public;
grant execute on function lexical_candidates to rag_query;
grant execute on function collection_sizes to rag_owner;
reset role;
revoke create on schema public from rag_definer;
