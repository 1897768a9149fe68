-- A document that is asked for again is in nobody's hands: a run that was killed with it may still have its lease.

grant create on schema public to rag_definer;
grant update (leased_until) on documents to rag_definer;
set local role rag_definer;
create or replace function retry_document(wanted uuid) returns boolean
  language sql volatile security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    update documents set
      status = 'uploaded', error_code = null, error_message = null, updated_at = now(), unsettled_at = now(),
      attempts = 0, leased_message = 'retry', leased_until = null
    where tenant_id = (select app_tenant()) and id = wanted and status = 'failed'
    returning true;
  end;
reset role;
revoke create on schema public from rag_definer;
