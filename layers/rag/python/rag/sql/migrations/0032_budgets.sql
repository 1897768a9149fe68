-- What may be used of the models, and how much of it is used: of a tenant, and of the key that asks.

create function budgets(
  asking_tenant uuid, asking_principal text,
  default_requests_per_day bigint, default_tokens_per_day bigint, default_tokens_per_month bigint,
  default_usd_per_day numeric, default_usd_per_month numeric
) returns table (whose text, unit text, period text, most numeric, used numeric, resets_at timestamptz)
language sql stable
set search_path = pg_catalog, public
as $$
  with today as (select (now() at time zone 'utc')::date as day),
  limits as (
    select 'tenant' as whose, l.unit, l.period, l.most
    from tenants t, lateral (values
      ('requests', 'day', coalesce(t.requests_per_day, default_requests_per_day)::numeric),
      ('tokens', 'day', coalesce(t.tokens_per_day, default_tokens_per_day)),
      ('tokens', 'month', coalesce(t.tokens_per_month, default_tokens_per_month)),
      ('usd', 'day', coalesce(t.usd_per_day, default_usd_per_day)),
      ('usd', 'month', coalesce(t.usd_per_month, default_usd_per_month))
    ) l (unit, period, most)
    where t.id = asking_tenant
    union all
    select 'key', l.unit, l.period, l.most
    from api_keys k, lateral (values
      ('requests', 'day', k.requests_per_day::numeric),
      ('tokens', 'day', k.tokens_per_day),
      ('tokens', 'month', k.tokens_per_month),
      ('usd', 'day', k.usd_per_day),
      ('usd', 'month', k.usd_per_month)
    ) l (unit, period, most)
    where k.tenant_id = asking_tenant and k.id = case when starts_with(asking_principal, 'key:') then substr(asking_principal, 5) end
  )
  select l.whose, l.unit, l.period, l.most,
    case l.whose
      when 'tenant' then (
        select sum(case l.unit when 'requests' then u.requests when 'tokens' then u.prompt_tokens + u.completion_tokens else u.usd end)
        from model_usage u where u.tenant_id = asking_tenant and u.day between p.begins and (select day from today)
      )
      else (
        select sum(case l.unit when 'requests' then u.requests when 'tokens' then u.prompt_tokens + u.completion_tokens else u.usd end)
        from caller_usage u
        where u.tenant_id = asking_tenant and u.principal = asking_principal and u.day between p.begins and (select day from today)
      )
    end,
    p.ends at time zone 'utc'
  from limits l
  join (
    select 'day' as period, t.day as begins, (t.day + 1)::timestamp as ends from today t
    union all select 'month', date_trunc('month', t.day)::date, date_trunc('month', t.day) + interval '1 month' from today t
  ) p using (period)
  where l.most > 0
$$;
comment on function budgets is 'As whoever calls it, which sees one tenant; `used` is null where nothing is. Without limits nothing is added up.';
revoke execute on function budgets from public;
grant execute on function budgets to rag_query, rag_ingest;
