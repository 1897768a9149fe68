-- How many requests a tenant and a key may make, what each may use of the models, and what each caller's calls came to.

alter table tenants
  add column requests_per_minute int check (requests_per_minute >= 0),
  add column tokens_per_month bigint check (tokens_per_month >= 0),
  add column usd_per_day numeric(16, 6) check (usd_per_day >= 0),
  add column usd_per_month numeric(16, 6) check (usd_per_month >= 0);
comment on column tenants.requests_per_minute is 'Requests to the API, in the place of the deployment''s number; 0: as many as it likes.';
comment on column tenants.tokens_per_month is 'As tokens_per_day, of a calendar month of UTC.';
comment on column tenants.usd_per_day is 'What the models'' tokens cost, likewise.';

alter table api_keys
  add column requests_per_minute int check (requests_per_minute >= 0),
  add column requests_per_day bigint check (requests_per_day >= 0),
  add column tokens_per_day bigint check (tokens_per_day >= 0),
  add column tokens_per_month bigint check (tokens_per_month >= 0),
  add column usd_per_day numeric(16, 6) check (usd_per_day >= 0),
  add column usd_per_month numeric(16, 6) check (usd_per_month >= 0);
comment on column api_keys.requests_per_minute is 'As the tenant''s of this name, for this key alone, in the place of the deployment''s number for keys.';
comment on column api_keys.tokens_per_day is 'As the tenant''s of this name, for this key alone; null: no more than the tenant has, as in all of these.';

grant update (requests_per_minute, tokens_per_month, usd_per_day, usd_per_month) on tenants to rag_admin;
grant update (requests_per_minute, requests_per_day, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month) on api_keys to rag_admin;
grant select (requests_per_minute, tokens_per_month, usd_per_day, usd_per_month) on tenants to rag_query;
grant select (tenant_id, id, requests_per_minute, requests_per_day, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month)
  on api_keys to rag_query, rag_ingest;
grant insert (requests_per_minute, requests_per_day, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month) on api_keys to rag_query;
grant update (requests_per_minute, requests_per_day, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month) on api_keys to rag_query;
-- The authorizer tells the API what key and tenant may.
grant select (requests_per_minute) on tenants to rag_authorize;
grant select (requests_per_minute) on api_keys to rag_authorize;

create table caller_usage (
  tenant_id uuid not null references tenants on delete cascade,
  principal text not null check (principal <> ''),
  day date not null,
  model text not null check (model <> ''),
  shard smallint not null,
  requests bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  usd numeric(20, 10) not null,
  primary key (tenant_id, principal, day, model, shard)
);
comment on table caller_usage is 'What model_usage adds up of the whole tenant, by who asked: key:<id>, user:<subject>, or ingest for documents.';
alter table caller_usage enable row level security;
alter table caller_usage force row level security;
create policy of_tenant on caller_usage to rag_ingest, rag_query
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on caller_usage for select to rag_backup using (true);
grant select on caller_usage to rag_backup;
grant select, insert on caller_usage to rag_ingest, rag_query;
grant update (requests, prompt_tokens, completion_tokens, usd) on caller_usage to rag_ingest, rag_query;
