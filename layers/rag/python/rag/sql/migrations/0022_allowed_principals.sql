-- Who may see a document, where that is not everyone of its tenant.

alter table documents add column allowed_principals text[]
  check (cardinality(allowed_principals) between 1 and 100 and array_position(allowed_principals, null) is null);
comment on column documents.allowed_principals is
  'Identities (user:…, group:…, key:…) that see the document, beside the tenant''s admins; null: everyone of the tenant. It stands here only: what shows a document asks this row.';

-- Whether a tenant has any such document is asked with every search.
create index documents_restricted on documents (tenant_id, id) where allowed_principals is not null;
