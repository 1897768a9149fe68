-- What text recognition read of a document that is not ready yet: a page is paid for once, however often its document is delivered.

create table recognised_pages (
  tenant_id uuid not null,
  document_id uuid not null,
  content_hash bytea not null,
  page integer not null,
  content text not null,
  primary key (tenant_id, document_id, content_hash, page),
  foreign key (tenant_id, document_id) references documents on delete cascade
);
comment on table recognised_pages is 'Checkpoint of a document whose pages are being recognised, of the file with this hash; emptied when it is ready, failed or gone.';

alter table recognised_pages enable row level security;
alter table recognised_pages force row level security;
create policy of_tenant on recognised_pages to rag_ingest using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy of_tenant_for_erase on recognised_pages to rag_erase
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on recognised_pages for select to rag_backup using (true);
grant select, insert, delete on recognised_pages to rag_ingest;
grant select, delete on recognised_pages to rag_erase;
grant select on recognised_pages to rag_backup;
