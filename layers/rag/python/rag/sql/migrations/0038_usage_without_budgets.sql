-- Who has no budget needs no reservation: what was used is added up with the settlement, which tells whether there is still none.
-- What is settled with a row of the audit log is settled once, however often the statement is sent.

drop function reserve_usage(
  uuid, text, text, integer, bigint, bigint, numeric, bigint, bigint, bigint, numeric, numeric
);
drop function settle_usage(uuid, text, text, date, integer, bigint, bigint, bigint, numeric);
drop function write_audit(uuid, uuid, text, text, text, integer, text, inet, jsonb, uuid[], integer[]);

create function has_budget(
  tenant uuid, caller text,
  default_requests_per_day bigint, default_tokens_per_day bigint, default_tokens_per_month bigint,
  default_usd_per_day numeric, default_usd_per_month numeric
) returns boolean
  language plpgsql stable
  set plan_cache_mode = force_generic_plan
  as $$
declare
  asking_key text := case when starts_with(caller, 'key:') then substr(caller, 5) end;
begin
  return exists (
    select from tenants t
    where t.id = tenant and greatest(
      coalesce(t.requests_per_day, default_requests_per_day), coalesce(t.tokens_per_day, default_tokens_per_day),
      coalesce(t.tokens_per_month, default_tokens_per_month), coalesce(t.usd_per_day, default_usd_per_day),
      coalesce(t.usd_per_month, default_usd_per_month)
    ) > 0
  ) or exists (
    select from api_keys k
    where k.tenant_id = tenant and k.id = asking_key
      and greatest(k.requests_per_day, k.tokens_per_day, k.tokens_per_month, k.usd_per_day, k.usd_per_month) > 0
  );
end
$$;
comment on function has_budget is 'Whether budgets() has a row for this caller, without adding up what is used of it.';

create function count_usage(
  tenant uuid, caller text, of_model text, counted_on date, of_shard integer,
  more_requests bigint, more_prompt_tokens bigint, more_completion_tokens bigint, more_usd numeric
) returns boolean
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
begin
  insert into model_usage as m (tenant_id, day, model, shard, requests, prompt_tokens, completion_tokens, usd)
  select t.id, counted_on, of_model, of_shard, more_requests, more_prompt_tokens, more_completion_tokens, more_usd
  from tenants t where t.id = tenant
  on conflict (tenant_id, day, model, shard) do update set
    requests = m.requests + excluded.requests,
    prompt_tokens = m.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = m.completion_tokens + excluded.completion_tokens,
    usd = m.usd + excluded.usd;
  if not found then
    return false;
  end if;
  insert into caller_usage as m (tenant_id, principal, day, model, shard, requests, prompt_tokens, completion_tokens, usd)
  values (tenant, caller, counted_on, of_model, of_shard, more_requests, more_prompt_tokens, more_completion_tokens, more_usd)
  on conflict (tenant_id, principal, day, model, shard) do update set
    requests = m.requests + excluded.requests,
    prompt_tokens = m.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = m.completion_tokens + excluded.completion_tokens,
    usd = m.usd + excluded.usd;
  return true;
end
$$;
comment on function count_usage is 'Adds to what the tenant used, and to what its caller did; false without such a tenant.';

create function settle_usage(
  tenant uuid, caller text, of_model text, counted_on date, of_shard integer,
  more_requests bigint, more_prompt_tokens bigint, more_completion_tokens bigint, more_usd numeric,
  default_requests_per_day bigint, default_tokens_per_day bigint, default_tokens_per_month bigint,
  default_usd_per_day numeric, default_usd_per_month numeric
) returns boolean
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
begin
  if counted_on is null then
    return count_usage(
      tenant, caller, of_model, (now() at time zone 'utc')::date, of_shard,
      more_requests, more_prompt_tokens, more_completion_tokens, more_usd
    ) and not has_budget(
      tenant, caller, default_requests_per_day, default_tokens_per_day, default_tokens_per_month, default_usd_per_day, default_usd_per_month
    );
  end if;
  update model_usage set
    requests = greatest(requests + more_requests, 0),
    prompt_tokens = greatest(prompt_tokens + more_prompt_tokens, 0),
    completion_tokens = greatest(completion_tokens + more_completion_tokens, 0),
    usd = greatest(usd + more_usd, 0)
  where tenant_id = tenant and day = counted_on and model = of_model and shard = of_shard;
  update caller_usage set
    requests = greatest(requests + more_requests, 0),
    prompt_tokens = greatest(prompt_tokens + more_prompt_tokens, 0),
    completion_tokens = greatest(completion_tokens + more_completion_tokens, 0),
    usd = greatest(usd + more_usd, 0)
  where tenant_id = tenant and principal = caller and day = counted_on and model = of_model and shard = of_shard;
  return false;
end
$$;
comment on function settle_usage is
  'Adds to what was reserved on a day what a call came to beyond that, which may be negative; without a day all of it. True: the caller has no budget.';

create function reserve_usage(
  tenant uuid, caller text, of_model text, of_shard integer, most_prompt_tokens bigint, most_completion_tokens bigint, most_usd numeric,
  default_requests_per_day bigint, default_tokens_per_day bigint, default_tokens_per_month bigint,
  default_usd_per_day numeric, default_usd_per_month numeric
) returns table (
  day date, whose text, unit text, period text, most numeric, resets_at timestamptz, seconds_left double precision
)
  language plpgsql volatile rows 1
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  asked record;
begin
  for asked in
    select b.whose, b.unit, b.period, b.most, b.resets_at, coalesce(b.used, 0) + case b.unit
        when 'requests' then 1 when 'tokens' then most_prompt_tokens + most_completion_tokens else most_usd
      end > b.most as refuses
    from budgets(
      tenant, caller, default_requests_per_day, default_tokens_per_day, default_tokens_per_month, default_usd_per_day, default_usd_per_month
    ) b
    order by refuses desc, b.resets_at desc, b.whose desc, b.unit limit 1
  loop
    if asked.refuses then
      whose := asked.whose;
      unit := asked.unit;
      period := asked.period;
      most := asked.most;
      resets_at := asked.resets_at;
      seconds_left := extract(epoch from asked.resets_at - now());
      return next;
      return;
    end if;
    day := (now() at time zone 'utc')::date;
    if count_usage(tenant, caller, of_model, day, of_shard, 1, most_prompt_tokens, most_completion_tokens, most_usd) then
      return next;
    end if;
    return;
  end loop;
  if exists (select from tenants t where t.id = tenant) then
    return next;
  end if;
end
$$;
comment on function reserve_usage is
  'Counts a call before it is made and returns the day; where a budget has no room for it that budget, of several the one that lasts longest; where'
  ' there is no budget a row of nulls, and nothing is counted. No row without a tenant.';

create function write_audit(
  tenant uuid, entry uuid, caller text, callers_role text, what text, status integer, request text, came_from inet, told jsonb,
  named uuid[], places integer[]
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
    n.positions
  from (
    select given.document, coalesce(array_agg(given.place order by given.place) filter (where given.place is not null), '{}') as positions
    from unnest(named, places) as given (document, place)
    group by given.document
  ) as n left join documents d on d.tenant_id = tenant and d.id = n.document;
  return true;
end
$$;
comment on function write_audit is
  'The row of a request, and of each document that it was about a row with the version that served; false when it stands already, as after a lost connection.';

revoke execute on function has_budget, count_usage, settle_usage, reserve_usage, write_audit from public;
grant execute on function has_budget, count_usage, settle_usage, reserve_usage to rag_query, rag_ingest;
grant execute on function write_audit to rag_query;
