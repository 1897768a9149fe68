-- What every request writes, as functions: a session keeps their plans, which took longer to make than the rows to write. Under the
-- rights and row-level security of who calls them; each is a transaction by itself, of the scope that is bound while its arguments are made.

create or replace function budgets(
  asking_tenant uuid, asking_principal text,
  default_requests_per_day bigint, default_tokens_per_day bigint, default_tokens_per_month bigint,
  default_usd_per_day numeric, default_usd_per_month numeric
) returns table (whose text, unit text, period text, most numeric, used numeric, resets_at timestamptz)
  language plpgsql stable
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
declare
  today date := (now() at time zone 'utc')::date;
  asking_key text := case when starts_with(asking_principal, 'key:') then substr(asking_principal, 5) end;
  asked record;
begin
  for asked in
    select 'tenant' as whose, l.unit, l.period, l.most
    from tenants t, lateral (values
      ('requests', 'day', coalesce(t.requests_per_day, default_requests_per_day)::numeric),
      ('tokens', 'day', coalesce(t.tokens_per_day, default_tokens_per_day)),
      ('tokens', 'month', coalesce(t.tokens_per_month, default_tokens_per_month)),
      ('usd', 'day', coalesce(t.usd_per_day, default_usd_per_day)),
      ('usd', 'month', coalesce(t.usd_per_month, default_usd_per_month))
    ) l (unit, period, most)
    where t.id = asking_tenant and l.most > 0
    union all
    select 'key', l.unit, l.period, l.most
    from api_keys k, lateral (values
      ('requests', 'day', k.requests_per_day::numeric),
      ('tokens', 'day', k.tokens_per_day),
      ('tokens', 'month', k.tokens_per_month),
      ('usd', 'day', k.usd_per_day),
      ('usd', 'month', k.usd_per_month)
    ) l (unit, period, most)
    where k.tenant_id = asking_tenant and k.id = asking_key and l.most > 0
  loop
    whose := asked.whose;
    unit := asked.unit;
    period := asked.period;
    most := asked.most;
    if whose = 'tenant' then
      select sum(case asked.unit when 'requests' then u.requests when 'tokens' then u.prompt_tokens + u.completion_tokens else u.usd end)
      into used from model_usage u
      where u.tenant_id = asking_tenant and u.day between date_trunc(asked.period, today::timestamp)::date and today;
    else
      select sum(case asked.unit when 'requests' then u.requests when 'tokens' then u.prompt_tokens + u.completion_tokens else u.usd end)
      into used from caller_usage u
      where u.tenant_id = asking_tenant and u.principal = asking_principal
        and u.day between date_trunc(asked.period, today::timestamp)::date and today;
    end if;
    resets_at := (date_trunc(asked.period, today::timestamp) + ('1 ' || asked.period)::interval) at time zone 'utc';
    return next;
  end loop;
end
$$;

create function settle_usage(
  tenant uuid, caller text, of_model text, counted_on date, of_shard integer,
  more_requests bigint, more_prompt_tokens bigint, more_completion_tokens bigint, more_usd numeric
) returns void
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
begin
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
end
$$;
comment on function settle_usage is 'Adds to what was reserved for a call what it came to beyond that, or less than it: numbers may be negative.';

create function reserve_usage(
  tenant uuid, caller text, of_model text, of_shard integer, most_prompt_tokens bigint, most_completion_tokens bigint, most_usd numeric,
  default_requests_per_day bigint, default_tokens_per_day bigint, default_tokens_per_month bigint,
  default_usd_per_day numeric, default_usd_per_month numeric
) returns table (day date, whose text, unit text, period text, most numeric, resets_at timestamptz, seconds_left double precision)
  language plpgsql volatile rows 1
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  day := (now() at time zone 'utc')::date;
  select b.whose, b.unit, b.period, b.most, b.resets_at, extract(epoch from b.resets_at - now())
  into whose, unit, period, most, resets_at, seconds_left
  from budgets(
    tenant, caller, default_requests_per_day, default_tokens_per_day, default_tokens_per_month, default_usd_per_day, default_usd_per_month
  ) b
  where coalesce(b.used, 0) + case b.unit
      when 'requests' then 1 when 'tokens' then most_prompt_tokens + most_completion_tokens else most_usd
    end > b.most
  order by b.resets_at desc, b.whose desc, b.unit limit 1;
  if not found then
    insert into model_usage as m (tenant_id, day, model, shard, requests, prompt_tokens, completion_tokens, usd)
    select t.id, reserve_usage.day, of_model, of_shard, 1, most_prompt_tokens, most_completion_tokens, most_usd
    from tenants t where t.id = tenant
    on conflict (tenant_id, day, model, shard) do update set
      requests = m.requests + excluded.requests,
      prompt_tokens = m.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = m.completion_tokens + excluded.completion_tokens,
      usd = m.usd + excluded.usd;
    if not found then
      return;
    end if;
    insert into caller_usage as m (tenant_id, principal, day, model, shard, requests, prompt_tokens, completion_tokens, usd)
    values (tenant, caller, reserve_usage.day, of_model, of_shard, 1, most_prompt_tokens, most_completion_tokens, most_usd)
    on conflict (tenant_id, principal, day, model, shard) do update set
      requests = m.requests + excluded.requests,
      prompt_tokens = m.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = m.completion_tokens + excluded.completion_tokens,
      usd = m.usd + excluded.usd;
  end if;
  return next;
end
$$;
comment on function reserve_usage is
  'Counts a call before it is made, unless a budget has no room for it: then of those that have none the one that lasts longest. No row without a tenant.';

create function write_audit(
  tenant uuid, entry uuid, caller text, callers_role text, what text, status integer, request text, came_from inet, told jsonb,
  named uuid[], places integer[]
) returns void
  language plpgsql volatile
  set plan_cache_mode = force_generic_plan
  as $$
begin
  insert into audit_log (tenant_id, id, principal, role, action, outcome, request_id, address, details)
  values (tenant, entry, caller, callers_role, what, status, request, came_from, told)
  on conflict do nothing;
  -- Not when it is repeated after a lost connection.
  if not found or cardinality(named) = 0 then
    return;
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
end
$$;
comment on function write_audit is 'The row of a request, and of each document that it was about a row with the version that served.';

revoke execute on function settle_usage, reserve_usage, write_audit from public;
grant execute on function settle_usage, reserve_usage to rag_query, rag_ingest;
grant execute on function write_audit to rag_query;

create function presented_key(wanted text, noted_seconds double precision)
  returns table (
    tenant_id uuid, digest bytea, role text, collections text[], groups text[], unnoted boolean, requests_per_minute integer,
    tenants_requests_per_minute integer
  )
  language plpgsql stable rows 1
  set plan_cache_mode = force_generic_plan
  as $$
#variable_conflict use_column
begin
  return query
    select k.tenant_id, k.digest, k.role, k.collections, k.groups,
      coalesce(k.last_used_at < now() - make_interval(secs => noted_seconds), true), k.requests_per_minute, t.requests_per_minute
    from api_keys k join tenants t on t.id = k.tenant_id
    where k.id = wanted and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
end
$$;
comment on function presented_key is 'The live key of this id, with what it may; `unnoted`: that it is used should be noted again.';
revoke execute on function presented_key from public;
grant execute on function presented_key to rag_authorize;
