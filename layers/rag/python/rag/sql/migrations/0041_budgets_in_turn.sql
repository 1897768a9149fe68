-- Where there is a budget the calls of a tenant are counted one after another, so that each sees what those before it took.

create or replace function reserve_usage(
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
  if has_budget(
    tenant, caller, default_requests_per_day, default_tokens_per_day, default_tokens_per_month, default_usd_per_day, default_usd_per_month
  ) then
    -- What is read after it is of a later snapshot, which has whatever was counted before.
    perform pg_advisory_xact_lock(hashtextextended('usage ' || tenant, 0));
  end if;
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
