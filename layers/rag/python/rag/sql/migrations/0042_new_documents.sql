-- Whoever begins with a document hears whether any version of it was begun before: of one that is new no vector can be known.

create or replace function begin_document(
  tenant uuid, document uuid, collection bigint, named text, state text, failure_code text, failure text, version text, bytes bigint,
  allowed text[], lease_seconds double precision, run uuid, message text, delivery integer, place text, modified_at timestamptz
) returns text
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  before text;
begin
  if is_erased(tenant, place, document, modified_at) then
    return 'settled';
  end if;
  insert into documents as d (
    tenant_id, id, collection_id, key, status, version_id, size, error_code, error_message,
    attempts, leased_until, leased_by, leased_message, leased_delivery, allowed_principals
  ) values (
    tenant, document, collection, named, state, version, bytes, failure_code, failure,
    1, now() + make_interval(secs => lease_seconds), run, message, delivery, allowed
  )
  on conflict (tenant_id, id) do update set
    status = excluded.status, version_id = excluded.version_id, size = excluded.size,
    error_code = excluded.error_code, error_message = excluded.error_message, updated_at = now(),
    attempts = case when d.version_id = excluded.version_id then d.attempts else 0 end + 1,
    unsettled_at = case
      when d.status = 'uploaded' then d.updated_at
      when d.status = 'processing' and d.version_id = excluded.version_id then d.unsettled_at
      else now()
    end,
    requeued_at = case when d.version_id = excluded.version_id then d.requeued_at end,
    leased_until = excluded.leased_until, leased_by = excluded.leased_by,
    leased_message = excluded.leased_message, leased_delivery = excluded.leased_delivery,
    -- Of one that was only announced nobody knew. Else what is there is of the version before, and stays until it goes.
    allowed_principals = case when d.version_id is null then excluded.allowed_principals else d.allowed_principals end
  where d.version_id is distinct from excluded.version_id
    or ((d.status in ('uploaded', 'processing') or d.error_code in ('INTERNAL', 'STUCK', 'BUDGET', 'OUT_OF_MEMORY', 'DISK_FULL'))
      and (coalesce(d.leased_until, '-infinity') <= now() or d.leased_by = excluded.leased_by
        or (d.leased_message = excluded.leased_message and d.leased_delivery < excluded.leased_delivery)))
  returning old.version_id into before;
  if found then
    return case when before is null then 'new' else 'begun' end;
  end if;
  return coalesce((
    select case
      when status in ('ready', 'failed') and coalesce(error_code, '') not in ('INTERNAL', 'STUCK', 'BUDGET', 'OUT_OF_MEMORY', 'DISK_FULL') then 'settled'
      -- What is only given up for the time being may yet be needed from this message, once that run is over.
      when leased_message = message or status = 'failed' then 'busy'
      else 'duplicate'
    end
    from documents where tenant_id = tenant and id = document
  ), 'busy');
end
$$;
comment on function begin_document is
  'Marks a document as being processed, or as given up: begun, or new where none of it was begun before. Else why not: this version is settled, another run has'
  ' this very message (busy) or another one (duplicate).';
