-- Users come with tokens of an issuer: of a tenant that exists, and that nobody asked to erase.

grant select (id) on tenants to rag_authorize;
create policy for_authorize on tenants for select to rag_authorize using (true);
grant select (tenant_id, scope) on erasures to rag_authorize;
create policy for_authorize on erasures for select to rag_authorize using (true);
