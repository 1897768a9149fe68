-- BM25's average length follows the collection: where it has drifted, maintenance weighs the chunks anew.

alter table chunks add column average_length real not null default 100 check (average_length > 0);
comment on column chunks.average_length is 'What `lexical` was weighed with; the collection''s, unless that was changed and maintenance is not through.';
alter table collections add column reweighing boolean not null default false;
comment on column collections.reweighing is 'Set with a new average length, until no chunk is left that was weighed with another one.';
comment on column collections.average_length is
  'What BM25 divides the lexemes of a chunk by: 100, or twice the true average where that is clearly less.';

-- One tenant at a time, like every function: the transaction names it.
create policy of_tenant_for_owner on chunks to rag_owner using (tenant_id = (select app_tenant()));
create policy of_tenant_for_owner on collections to rag_owner using (tenant_id = (select app_tenant()));

grant select (tenant_id, average_length, reweighing) on collections to rag_definer;
grant select (lexeme_count) on collection_statistics to rag_definer;
grant create on schema public to rag_definer;
drop function collection_sizes();
create function collection_sizes() returns table (
    tenant_id uuid, collection_id bigint, space_id smallint, average_length real, reweighing boolean, chunk_count bigint, lexeme_count bigint
  )
  language sql stable security definer
  set search_path = pg_catalog, public, pg_temp
begin atomic
  select c.tenant_id, c.id, c.space_id, c.average_length, c.reweighing, sum(s.chunk_count), sum(s.lexeme_count)
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
