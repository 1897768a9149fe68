-- Maintenance adds up what the last ingests of a collection left; until now only a later ingest did.

create policy of_tenant_for_owner on collection_statistics to rag_owner using (tenant_id = (select app_tenant()));
create policy of_tenant_for_owner on lexeme_changes to rag_owner using (tenant_id = (select app_tenant()));
create policy of_tenant_for_owner on lexeme_blocks to rag_owner using (tenant_id = (select app_tenant()));

grant create on schema public to rag_definer;
drop function collection_sizes();
create function collection_sizes() returns table (
    tenant_id uuid, collection_id bigint, space_id smallint, average_length real, reweighing boolean,
    chunk_count bigint, lexeme_count bigint, statistics_rows bigint
  )
  language sql stable security definer
  set search_path = pg_catalog, public, pg_temp
begin atomic
  select c.tenant_id, c.id, c.space_id, c.average_length, c.reweighing, sum(s.chunk_count), sum(s.lexeme_count), count(*)
  from collections c join collection_statistics s on s.collection_id = c.id
  group by c.tenant_id, c.id, c.space_id, c.average_length, c.reweighing;
end;
comment on function collection_sizes is 'How much each collection holds: what maintenance, as the owner, must know of the tenants and no more.';
alter function collection_sizes owner to rag_definer;
set local role rag_definer;
revoke all on function collection_sizes from public;
grant execute on function collection_sizes to rag_owner;
reset role;
revoke create on schema public from rag_definer;
