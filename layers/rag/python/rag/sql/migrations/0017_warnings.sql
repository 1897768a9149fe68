-- What the owner of a document should know of it although it is ready: pages that cannot be found, for one.

alter table documents add column warnings text[] not null default '{}';
comment on column documents.warnings is 'What is missing of a document that is ready, in words for its owner.';

alter table pending_documents add column warnings text[] not null default '{}';
