-- A document that failed may be asked for again, by those who may not write documents otherwise.

create policy for_definer on documents for select to rag_definer using (true);
create policy for_definer_to_retry on documents for update to rag_definer using (status = 'failed') with check (status = 'uploaded');
grant select (tenant_id, id, status) on documents to rag_definer;
grant update (status, error_code, error_message, updated_at) on documents to rag_definer;
grant create on schema public to rag_definer;
create function retry_document(wanted uuid) returns boolean
  language sql volatile security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    update documents set status = 'uploaded', error_code = null, error_message = null, updated_at = now()
    where tenant_id = (select app_tenant()) and id = wanted and status = 'failed'
    returning true;
  end;
comment on function retry_document is
  'Whether a document of the transaction''s tenant had failed, and is uploaded again; whatever it failed for, its next ingest begins.';
alter function retry_document owner to rag_definer;
set local role rag_definer;
revoke all on function retry_document from public;
grant execute on function retry_document to rag_query;
reset role;
revoke create on schema public from rag_definer;
