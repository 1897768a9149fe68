-- What users say of a document, to filter by. Row-level security of the table covers the new columns.
-- No index on it: containment and jsonpath are not leakproof, so that no role under row-level security would use one.
alter table documents
  add column metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
  add column metadata_error text;
comment on column documents.metadata is
  'User metadata: the sidecar''s where there is one, else what came with the upload of version_id; replaced as a whole.';
comment on column documents.metadata_error is 'Why the metadata in the bucket cannot be used; what was there before then stays.';
