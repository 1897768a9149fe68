-- Which version of its sidecar a document is described by, so that a lost event of a sidecar is found as one of a document is.

alter table documents add column sidecar_version_id text;
comment on column documents.sidecar_version_id is
  'The version of the sidecar that metadata and permissions were read from when they were written last; null: there was none then, or it was not kept yet.';
grant select (sidecar_version_id) on documents to rag_reconcile;

alter table reconciliations add column misdescribed bigint not null default 0;
