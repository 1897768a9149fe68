-- What the owner's maintenance may hold and see.

-- It locks documents: frozen, it must not hold them longer than any other function.
alter role rag_owner set idle_in_transaction_session_timeout = '30s';

create policy of_expired_for_owner on conversations to rag_owner using (expires_at <= now());
