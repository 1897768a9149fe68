-- The primary key of documents is to be their only unique index, and the newest of their indexes.
-- Newest: of indexes that seem to cost the same the planner takes it. Until `documents` is analysed for the first time, its primary
-- key and those that begin with the tenant do; one of these then served the foreign key of each chunk, and read all of the tenant's documents.
-- Only: two runs that insert a document at once meet in whichever unique index is older, and `on conflict` knows that of the id alone. The id
-- is made of tenant, collection and key, so that it says all that the other one did.

alter table documents drop constraint documents_tenant_id_collection_id_key_key;
create index documents_in_order on documents (tenant_id, collection_id, key);
alter table documents drop constraint documents_pkey cascade;
alter table documents add primary key (tenant_id, id);
alter table chunks add foreign key (tenant_id, document_id) references documents on delete cascade;
alter table pending_embeddings add foreign key (tenant_id, document_id) references documents on delete cascade;
alter table notifications add foreign key (tenant_id, document_id) references documents on delete cascade;
alter table pending_documents add foreign key (tenant_id, document_id) references documents on delete cascade;
