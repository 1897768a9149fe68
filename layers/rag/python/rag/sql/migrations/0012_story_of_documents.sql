-- What was done for a document: every attempt with its durations and its price, and who is at work on it now.

alter table documents
  add column attempts integer not null default 0,
  add column unsettled_at timestamptz not null default now(),
  add column requeued_at timestamptz,
  add column leased_until timestamptz,
  add column leased_by uuid,
  add column leased_message text,
  add column leased_delivery integer;
comment on column documents.attempts is 'How often an ingest has begun with `version_id`; one that was killed leaves no row in ingestions.';
comment on column documents.unsettled_at is 'Since when this version waits to be ready or failed.';
comment on column documents.requeued_at is 'When the sweeper asked for this version once more.';
comment on column documents.leased_until is
  'Until then the run `leased_by` is at work on `version_id`: another message of it has nothing to do. A later delivery of the same message takes over, since the queue gives it out only when the one before is lost.';

alter table ingestions
  add column attempt integer not null default 1,
  add column error_message text,
  add column fetch_ms integer not null default 0,
  add column parse_ms integer not null default 0,
  add column embed_ms integer not null default 0,
  add column store_ms integer not null default 0,
  add column model_calls integer not null default 0,
  add column tokens bigint not null default 0,
  add column cost_usd double precision,
  drop constraint ingestions_outcome_check,
  add constraint ingestions_outcome_check
    check (outcome in ('ready', 'failed', 'forgotten', 'interrupted', 'superseded'));
comment on column ingestions.outcome is
  'interrupted: left to the next delivery, error_message says why; superseded: the object was another one by the time it was to be written.';
comment on column ingestions.cost_usd is 'Of the embeddings, at the price of the day; null where none is set.';
