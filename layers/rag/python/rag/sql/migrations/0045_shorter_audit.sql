-- The row of a request took a millisecond of the server. The places of a document's passages come together, so that nobody need sort them; a reference
-- from each document to the row that the same statement has just written is not looked up; what was counted before on a day is changed where it stands.

drop function write_audit(uuid, uuid, text, text, text, integer, text, inet, jsonb, uuid[], integer[]);

create function write_audit(
  tenant uuid, entry uuid, caller text, callers_role text, what text, status integer, request text, came_from inet, told jsonb,
  named uuid[], places text[]
) returns boolean
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
begin
  insert into audit_log (tenant_id, id, principal, role, action, outcome, request_id, address, details)
  values (tenant, entry, caller, callers_role, what, status, request, came_from, told)
  on conflict do nothing;
  if not found then
    return false;
  elsif cardinality(named) = 0 then
    return true;
  end if;
  -- The version is looked up here, so that no request waits for it: of a document that is being ingested anew the one before still serves.
  insert into audit_documents (tenant_id, audit_id, document_id, version_id, positions)
  select tenant, entry, n.document,
    case when d.status = 'ready' then d.version_id else (
      select i.version_id from ingestions i
      where i.tenant_id = tenant and i.document_id = d.id and i.outcome = 'ready' and d.chunk_count > 0
      order by i.id desc limit 1
    ) end,
    n.places::integer[]
  from unnest(named, places) as n (document, places) left join documents d on d.tenant_id = tenant and d.id = n.document;
  return true;
end
$$;
comment on function write_audit is
  'The row of a request, and of each document that it was about a row with the version that served and the places that were shown, as the text of an'
  ' array; false when it stands already, as after a lost connection.';
revoke execute on function write_audit from public;
grant execute on function write_audit to rag_query;

alter table audit_documents drop constraint audit_documents_tenant_id_audit_id_fkey;
comment on table audit_documents is
  'Which documents a request was about, and of those that it was shown the places of the passages. Written by write_audit(), and dropped, with their row.';
create policy for_definer on audit_documents to rag_definer using (true) with check (false);
grant select (tenant_id, audit_id), delete on audit_documents to rag_definer;

grant create on schema public to rag_definer;
set local role rag_definer;
create or replace function drop_old_audit(days integer, most integer) returns bigint
  language sql volatile security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    with old as (
      select tenant_id, id from audit_log where at < now() - make_interval(days => greatest(days, 30)) order by at limit most
    ), gone as (
      delete from audit_log a using old where a.tenant_id = old.tenant_id and a.id = old.id returning a.tenant_id, a.id
    ), documents_gone as (
      delete from audit_documents d using gone where d.tenant_id = gone.tenant_id and d.audit_id = gone.id
    )
    select count(*) from gone;
  end;

create or replace function erase_audit(most integer) returns bigint
  language sql volatile security definer
  set search_path = pg_catalog, public, pg_temp
  begin atomic
    with doomed as (
      select tenant_id, id from audit_log
      where tenant_id = (select app_tenant()) and exists (
        select from erasures e where e.tenant_id = (select app_tenant()) and e.scope = 'tenant' and e.finished_at is null
      )
      order by at limit most
    ), gone as (
      delete from audit_log a using doomed where a.tenant_id = doomed.tenant_id and a.id = doomed.id returning a.tenant_id, a.id
    ), documents_gone as (
      delete from audit_documents d using gone where d.tenant_id = gone.tenant_id and d.audit_id = gone.id
    )
    select count(*) from gone;
  end;
reset role;
revoke create on schema public from rag_definer;

create or replace function count_usage(
  tenant uuid, caller text, of_model text, counted_on date, of_shard integer,
  more_requests bigint, more_prompt_tokens bigint, more_completion_tokens bigint, more_usd numeric
) returns boolean
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
begin
  loop
    update model_usage set
      requests = requests + more_requests,
      prompt_tokens = prompt_tokens + more_prompt_tokens,
      completion_tokens = completion_tokens + more_completion_tokens,
      usd = usd + more_usd
    where tenant_id = tenant and day = counted_on and model = of_model and shard = of_shard;
    exit when found;
    insert into model_usage (tenant_id, day, model, shard, requests, prompt_tokens, completion_tokens)
    select t.id, counted_on, of_model, of_shard, 0, 0, 0 from tenants t where t.id = tenant
    on conflict do nothing;
    if not exists (select from tenants t where t.id = tenant) then
      return false;
    end if;
  end loop;
  loop
    update caller_usage set
      requests = requests + more_requests,
      prompt_tokens = prompt_tokens + more_prompt_tokens,
      completion_tokens = completion_tokens + more_completion_tokens,
      usd = usd + more_usd
    where tenant_id = tenant and principal = caller and day = counted_on and model = of_model and shard = of_shard;
    exit when found;
    insert into caller_usage (tenant_id, principal, day, model, shard, requests, prompt_tokens, completion_tokens, usd)
    values (tenant, caller, counted_on, of_model, of_shard, 0, 0, 0, 0)
    on conflict do nothing;
  end loop;
  return true;
end
$$;
