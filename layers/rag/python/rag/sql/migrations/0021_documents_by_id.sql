-- Of indexes that seem to cost the same the planner takes the newest. Until `documents` is analysed for the first time, its primary
-- key and that of (collection, key) do; the latter then served the foreign key of each chunk, and read all of the tenant's documents.

alter table documents drop constraint documents_pkey cascade;
alter table documents add primary key (tenant_id, id);
alter table chunks add foreign key (tenant_id, document_id) references documents on delete cascade;
alter table pending_embeddings add foreign key (tenant_id, document_id) references documents on delete cascade;
alter table notifications add foreign key (tenant_id, document_id) references documents on delete cascade;
alter table pending_documents add foreign key (tenant_id, document_id) references documents on delete cascade;
