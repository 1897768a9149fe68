-- What the lexical leg of a large collection finds brings its content's hash along, so that its rows are read once.

grant select (content_hash) on chunks to rag_definer;
grant create on schema public to rag_definer;
drop function lexical_candidates(bigint, integer[], sparsevec);
create function lexical_candidates(wanted_collection bigint, rare integer[], question sparsevec)
  returns table (chunk_id uuid, document_id uuid, content_hash bytea, negated double precision)
  language plpgsql stable security definer rows 1000
  set search_path = pg_catalog, public, pg_temp
  -- With the values known, the planner sees that the partial index of this collection serves.
  set plan_cache_mode = force_custom_plan
  as $$
begin
  return query
    select c.id, c.document_id, c.content_hash, c.lexical <#> question from chunks c
    where c.tenant_id = (select app_tenant()) and c.collection_id = wanted_collection and c.lexemes && rare;
end
$$;
comment on function lexical_candidates is
  'The chunks of a collection that have one of these lexemes, scored; of the tenant of the transaction, whoever calls.';
alter function lexical_candidates owner to rag_definer;
set local role rag_definer;
revoke all on function lexical_candidates from public;
grant execute on function lexical_candidates to rag_query;
reset role;
revoke create on schema public from rag_definer;
