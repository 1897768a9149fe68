-- In how many chunks a lexeme stands is kept for some hundred lexemes in one row: what many ingests changed is then
-- added in as many updates as there are rows, not lexemes.

create table lexeme_blocks (
  tenant_id uuid not null,
  collection_id bigint not null,
  first integer not null,
  lexemes integer[] not null,
  document_frequencies integer[] not null,
  primary key (tenant_id, collection_id, first),
  foreign key (tenant_id, collection_id) references collections on delete cascade,
  check (cardinality(lexemes) = cardinality(document_frequencies))
  -- Room for a row's next version beside it: then no index has to learn of it, and no space is lost.
) with (fillfactor = 50);
alter table lexeme_blocks alter column lexemes set storage plain, alter column document_frequencies set storage plain;
comment on table lexeme_blocks is 'In how many chunks a lexeme stands, but for what lexeme_changes says.';
comment on column lexeme_blocks.first is 'No lexeme of the row is less, and every one of the rows before is; 0 in the first row.';
comment on column lexeme_blocks.lexemes is 'In their order, each once.';

alter table lexeme_statistics no force row level security;
insert into lexeme_blocks (tenant_id, collection_id, first, lexemes, document_frequencies)
select tenant_id, collection_id, case block when 0 then 0 else min(lexeme) end,
  array_agg(lexeme order by lexeme), array_agg(document_frequency order by lexeme)
from (
  select tenant_id, collection_id, lexeme, document_frequency,
    (row_number() over (partition by tenant_id, collection_id order by lexeme) - 1) / 225 as block
  from lexeme_statistics where document_frequency <> 0
) as counted
group by tenant_id, collection_id, block;
drop table lexeme_statistics;
comment on table lexeme_changes is
  'By how much each ingest changed in how many chunks a lexeme stands; added up into lexeme_blocks when some have gathered.';

alter table lexeme_blocks enable row level security;
alter table lexeme_blocks force row level security;
create policy of_tenant on lexeme_blocks to rag_ingest, rag_query
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on lexeme_blocks for select to rag_backup using (true);
grant select on lexeme_blocks to rag_backup, rag_query;
grant select, insert, update, delete on lexeme_blocks to rag_ingest;
