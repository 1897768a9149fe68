-- Whoever is limited to collections makes and changes keys that reach no further than these. Others are still read, for they are counted.

create policy gives_no_more on api_keys as restrictive for insert to rag_query
  with check ((select app_collections()) is null or coalesce(collections <@ (select app_collections())::text[], false));
create policy changes_no_more on api_keys as restrictive for update to rag_query
  using ((select app_collections()) is null or coalesce(collections <@ (select app_collections())::text[], false));
