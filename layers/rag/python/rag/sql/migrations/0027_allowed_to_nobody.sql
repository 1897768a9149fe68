-- A document of which cannot be told who may see it, because what says so is not known yet or cannot be read, is nobody's but the admins'.

alter table documents
  drop constraint documents_allowed_principals_check,
  add constraint documents_allowed_principals_check
    check (cardinality(allowed_principals) <= 100 and array_position(allowed_principals, null) is null);
comment on column documents.allowed_principals is
  'Identities (user:…, group:…, key:…) that see the document, beside the tenant''s admins; null: everyone of the tenant, {}: nobody, while it cannot be told. It stands here only: what shows a document asks this row.';
