-- Maintenance asks how much of the nearest a collection's index finds: of one tenant at a time, which the transaction names.

create policy of_tenant_for_owner on embeddings for select to rag_owner using (tenant_id = (select app_tenant()));
