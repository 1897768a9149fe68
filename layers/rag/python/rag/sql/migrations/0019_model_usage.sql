-- What each tenant's calls to models came to, day by day, and how much of that a tenant may have.

alter table tenants
  add column requests_per_day bigint check (requests_per_day >= 0),
  add column tokens_per_day bigint check (tokens_per_day >= 0);
comment on column tenants.requests_per_day is 'Requests to models on one day of UTC, in the place of the deployment''s number; 0: as many as it likes.';
comment on column tenants.tokens_per_day is 'Tokens in and out on one day of UTC, likewise.';
grant update (requests_per_day, tokens_per_day) on tenants to rag_admin;
grant select (id, requests_per_day, tokens_per_day) on tenants to rag_query;

create table model_usage (
  tenant_id uuid not null references tenants on delete cascade,
  day date not null,
  model text not null check (model <> ''),
  shard smallint not null,
  requests bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  usd numeric(20, 10) not null default 0,
  primary key (tenant_id, day, model, shard)
);
comment on table model_usage is 'The sum over its shards. Who adds has a shard of its own, mostly, so that no two sandboxes wait for one row.';
alter table model_usage enable row level security;
alter table model_usage force row level security;
create policy of_tenant on model_usage to rag_ingest, rag_query
  using (tenant_id = (select app_tenant())) with check (tenant_id = (select app_tenant()));
create policy for_backup on model_usage for select to rag_backup using (true);
grant select on model_usage to rag_backup;
grant select, insert on model_usage to rag_ingest, rag_query;
grant update (requests, prompt_tokens, completion_tokens, usd) on model_usage to rag_ingest, rag_query;
