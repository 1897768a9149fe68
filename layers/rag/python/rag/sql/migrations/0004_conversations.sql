-- Conversations live on with every question, and go when their time is over.

grant update (expires_at) on conversations to rag_query;
create index conversations_by_principal on conversations (tenant_id, principal, expires_at);
create index conversations_by_expiry on conversations (tenant_id, expires_at);

alter table messages add column turn uuid not null default gen_random_uuid();
comment on column messages.turn is 'A question and its answer share one: a transaction that is repeated after a lost connection adds them once.';
