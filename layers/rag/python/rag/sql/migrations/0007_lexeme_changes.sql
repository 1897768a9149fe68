-- What an ingest changes in the statistics is one row, not one for each lexeme: ten times cheaper to append.

create table lexeme_changes (
  tenant_id uuid not null,
  collection_id bigint not null,
  id bigint generated always as identity,
  changes sparsevec(1000000000) not null,
  primary key (tenant_id, collection_id, id),
  foreign key (tenant_id, collection_id) references collections on delete cascade
);
-- A question reads a few places in each: out of the row itself in microseconds, where TOAST would take a hundred.
alter table lexeme_changes alter column changes set storage plain;
comment on table lexeme_changes is
  'By how much each ingest changed in how many chunks a lexeme stands; added up into lexeme_statistics when some have gathered.';
alter table lexeme_changes enable row level security;
alter table lexeme_changes force row level security;
create policy of_tenant on lexeme_changes to rag_ingest, rag_query
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on lexeme_changes for select to rag_backup using (true);
grant select on lexeme_changes to rag_backup, rag_query;
grant select, insert, delete on lexeme_changes to rag_ingest;

alter table lexeme_statistics no force row level security;
with taken as (delete from lexeme_statistics returning tenant_id, collection_id, lexeme, document_frequency)
insert into lexeme_statistics (tenant_id, collection_id, lexeme, id, document_frequency)
select tenant_id, collection_id, lexeme, 0, sum(document_frequency) from taken group by tenant_id, collection_id, lexeme;
alter table lexeme_statistics force row level security;
alter table lexeme_statistics drop constraint lexeme_statistics_pkey;
alter table lexeme_statistics drop column id;
alter table lexeme_statistics add primary key (tenant_id, collection_id, lexeme);
comment on table lexeme_statistics is 'In how many chunks a lexeme stands, but for what lexeme_changes says.';
