-- Of a sandbox that is frozen in a transaction the locks are gone within thirty seconds, in all.

do $$
declare
  role text;
begin
  for role in select rolname from pg_roles where rolname like 'rag\_%' and 'idle_in_transaction_session_timeout=30s' = any (rolconfig) loop
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', role, '29s');
  end loop;
end
$$;
