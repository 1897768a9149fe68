-- Every statement that the product runs, by name. Read by rag.store.statements; parameters are always bound.
-- `{name}` stands for the text of that name. What a question runs stands in functions (sql/migrations/0018), whose plans a session keeps.

-- begin_read --
-- One snapshot for everything a request reads; the scope is the transaction's own and ends with it.
begin isolation level repeatable read, read only;
select {scope}

-- begin_write --
begin isolation level read committed;
select {scope}

-- commit --
-- Not of a transaction whose tenant something has changed: the error takes the commit with it.
select keep_tenant(%(tenant)s); commit

-- scope --
-- Part of the statements here. What stays unsaid shows nothing: everything is said, by a star that no array is.
set_config('app.tenant', %(tenant)s::text, true),
set_config('app.identities', coalesce(%(identities)s::text[]::text, '*'), true),
set_config('app.collections', coalesce(%(collections)s::text[]::text, '*'), true)

-- unwaited --
-- Part of the statements here. Their commit does not wait for the disk: a server that crashes may forget the last half second of what was counted.
set_config('synchronous_commit', 'off', true)

-- reserve_usage --
select * from reserve_usage(
  (array[{scope}, {unwaited}])[1]::uuid, %(principal)s, %(model)s, %(shard)s,
  %(prompt_tokens)s, %(completion_tokens)s, %(usd)s, {default_budgets}
)

-- default_budgets --
-- Part of the statements here.
%(requests_per_day)s, %(tokens_per_day)s, %(tokens_per_month)s, %(usd_per_day)s::float8::numeric, %(usd_per_month)s::float8::numeric

-- settle_usage --
select settle_usage((array[{scope}, {unwaited}])[1]::uuid, {settlement})

-- settlement --
-- Part of the statements here.
%(payer)s, %(model)s, %(day)s, %(shard)s, %(requests)s, %(prompt_tokens)s, %(completion_tokens)s, %(usd)s, {default_budgets}

-- budgets --
select whose, unit, period, most, coalesce(used, 0), resets_at
from budgets(
  %(tenant)s, %(principal)s, %(requests_per_day)s, %(tokens_per_day)s, %(tokens_per_month)s, %(usd_per_day)s, %(usd_per_month)s
)
order by whose desc, period, unit

-- usage_so_far --
-- Of today and of this month; of the whole tenant where no principal is named.
select p.period, coalesce(sum(u.requests), 0)::bigint, coalesce(sum(u.prompt_tokens), 0)::bigint,
  coalesce(sum(u.completion_tokens), 0)::bigint, coalesce(sum(u.usd), 0)
from (
  select 'day' as period, (now() at time zone 'utc')::date as begins
  union all select 'month', date_trunc('month', now() at time zone 'utc')::date
) p
left join caller_usage u on u.tenant_id = %(tenant)s and (%(principal)s::text is null or u.principal = %(principal)s)
  and u.day between p.begins and (now() at time zone 'utc')::date
group by p.period order by p.period

-- usage --
select case when %(by_day)s then day end, case when %(by_month)s then to_char(day, 'YYYY-MM') end,
  case when %(by_model)s then model end, case when %(by_key)s then principal end,
  sum(requests)::bigint, sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint, sum(usd)
from caller_usage
where tenant_id = %(tenant)s and (%(principal)s::text is null or principal = %(principal)s) and day between %(first)s and %(last)s
group by 1, 2, 3, 4 order by 1, 2, 3, 4
limit %(most)s

-- collection --
select * from found_collection(%(name)s)

-- search --
-- The scope is bound while its arguments are made: the statement is a transaction of its own.
select * from search(
  (array[{scope}])[1]::uuid, %(name)s, %(language)s, %(embedding)s::vector::halfvec, %(lexemes)s::int[], %(counts)s::int[], %(filters)s::jsonb,
  %(depth)s::int, %(shown)s::int, %(exact_chunks)s::int, %(budget)s::int, %(alone)s::int, %(ef_search)s::int
)

-- create_collection --
-- Nothing happens when it exists; null when the model's embedding space does not.
insert into collections (tenant_id, name, language, space_id)
select %(tenant)s, %(name)s, %(language)s, id from embedding_spaces where model = %(model)s and dimensions = %(dimensions)s
on conflict (tenant_id, name) do nothing
returning id

-- list_collections --
select c.name, c.language, c.created_at,
  coalesce((select sum(s.document_count) from collection_statistics s where s.tenant_id = c.tenant_id and s.collection_id = c.id), 0)::bigint,
  coalesce((select sum(s.chunk_count) from collection_statistics s where s.tenant_id = c.tenant_id and s.collection_id = c.id), 0)::bigint,
  unready.*
from collections c cross join lateral (
  select count(*) filter (where d.status = 'uploaded'), count(*) filter (where d.status = 'processing'),
    count(*) filter (where d.status = 'failed'), coalesce(sum(p.chunk_count), 0)::bigint, coalesce(sum(p.embedded_through), 0)::bigint
  from documents d left join pending_documents p on p.tenant_id = d.tenant_id and p.document_id = d.id
  where d.tenant_id = c.tenant_id and d.collection_id = c.id and d.status <> 'ready'
) as unready
where c.tenant_id = %(tenant)s and (%(name)s::text is null or c.name = %(name)s::text)
order by c.name

-- candidate_embeddings --
select chunk_id, embedding from embeddings
where tenant_id = %(tenant)s and space_id = %(space)s and chunk_id = any (%(chunks)s::uuid[])

-- whereabouts --
-- What a search could see of one document: whether it looks there at all, and the document's best chunk in each leg.
select d.status, d.error_code, d.collection_id = %(collection)s,
  %(filters)s::jsonb is null or d.id in (select id from filtered_documents(%(collection)s, %(filters)s::jsonb))
from documents d where d.tenant_id = %(tenant)s and d.id = %(document)s

-- best_of_document --
with scored as (
  select c.id, c.document_id, c.content_hash,
    case when %(dense)s then 1 - (e.embedding <=> %(embedding)s::vector::halfvec) else 0 end as cosine,
    case when %(lexical)s then -(c.lexical <#> %(question)s::sparsevec) else 0 end as bm25
  from chunks c join embeddings e on e.tenant_id = c.tenant_id and e.space_id = %(space)s and e.chunk_id = c.id
  where c.tenant_id = %(tenant)s and c.document_id = %(document)s
)
(select * from scored order by cosine desc, id limit 1) union (select * from scored order by bm25 desc, id limit 1)

-- documents --
-- A page of documents in the order of collection and key; the cursor is the last one seen.
select d.id, c.name, d.key, d.status, d.title, d.media_type, d.version_id, d.size, d.chunk_count,
  d.error_code, d.error_message, d.created_at, d.updated_at, d.metadata, d.metadata_error, d.warnings,
  p.chunk_count, p.embedded_through, p.complete, d.allowed_principals
from documents d join collections c on c.tenant_id = d.tenant_id and c.id = d.collection_id
left join pending_documents p on p.tenant_id = d.tenant_id and p.document_id = d.id and p.version_id = d.version_id
where d.tenant_id = %(tenant)s
  and (%(collection)s::text is null or c.name = %(collection)s::text)
  and (%(status)s::text is null or d.status = %(status)s::text)
  and (%(key)s::text is null or d.key = %(key)s::text)
  and (%(prefix)s::text is null or starts_with(d.key, %(prefix)s::text))
  and (%(after_key)s::text is null or (c.name, d.key) > (%(after_collection)s::text, %(after_key)s::text))
order by c.name, d.key
limit %(limit)s

-- document --
select d.id, c.name, d.key, d.status, d.title, d.media_type, d.version_id, d.size, d.chunk_count,
  d.error_code, d.error_message, d.created_at, d.updated_at, d.metadata, d.metadata_error, d.warnings,
  p.chunk_count, p.embedded_through, p.complete, d.allowed_principals
from documents d join collections c on c.tenant_id = d.tenant_id and c.id = d.collection_id
left join pending_documents p on p.tenant_id = d.tenant_id and p.document_id = d.id and p.version_id = d.version_id
where d.tenant_id = %(tenant)s and d.id = %(document)s

-- documents_under_way --
-- Begun by one of these messages, and neither ended nor left: the sandbox was ended meanwhile.
select id, attempts from documents
where tenant_id = %(tenant)s and id = any (%(documents)s::uuid[]) and leased_until is not null
  and leased_message = any (%(messages)s::text[])

-- bury_document --
-- Where it waits and nobody is at work on it; and whatever the lease says, where the message that is dead had it last: who
-- worked that off is gone, or the queue would not have given the message up.
insert into documents as d (
  tenant_id, id, collection_id, key, status, version_id, size, error_code, error_message, allowed_principals
)
values (%(tenant)s, %(document)s, %(collection)s, %(key)s, 'failed', %(version)s, %(size)s, %(error_code)s, %(reason)s, '{}')
on conflict (tenant_id, id) do update set
  status = 'failed', error_code = excluded.error_code, error_message = excluded.error_message, updated_at = now(),
  leased_until = null
where d.status <> 'ready' and (
  (d.leased_message = %(message)s and d.leased_until is not null)
  or (d.status <> 'failed' and coalesce(d.leased_until, '-infinity') <= now()
    and coalesce(d.leased_message, %(message)s) = %(message)s)
)
returning d.id

-- tenants_to_notify --
select tenant_id, due, oldest from tenants_to_notify()

-- claim_notifications --
-- Due again a minute later, and ever later with each attempt, unless it is settled before.
with due as materialized (
  select id from notifications where tenant_id = %(tenant)s and due_at <= now()
  order by due_at, settled_at limit %(most)s for update skip locked
)
update notifications set
  attempts = attempts + 1, provisional = false,
  due_at = now() + make_interval(secs => least(%(longest_seconds)s, %(claim_seconds)s * 2 ^ least(attempts, 20)))
where tenant_id = %(tenant)s and id in (select id from due)
returning id, document_id, collection, key, version_id, status, error_code, error_message, chunk_count, uploaded_at,
  settled_at, on_bus, attempts

-- settle_notifications --
with told as (
  delete from notifications where tenant_id = %(tenant)s and id = any (%(told)s::uuid[])
)
update notifications set on_bus = true where tenant_id = %(tenant)s and id = any (%(on_bus)s::uuid[])

-- retry_document --
select retry_document(%(document)s)

-- lock_document --
-- Held to the end of the transaction: who changes a document decides alone, and looks at the bucket again under the lock.
-- A large document's chunks go in one statement, which takes longer than any other may.
select pg_advisory_xact_lock(hashtextextended(%(document)s::text, 0)), case
  when (select chunk_count from documents where tenant_id = %(tenant)s and id = %(document)s) > 10000
  then set_config('statement_timeout', '300s', true)
end

-- document_exists --
select true from documents where tenant_id = %(tenant)s and id = %(document)s

-- announce --
-- In the order of their ids, so that two batches never wait for each other in a circle. Who may see them is not known yet.
insert into documents (tenant_id, id, collection_id, key, status, allowed_principals)
select %(tenant)s, id, %(collection)s, key, 'uploaded', '{}'
from unnest(%(documents)s::uuid[], %(keys)s::text[]) as given (id, key)
order by id
on conflict do nothing

-- begin_document --
-- The chunks of the version before keep serving until the new one is ready, failed or gone. One run at a time works on a
-- version: `busy` when another has this very message, `duplicate` when its message is another one.
select begin_document(
  %(tenant)s, %(document)s, %(collection)s, %(key)s, %(status)s, %(error_code)s, %(error_message)s, %(version)s, %(size)s,
  %(allowed_principals)s::text[], %(lease_seconds)s, %(run)s, %(message)s, %(delivery)s, %(place)s, %(modified_at)s
)

-- leave_document --
-- What became of an attempt that wrote nothing; the next one need not wait for this one's time to be over.
with left_alone as (
  update documents set leased_until = null
  where tenant_id = %(tenant)s and id = %(document)s and leased_by = %(run)s
)
select {attempt_of_document}

-- attempt_of_document --
-- Part of the statements here.
record_attempt(
  %(tenant)s, %(document)s, %(collection)s, %(key)s, %(version)s, %(outcome)s, %(error_code)s, %(error_message)s, %(chunk_count)s,
  %(embedded_count)s, %(started_at)s, %(fetch_ms)s, %(parse_ms)s, %(embed_ms)s, %(model_calls)s, %(tokens)s, %(cost_usd)s
)

-- has_ended --
-- Whether nobody needs to write this version any more: it is ready, or failed for a reason of its own.
select true from documents
where tenant_id = %(tenant)s and id = %(document)s and version_id = %(version)s
  and status in ('ready', 'failed') and coalesce(error_code, '') not in ('INTERNAL', 'STUCK')

-- ingestions_of_document --
-- The newest first.
select attempt, version_id, outcome, error_code, error_message, chunk_count, embedded_count, started_at, finished_at,
  fetch_ms, parse_ms, embed_ms, store_ms, model_calls, tokens, cost_usd
from ingestions
where tenant_id = %(tenant)s and document_id = %(document)s
order by id desc
limit %(most)s

-- is_settled --
-- Whether this version's ingest has ended: one that has not is going to look at the metadata itself.
select true from documents
where tenant_id = %(tenant)s and id = %(document)s and version_id = %(version)s and status in ('ready', 'failed')

-- describe_document --
update documents set
  metadata = coalesce(%(metadata)s::jsonb, metadata), metadata_error = %(metadata_error)s::text,
  allowed_principals = %(allowed_principals)s::text[], sidecar_version_id = %(sidecar)s::text, updated_at = now()
where tenant_id = %(tenant)s and id = %(document)s
  and (coalesce(%(metadata)s::jsonb, metadata), %(metadata_error)s::text, %(allowed_principals)s::text[], %(sidecar)s::text)
    is distinct from (metadata, metadata_error, allowed_principals, sidecar_version_id)
returning id

-- allowed_principals --
select allowed_principals from documents where tenant_id = %(tenant)s and id = %(document)s

-- permit_document --
update documents set allowed_principals = %(allowed_principals)s::text[]
where tenant_id = %(tenant)s and id = %(document)s and allowed_principals is distinct from %(allowed_principals)s::text[]
returning id

-- delete_chunks --
-- With how many there were, of how many lexemes; and in how many of them each lexeme stood.
with gone as (
  delete from chunks where tenant_id = %(tenant)s and document_id = %(document)s returning lexemes, lexeme_count
)
select null::int, count(*), coalesce(sum(lexeme_count), 0)::bigint from gone
union all
select lexeme, count(*), 0 from gone, unnest(lexemes) as lexeme group by lexeme

-- finish_document --
-- As delete_chunks, and the document says what it is now.
select * from finish_document(
  %(tenant)s, %(document)s, %(collection)s, %(key)s, %(status)s, %(version)s, %(content_hash)s, %(size)s, %(media_type)s, %(title)s,
  %(chunk_count)s, %(error_code)s, %(error_message)s, %(metadata)s::jsonb, %(metadata_error)s, %(warnings)s::text[],
  %(allowed_principals)s::text[], %(sidecar)s
)

-- insert_chunks --
-- Not COPY, which PostgreSQL refuses on a table with row-level security; one statement for many rows is parsed once.
-- All their lexemes are one array, since arrays in arrays would have to be equally long.
with given as materialized (
  select * from unnest(
    %(ids)s::uuid[], %(positions)s::int[], %(pages)s::int[], %(headings)s::text[], %(contents)s::text[],
    %(content_hashes)s::bytea[], %(tokens)s::int[], %(lexicals)s::sparsevec[], %(firsts)s::int[], %(lasts)s::int[],
    %(lexeme_counts)s::int[], %(embeddings)s::vector[]
  ) as given (
    id, position, page, heading, content, content_hash, tokens, lexical, first, last, lexeme_count, embedding
  )
), added as (
  insert into chunks (
    tenant_id, collection_id, document_id, average_length,
    id, position, page, heading, content, content_hash, tokens, lexical, lexemes, lexeme_count
  )
  select %(tenant)s, %(collection)s, %(document)s, %(average_length)s,
    id, position, page, heading, content, content_hash, tokens, lexical, (%(lexemes)s::int[])[first : last], lexeme_count
  from given
)
insert into embeddings (tenant_id, space_id, chunk_id, collection_id, document_id, dimensions, embedding)
select %(tenant)s, %(space)s, id, %(collection)s, %(document)s, %(dimensions)s, embedding from given

-- vector_types --
select 'vector'::regtype::oid, 'sparsevec'::regtype::oid

-- known_embeddings --
select * from known_embeddings(%(tenant)s, %(document)s, %(space)s::smallint, %(content_hashes)s::bytea[])

-- keep_embeddings --
-- Nothing of a document that was deleted, or has ended, meanwhile: by another run, whose commit the lock waits for.
insert into pending_embeddings (tenant_id, document_id, space_id, content_hash, embedding)
select %(tenant)s, d.id, %(space)s, given.content_hash, given.embedding
from documents d, unnest(%(content_hashes)s::bytea[], %(embeddings)s::vector[]) as given (content_hash, embedding)
where d.tenant_id = %(tenant)s and d.id = %(document)s
  and {unsettled}
for share of d
on conflict do nothing

-- lock_pending --
-- Whether a large document's chunks are this version's still; no other run changes that before the transaction ends.
select true from pending_documents
where tenant_id = %(tenant)s and document_id = %(document)s and version_id = %(version)s for update

-- pending_document --
-- How far this version has come, with what its last chunk is told by.
select chunk_count, complete, embedded_through, embedded_count, content_hash, media_type, title, (
    select c.content_hash from pending_chunks c
    where c.tenant_id = p.tenant_id and c.document_id = p.document_id and c.position = p.chunk_count - 1
  ), warnings
from pending_documents p where tenant_id = %(tenant)s and document_id = %(document)s and version_id = %(version)s

-- recognised_pages --
select page, content from recognised_pages
where tenant_id = %(tenant)s and document_id = %(document)s and content_hash = %(content_hash)s

-- keep_page --
-- Nothing of a document that was deleted, or has ended, meanwhile.
insert into recognised_pages (tenant_id, document_id, content_hash, page, content)
select %(tenant)s, d.id, %(content_hash)s, %(page)s, %(content)s from documents d
where d.tenant_id = %(tenant)s and d.id = %(document)s
  and {unsettled}
for share of d
on conflict do nothing

-- lock_unsettled --
-- Whether a document is still to become this version; it does not end, nor another version begin, before the transaction ends.
select true from documents d
where d.tenant_id = %(tenant)s and d.id = %(document)s and d.version_id = %(version)s and {unsettled}
for share

-- unsettled --
-- Part of the statements here, of a document `d`: a later delivery may still make it ready.
(d.status in ('uploaded', 'processing') or d.error_code in ('INTERNAL', 'STUCK', 'BUDGET', 'OUT_OF_MEMORY', 'DISK_FULL'))

-- drop_pending --
delete from pending_documents where tenant_id = %(tenant)s and document_id = %(document)s

-- begin_pending --
insert into pending_documents (tenant_id, document_id, version_id) values (%(tenant)s, %(document)s, %(version)s)
on conflict do nothing

-- stage_chunks --
-- As insert_chunks, where nobody sees them.
with given as materialized (
  select * from unnest(
    %(ids)s::uuid[], %(positions)s::int[], %(pages)s::int[], %(headings)s::text[], %(contexts)s::text[], %(contents)s::text[],
    %(content_hashes)s::bytea[], %(tokens)s::int[], %(lexicals)s::sparsevec[], %(firsts)s::int[], %(lasts)s::int[],
    %(lexeme_counts)s::int[]
  ) as given (
    id, position, page, heading, context, content, content_hash, tokens, lexical, first, last, lexeme_count
  )
), counted as (
  update pending_documents set chunk_count = greatest(chunk_count, %(chunk_count)s)
  where tenant_id = %(tenant)s and document_id = %(document)s
)
insert into pending_chunks (
  tenant_id, document_id, average_length,
  id, position, page, heading, context, content, content_hash, tokens, lexical, lexemes, lexeme_count
)
select %(tenant)s, %(document)s, %(average_length)s,
  id, position, page, heading, context, content, content_hash, tokens, lexical, (%(lexemes)s::int[])[first : last], lexeme_count
from given
on conflict do nothing

-- complete_pending --
-- Every chunk is there; what the version before had embedded need not be embedded again.
with reused as (
  insert into pending_embeddings (tenant_id, document_id, space_id, content_hash, embedding)
  select %(tenant)s, %(document)s, %(space)s, c.content_hash, e.embedding
  from chunks c join embeddings e on e.tenant_id = c.tenant_id and e.space_id = %(space)s and e.chunk_id = c.id
  where c.tenant_id = %(tenant)s and c.document_id = %(document)s and (
    select true from pending_chunks p
    where p.tenant_id = c.tenant_id and p.document_id = c.document_id and p.content_hash = c.content_hash
    limit 1
  )
  on conflict do nothing
)
update pending_documents set complete = true, content_hash = %(content_hash)s, media_type = %(media_type)s, title = %(title)s,
  warnings = %(warnings)s::text[]
where tenant_id = %(tenant)s and document_id = %(document)s

-- unembedded_chunks --
-- Not `not exists`, here and below: a join is planned by statistics, which tables that were just filled do not have, and compared each
-- chunk with all vectors of the document.
select position, content_hash, context, content from pending_chunks c
where tenant_id = %(tenant)s and document_id = %(document)s and position >= %(first)s and (
  select true from pending_embeddings e
  where e.tenant_id = c.tenant_id and e.document_id = c.document_id and e.space_id = %(space)s and e.content_hash = c.content_hash
) is null
order by position
limit %(most)s

-- count_embedded --
update pending_documents
set embedded_through = greatest(embedded_through, %(embedded_through)s), embedded_count = embedded_count + %(embedded_count)s
where tenant_id = %(tenant)s and document_id = %(document)s

-- allow_seconds --
-- Of each statement to the end of the transaction: those of a large document write hundreds of thousands of rows.
select set_config('statement_timeout', %(milliseconds)s::text, true)

-- count_chunks --
-- How many chunks a document has, of how many lexemes.
select count(*), coalesce(sum(lexeme_count), 0)::bigint from chunks where tenant_id = %(tenant)s and document_id = %(document)s

-- count_pending_chunks --
-- As count_chunks, of what is to take their place.
select count(*), coalesce(sum(lexeme_count), 0)::bigint from pending_chunks
where tenant_id = %(tenant)s and document_id = %(document)s

-- change_lexemes --
-- What a large document changes in the statistics, in rows that stay in their page: pending_chunks come, chunks go.
insert into lexeme_changes (tenant_id, collection_id, lexemes, counts)
select %(tenant)s, %(collection)s, array_agg(lexeme order by lexeme), array_agg(change order by lexeme)
from (
  select lexeme, sum(change)::int as change, (row_number() over (order by lexeme) - 1) / %(lexemes_per_row)s as part
  from (
    select unnest(lexemes) as lexeme, 1 as change from pending_chunks where tenant_id = %(tenant)s and document_id = %(document)s
    union all
    select unnest(lexemes), -1 from chunks where tenant_id = %(tenant)s and document_id = %(document)s
  ) as each
  group by lexeme having sum(change) <> 0
) as changed
group by part

-- drop_chunks --
delete from chunks where tenant_id = %(tenant)s and document_id = %(document)s

-- publish_chunks --
with added as (
  insert into chunks (
    tenant_id, collection_id, document_id, average_length,
    id, position, page, heading, content, content_hash, tokens, lexical, lexemes, lexeme_count
  )
  select tenant_id, %(collection)s, document_id, average_length,
    id, position, page, heading, content, content_hash, tokens, lexical, lexemes, lexeme_count
  from pending_chunks where tenant_id = %(tenant)s and document_id = %(document)s
)
insert into embeddings (tenant_id, space_id, chunk_id, collection_id, document_id, dimensions, embedding)
select c.tenant_id, %(space)s, c.id, %(collection)s, c.document_id, %(dimensions)s, e.embedding
from pending_chunks c, lateral (
  select embedding from pending_embeddings e
  where e.tenant_id = c.tenant_id and e.document_id = c.document_id and e.space_id = %(space)s and e.content_hash = c.content_hash
  limit 1
) e
where c.tenant_id = %(tenant)s and c.document_id = %(document)s

-- reweigh_document --
-- Where the collection has got another average length since its chunks were weighed.
update collections set reweighing = true
where tenant_id = %(tenant)s and id = %(collection)s and exists (
  select from chunks c
  where c.tenant_id = %(tenant)s and c.document_id = %(document)s and c.average_length <> collections.average_length
)

-- delete_document --
delete from documents where tenant_id = %(tenant)s and id = %(document)s

-- next_generation --
update collections set generation = generation + 1 where tenant_id = %(tenant)s and id = %(collection)s

-- record_ingestion --
-- With what it changed in the statistics, and the collection's next generation.
select r.* from record_ingestion(
  %(tenant)s, %(document)s, %(collection)s, %(lexemes)s::int[], %(counts)s::int[], %(begins)s::int[], %(ends)s::int[],
  %(document_change)s, %(chunk_change)s, %(lexeme_change)s, %(place)s, %(modified_at)s
) r, {attempt_of_document}

-- unrolled_statistics --
select * from unrolled_statistics(%(tenant)s, %(collection)s)

-- lock_roll_up --
-- One at a time per collection; whoever comes second has nothing to do. By its plan the statement that follows would be worth compiling, which
-- takes longer than it runs.
select pg_try_advisory_xact_lock(hashtextextended('roll up ' || %(collection)s::text, 0)), set_config('jit', 'off', true)

-- add_up_lexemes --
-- So many rows of what ingests changed, the oldest ones, into the blocks of their lexemes, which changes no sum; how many rows there were. No other
-- block is read. One that outgrows its row becomes several that are half full. Nothing of it is held by the client, however large a vocabulary is.
with recursive taken as (
  delete from lexeme_changes
  where tenant_id = %(tenant)s and collection_id = %(collection)s and id = any(array(
    select id from lexeme_changes where tenant_id = %(tenant)s and collection_id = %(collection)s order by id limit %(most)s
  ))
  returning lexemes, counts
), changes as (
  select lexeme, sum(count)::int as change from (select unnest(lexemes), unnest(counts) from taken) as each (lexeme, count)
  group by lexeme having sum(count) <> 0
), changed as (
  select array_agg(lexeme order by lexeme) as ordered, array_agg(change order by lexeme) as changes from changes
), touched (begins, ends, first) as (
  -- From block to block, each with the changes before the next one's first lexeme.
  select 1, 0, 0
  union all
  select ends + 1,
    coalesce(
      (
        select width_bucket(b.first - 1, ordered) from lexeme_blocks b
        where b.tenant_id = %(tenant)s and b.collection_id = %(collection)s and b.first > ordered[ends + 1]
        order by b.first
        limit 1
      ),
      cardinality(ordered)
    ),
    coalesce(
      (
        select b.first from lexeme_blocks b
        where b.tenant_id = %(tenant)s and b.collection_id = %(collection)s and b.first <= ordered[ends + 1]
        order by b.first desc
        limit 1
      ),
      0
    )
  from touched, changed where ends < cardinality(ordered)
), added as (
  select touched.first, summed.lexemes, summed.document_frequencies
  from touched cross join changed
  left join lateral (
    select b.lexemes, b.document_frequencies from lexeme_blocks b
    where b.tenant_id = %(tenant)s and b.collection_id = %(collection)s and b.first = touched.first
    limit 1
  ) as kept on true
  cross join lateral (
    select coalesce(array_agg(lexeme order by lexeme), '{}') as lexemes,
      coalesce(array_agg(document_frequency order by lexeme), '{}') as document_frequencies
    from (
      select lexeme, sum(count)::int as document_frequency
      from (
        select unnest(kept.lexemes), unnest(kept.document_frequencies)
        union all select unnest(changed.ordered[begins : ends]), unnest(changed.changes[begins : ends])
      ) as each (lexeme, count)
      group by lexeme having sum(count) <> 0
    ) as counted
  ) as summed
  where begins <= ends
), put as (
  insert into lexeme_blocks as kept (tenant_id, collection_id, first, lexemes, document_frequencies)
  select %(tenant)s, %(collection)s, case start when 1 then first else lexemes[start] end,
    lexemes[start : start + size - 1], document_frequencies[start : start + size - 1]
  from added,
    lateral (
      select case when cardinality(lexemes) <= %(lexemes_per_block)s then %(lexemes_per_block)s else %(lexemes_per_block)s / 2 end as size
    ) as sized,
    generate_series(1, greatest(cardinality(lexemes), 1), size) as start
  on conflict (tenant_id, collection_id, first) do update
  set lexemes = excluded.lexemes, document_frequencies = excluded.document_frequencies
)
select count(*) from taken

-- roll_up_chunks --
with taken as (
  delete from collection_statistics where tenant_id = %(tenant)s and collection_id = %(collection)s
  returning document_count, chunk_count, lexeme_count
)
insert into collection_statistics (tenant_id, collection_id, document_count, chunk_count, lexeme_count)
select %(tenant)s, %(collection)s, coalesce(sum(document_count), 0), coalesce(sum(chunk_count), 0), coalesce(sum(lexeme_count), 0) from taken

-- collection_sizes --
select tenant_id, collection_id, average_length, reweighing, chunk_count, lexeme_count from collection_sizes()

-- statistics_left --
select tenant_id, collection_id from collection_sizes() where statistics_rows > %(most)s

-- set_average_length --
-- An ingest that weighed with the one before finds out at its end, and begins again.
update collections set average_length = %(average_length)s, reweighing = true
where tenant_id = %(tenant)s and id = %(collection)s

-- lock_reweighing --
-- One at a time per collection, and nobody waits long for it.
select set_config('lock_timeout', '5s', true), pg_advisory_xact_lock(hashtextextended('reweigh ' || %(collection)s::text, 0))

-- average_length --
select average_length from collections where tenant_id = %(tenant)s and id = %(collection)s

-- chunks_weighed_otherwise --
select id, document_id from chunks
where tenant_id = %(tenant)s and collection_id = %(collection)s and average_length <> %(average_length)s::real
order by document_id
limit %(most)s

-- lock_documents --
-- As lock_document, each in its turn; who ingests holds one only, so that none waits in a circle.
select pg_advisory_xact_lock(hashtextextended(document, 0)) from unnest(%(documents)s::text[]) as document

-- chunks_to_weigh --
select id, lexical, lexeme_count, average_length from chunks
where tenant_id = %(tenant)s and id = any (%(chunks)s) and average_length <> %(average_length)s::real

-- weigh_chunk --
update chunks set lexical = %(lexical)s, average_length = %(average_length)s where tenant_id = %(tenant)s and id = %(id)s

-- end_reweighing --
update collections set reweighing = false
where tenant_id = %(tenant)s and id = %(collection)s and average_length = %(average_length)s::real

-- drop_all_expired_conversations --
-- Of every tenant; no role but the owner sees those of another, and this one no others than these.
delete from conversations where expires_at <= now() returning id

-- recent_messages --
-- No row at all when there is no such conversation of the principal's; one of nulls when nothing was said in it.
select m.role, m.content, m.created_at
from conversations c
left join lateral (
  select position, role, content, created_at from messages
  where tenant_id = %(tenant)s and conversation_id = c.id
  order by position desc
  limit %(most)s
) as m on true
where c.tenant_id = %(tenant)s and c.id = %(conversation)s and c.principal = %(principal)s and c.expires_at > now()
order by m.position

-- conversations --
-- Of one principal, the one used last first, each with its first question; or one of them.
select c.id,
  coalesce((select content from messages where tenant_id = %(tenant)s and conversation_id = c.id and position = 0), ''),
  (select count(*) from messages where tenant_id = %(tenant)s and conversation_id = c.id),
  c.created_at, c.expires_at
from conversations c
where c.tenant_id = %(tenant)s and c.principal = %(principal)s and c.expires_at > now()
  and (%(conversation)s::uuid is null or c.id = %(conversation)s::uuid)
order by c.expires_at desc, c.id
limit %(most)s

-- begin_conversation --
insert into conversations (tenant_id, id, principal, expires_at)
values (%(tenant)s, %(conversation)s, %(principal)s, now() + make_interval(secs => %(ttl_seconds)s))
on conflict do nothing

-- extend_conversation --
update conversations set expires_at = now() + make_interval(secs => %(ttl_seconds)s)
where tenant_id = %(tenant)s and id = %(conversation)s and principal = %(principal)s and expires_at > now()
returning id

-- add_turn --
insert into messages (tenant_id, conversation_id, turn, position, role, content)
select %(tenant)s, %(conversation)s, %(turn)s, said.position + (
    select coalesce(max(position) + 1, 0) from messages where tenant_id = %(tenant)s and conversation_id = %(conversation)s
  ), said.role, said.content
from (values (0, 'user', %(question)s::text), (1, 'assistant', %(answer)s::text)) as said (position, role, content)
where not exists (
  select from messages where tenant_id = %(tenant)s and conversation_id = %(conversation)s and turn = %(turn)s
)

-- drop_expired_conversations --
delete from conversations where tenant_id = %(tenant)s and id in (
  select id from conversations where tenant_id = %(tenant)s and expires_at <= now()
  order by expires_at limit %(most)s for update skip locked
)

-- delete_conversation --
delete from conversations
where tenant_id = %(tenant)s and id = %(conversation)s and principal = %(principal)s and expires_at > now()
returning id

-- claim_request --
-- Whoever finds another run at work, or an answer, leaves the row as it is, and has locked it.
insert into idempotent_requests as kept
  (tenant_id, principal, key_hash, request_hash, attempt, leased_until, expires_at)
values (
  %(tenant)s, %(principal)s, %(key_hash)s, %(request_hash)s, %(attempt)s,
  now() + make_interval(secs => %(lease_seconds)s), now() + make_interval(secs => %(kept_seconds)s)
)
on conflict (tenant_id, principal, key_hash) do update set
  request_hash = excluded.request_hash, attempt = excluded.attempt, leased_until = excluded.leased_until,
  expires_at = excluded.expires_at, status = null, media_type = null, body = null
where kept.expires_at <= now()
  or (kept.status is null and kept.leased_until <= now() and kept.request_hash = excluded.request_hash)

-- idempotent_request --
select request_hash, attempt, status, media_type, body from idempotent_requests
where tenant_id = %(tenant)s and principal = %(principal)s and key_hash = %(key_hash)s

-- settle_request --
update idempotent_requests set
  status = %(status)s, media_type = %(media_type)s, body = %(body)s,
  expires_at = now() + make_interval(secs => %(kept_seconds)s)
where tenant_id = %(tenant)s and principal = %(principal)s and key_hash = %(key_hash)s and attempt = %(attempt)s

-- release_request --
delete from idempotent_requests
where tenant_id = %(tenant)s and principal = %(principal)s and key_hash = %(key_hash)s and attempt = %(attempt)s
  and status is null

-- drop_all_expired_requests --
-- Of every tenant, like expired conversations.
delete from idempotent_requests where expires_at <= now() returning key_hash

-- request_erasure --
-- The one that waits for the same to be erased, if there is one, so that asking twice is asking once.
with waiting as (
  select id from erasures
  where tenant_id = %(tenant)s and scope = %(scope)s and collection is not distinct from %(collection)s::text
    and document_id is not distinct from %(document)s::uuid and last_version is not distinct from %(last_version)s::text
    and principal is not distinct from %(principal)s::text and finished_at is null
  order by requested_at limit 1
), asked as (
  insert into erasures (tenant_id, scope, collection, document_id, key, last_version, principal, requested_by)
  select %(tenant)s, %(scope)s, %(collection)s, %(document)s, %(key)s, %(last_version)s, %(principal)s, %(requested_by)s
  where not exists (select from waiting)
  returning id
)
select id from waiting union all select id from asked

-- erasures --
-- The latest first; or one of them.
select id, scope, collection, document_id, requested_by, requested_at, finished_at, removed from erasures
where tenant_id = %(tenant)s and (%(erasure)s::uuid is null or id = %(erasure)s::uuid)
order by requested_at desc, id
limit %(most)s

-- work_of_erasure --
select scope, collection, document_id, key, last_version, requested_at, principal from erasures
where tenant_id = %(tenant)s and id = %(erasure)s and finished_at is null

-- unfinished_erasures --
-- Across tenants, by the one role that may: whose message was lost is found here.
select tenant_id, id from erasures where finished_at is null order by requested_at limit %(most)s

-- count_erased --
update erasures set removed = (
  select jsonb_object_agg(kind, coalesce((removed ->> kind)::bigint, 0) + coalesce((%(removed)s::jsonb ->> kind)::bigint, 0))
  from (select jsonb_object_keys(removed) union select jsonb_object_keys(%(removed)s::jsonb)) as kinds (kind)
)
where tenant_id = %(tenant)s and id = %(erasure)s

-- finish_erasure --
update erasures set finished_at = now(), key = null, last_version = null, principal = null
where tenant_id = %(tenant)s and id = %(erasure)s and finished_at is null

-- erase_story --
-- What the index remembers of a document beside the document itself.
with gone as (delete from ingestions where tenant_id = %(tenant)s and document_id = %(document)s returning id)
select count(*) from gone

-- erase_documents --
-- Some documents of a collection, with their chunks: so many that one statement has not too much to do.
with doomed as (
  select id from (
    select id, chunk_count, sum(chunk_count) over (order by id) as so_far, row_number() over (order by id) as number
    from documents where tenant_id = %(tenant)s and collection_id = %(collection)s
  ) as ordered
  where number = 1 or (so_far <= %(most_chunks)s and number <= %(most)s)
), gone as (
  delete from documents where tenant_id = %(tenant)s and id in (select id from doomed) returning chunk_count
)
select count(*), coalesce(sum(chunk_count), 0)::bigint from gone

-- erase_conversations --
-- Some of one principal, with what was said in them.
with gone as (
  delete from conversations where tenant_id = %(tenant)s and id in (
    select id from conversations where tenant_id = %(tenant)s and principal = %(principal)s order by id limit %(most)s
  )
  returning id
)
select count(*) from gone

-- erase_feedback --
with gone as (
  delete from feedback where tenant_id = %(tenant)s and id in (
    select id from feedback where tenant_id = %(tenant)s and principal = %(principal)s order by id limit %(most)s
  )
  returning id
)
select count(*) from gone

-- erase_kept_answers --
with gone as (
  delete from idempotent_requests where tenant_id = %(tenant)s and (principal, key_hash) in (
    select principal, key_hash from idempotent_requests
    where tenant_id = %(tenant)s and principal = %(principal)s order by key_hash limit %(most)s
  )
  returning key_hash
)
select count(*) from gone

-- erase_audit --
select erase_audit(%(most)s)

-- erase_collection --
delete from collections where tenant_id = %(tenant)s and id = %(collection)s

-- erased_collections --
select id from collections where tenant_id = %(tenant)s and (%(name)s::text is null or name = %(name)s::text) order by id

-- erase_tenant --
delete from tenants where id = %(tenant)s

-- revoke_keys --
update api_keys set revoked_at = now() where tenant_id = %(tenant)s and revoked_at is null

-- tenant_exists --
select true from tenants where id = %(tenant)s

-- api_key --
-- Across tenants, by the authorizer's role, which reads only who there is and how much may be asked.
select * from presented_key(%(key_id)s, %(seconds)s)

-- live_tenant --
-- Before its users' tokens count: a tenant that is to be erased has none any more, as it has no keys.
select t.requests_per_minute from tenants t where t.id = %(tenant)s
  and not exists (select from erasures e where e.tenant_id = t.id and e.scope = 'tenant')

-- note_use --
-- A row that somebody else is writing is passed by: either they note the same, or the next request does.
update api_keys set last_used_at = now()
where (tenant_id, id) in (
  select tenant_id, id from api_keys
  where tenant_id = %(tenant)s and id = %(key_id)s and coalesce(last_used_at < now() - make_interval(secs => %(seconds)s), true)
  for update skip locked
)

-- lock_keys --
-- Who counts keys, and makes or ends one, is alone with those of the tenant.
select pg_advisory_xact_lock(hashtextextended('keys ' || %(tenant)s::text, 0))

-- api_keys --
-- Of all or of one id, those that reach no further than the caller; the live ones first.
select id, name, role, collections, groups, created_at, created_by, expires_at, last_used_at, revoked_at, replaced_by,
  case when revoked_at is not null then 'revoked' when expires_at <= now() then 'expired' else 'live' end as status
from api_keys
where tenant_id = %(tenant)s and (%(key_id)s::text is null or id = %(key_id)s) and (%(collections)s::text[] is null or collections <@ %(collections)s::text[])
order by revoked_at is null and coalesce(expires_at > now(), true) desc, created_at desc, id
limit %(most)s

-- count_keys --
-- The live ones but `but`: how many, and how many of them can manage all others. One that is rotated is as good as gone.
select count(*), count(*) filter (where role = 'admin' and collections is null) from api_keys
where tenant_id = %(tenant)s and id <> %(but)s
  and revoked_at is null and (expires_at is null or expires_at > now()) and replaced_by is null

-- revoke_key --
update api_keys set revoked_at = now() where tenant_id = %(tenant)s and id = %(key_id)s and revoked_at is null

-- succeed_key --
insert into api_keys (
  tenant_id, id, digest, name, role, collections, groups, created_by, expires_at, lifetime,
  requests_per_minute, requests_per_day, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month
)
select tenant_id, %(successor)s, %(digest)s, name, role, collections, groups, %(created_by)s, now() + lifetime, lifetime,
  requests_per_minute, requests_per_day, tokens_per_day, tokens_per_month, usd_per_day, usd_per_month
from api_keys where tenant_id = %(tenant)s and id = %(key_id)s

-- retire_key --
update api_keys set replaced_by = %(successor)s, expires_at = least(expires_at, now() + make_interval(hours => %(overlap_hours)s))
where tenant_id = %(tenant)s and id = %(key_id)s

-- create_tenant --
insert into tenants (id, name) values (%(tenant)s, %(name)s) on conflict (name) do nothing returning id

-- limit_tenant --
update tenants set
  requests_per_minute = %(requests_per_minute)s, requests_per_day = %(requests_per_day)s, tokens_per_day = %(tokens_per_day)s,
  tokens_per_month = %(tokens_per_month)s, usd_per_day = %(usd_per_day)s, usd_per_month = %(usd_per_month)s
where id = %(tenant)s returning id

-- limit_key --
update api_keys set
  requests_per_minute = %(requests_per_minute)s, requests_per_day = %(requests_per_day)s, tokens_per_day = %(tokens_per_day)s,
  tokens_per_month = %(tokens_per_month)s, usd_per_day = %(usd_per_day)s, usd_per_month = %(usd_per_month)s
where tenant_id = %(tenant)s and id = %(key_id)s returning id

-- create_api_key --
insert into api_keys (tenant_id, id, digest, name, role, collections, groups, created_by, expires_at, lifetime)
values (
  %(tenant)s, %(key_id)s, %(digest)s, %(name)s, %(role)s, %(collections)s, %(groups)s, %(created_by)s,
  %(expires_at)s, %(expires_at)s::timestamptz - now()
)

-- tenants --
select t.id, t.name, t.created_at, t.requests_per_day, t.tokens_per_day, k.live, k.last_used_at
from tenants t, lateral (
  select count(*) filter (where revoked_at is null and coalesce(expires_at > now(), true)) as live, max(last_used_at) as last_used_at
  from api_keys where tenant_id = t.id
) k
where t.name collate "C" > %(after)s
order by t.name collate "C"
limit %(most)s

-- write_audit --
select {audit_row}

-- write_audit_and_settle --
-- Not again what a repetition finds written.
select case when {audit_row} then settle_usage(%(tenant)s, {settlement}) end

-- audit_row --
-- Part of the statements here.
write_audit(
  (array[{scope}, case when %(hurried)s then {unwaited} end])[1]::uuid, %(id)s, %(principal)s, %(role)s, %(action)s, %(outcome)s, %(request_id)s,
  %(address)s::inet, %(details)s::jsonb, %(documents)s::uuid[], %(places)s::text[]
)

-- write_administration --
insert into audit_log (tenant_id, id, principal, role, action, outcome, request_id, address, details)
values (
  %(tenant)s, %(id)s, %(principal)s, %(role)s, %(action)s, %(outcome)s, %(request_id)s, %(address)s::inet, %(details)s::jsonb
)
on conflict do nothing

-- audit --
-- The latest first; the cursor is the last one seen.
select a.id, a.at, a.principal, a.role, a.action, a.outcome, a.request_id, host(a.address), a.details,
  {audited_documents}
from audit_log a
where a.tenant_id = %(tenant)s
  and (%(since)s::timestamptz is null or a.at >= %(since)s::timestamptz)
  and (%(until)s::timestamptz is null or a.at < %(until)s::timestamptz)
  and (%(before)s::timestamptz is null or (a.at, a.id) < (%(before)s::timestamptz, %(before_id)s::uuid))
  and (%(principal)s::text is null or a.principal = %(principal)s::text)
  and (%(action)s::text is null or a.action = %(action)s::text)
order by a.at desc, a.id desc
limit %(most)s

-- audit_of_document --
-- By the index of the documents, so that who saw one is found without looking through all requests.
select a.id, a.at, a.principal, a.role, a.action, a.outcome, a.request_id, host(a.address), a.details,
  {audited_documents}
from audit_documents n join audit_log a on a.tenant_id = n.tenant_id and a.id = n.audit_id
where n.tenant_id = %(tenant)s and n.document_id = %(document)s
  and (%(since)s::timestamptz is null or n.at >= %(since)s::timestamptz)
  and (%(until)s::timestamptz is null or n.at < %(until)s::timestamptz)
  and (%(before)s::timestamptz is null or (n.at, n.audit_id) < (%(before)s::timestamptz, %(before_id)s::uuid))
  and (%(principal)s::text is null or a.principal = %(principal)s::text)
  and (%(action)s::text is null or a.action = %(action)s::text)
order by n.at desc, n.audit_id desc
limit %(most)s

-- audited_documents --
-- Part of the statements here.
coalesce((
    select jsonb_agg(jsonb_build_array(d.document_id, d.version_id, d.positions) order by d.document_id) from audit_documents d
    where d.tenant_id = %(tenant)s and d.audit_id = a.id
  ), '[]')

-- drop_old_audit --
select drop_old_audit(%(days)s, %(most)s)

-- export_collections --
-- What is exported: the place in the order, and the record.
select name collate "C", jsonb_build_object('name', name, 'language', language, 'created_at', created_at)
from collections
where tenant_id = %(tenant)s and (%(after)s::text is null or name collate "C" > %(after)s::text)
order by name collate "C"
limit %(most)s

-- export_documents --
select d.id::text, jsonb_build_object(
    'id', d.id, 'collection', c.name, 'key', d.key, 'status', d.status, 'version_id', d.version_id, 'size', d.size,
    'media_type', d.media_type, 'title', d.title, 'chunk_count', d.chunk_count, 'error_code', d.error_code,
    'error_message', d.error_message, 'warnings', d.warnings, 'metadata', d.metadata, 'metadata_error', d.metadata_error,
    'allowed_principals', d.allowed_principals, 'created_at', d.created_at, 'updated_at', d.updated_at
  )
from documents d join collections c on c.tenant_id = d.tenant_id and c.id = d.collection_id
where d.tenant_id = %(tenant)s and (%(after)s::text is null or d.id > %(after)s::uuid)
order by d.id
limit %(most)s

-- export_conversations --
select c.id::text, jsonb_build_object(
    'id', c.id, 'principal', c.principal, 'created_at', c.created_at, 'expires_at', c.expires_at,
    'messages', coalesce((
      select jsonb_agg(jsonb_build_object('role', m.role, 'content', m.content, 'created_at', m.created_at) order by m.position)
      from messages m where m.tenant_id = c.tenant_id and m.conversation_id = c.id
    ), '[]')
  )
from conversations c
where c.tenant_id = %(tenant)s and c.expires_at > now()
  and (%(principal)s::text is null or c.principal = %(principal)s::text)
  and (%(after)s::text is null or c.id > %(after)s::uuid)
order by c.id
limit %(most)s

-- export_feedback --
select id::text, jsonb_build_object(
    'id', id, 'principal', principal, 'request_id', request_id, 'rating', rating, 'comment', comment, 'created_at', created_at
  )
from feedback
where tenant_id = %(tenant)s and (%(principal)s::text is null or principal = %(principal)s::text)
  and (%(after)s::text is null or id > %(after)s::uuid)
order by id
limit %(most)s

-- export_usage --
select place, record from (
  select concat_ws(' ', day, principal, model) collate "C" as place, jsonb_build_object(
      'day', day, 'principal', principal, 'model', model, 'requests', sum(requests), 'prompt_tokens', sum(prompt_tokens),
      'completion_tokens', sum(completion_tokens), 'usd', sum(usd)
    ) as record
  from caller_usage
  where tenant_id = %(tenant)s and (%(principal)s::text is null or principal = %(principal)s::text)
  group by day, principal, model
) as summed
where %(after)s::text is null or place > %(after)s::text
order by place
limit %(most)s

-- export_audit --
select concat_ws(' ', to_char(a.at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), a.id), jsonb_build_object(
    'id', a.id, 'at', a.at, 'principal', a.principal, 'role', a.role, 'action', a.action, 'outcome', a.outcome,
    'request_id', a.request_id, 'address', host(a.address), 'details', a.details, 'documents', coalesce((
      select jsonb_agg(
        jsonb_build_object('document_id', d.document_id, 'version_id', d.version_id, 'positions', d.positions) order by d.document_id
      ) from audit_documents d where d.tenant_id = a.tenant_id and d.audit_id = a.id
    ), '[]')
  )
from audit_log a
where a.tenant_id = %(tenant)s and (%(principal)s::text is null or a.principal = %(principal)s::text)
  and (%(after)s::text is null
    or (a.at, a.id) > (split_part(%(after)s::text, ' ', 1)::timestamptz, split_part(%(after)s::text, ' ', 2)::uuid))
order by a.at, a.id
limit %(most)s

-- export_erasures --
select id::text, jsonb_build_object(
    'id', id, 'scope', scope, 'collection', collection, 'document_id', document_id, 'requested_by', requested_by,
    'requested_at', requested_at, 'finished_at', finished_at, 'removed', removed
  )
from erasures
where tenant_id = %(tenant)s and (%(after)s::text is null or id > %(after)s::uuid)
order by id
limit %(most)s

-- alive --
select current_setting('server_version'), (select extversion from pg_extension where extname = 'vector')

-- tenant_ids --
select id from tenants order by id::text collate "C"

-- claim_reconciliation --
-- One run at a time; none when the pass before has ended less than `rest` seconds ago.
insert into reconciliations as r (bucket, running_until, began_at)
values (%(bucket)s, now() + make_interval(secs => %(seconds)s), now())
on conflict (bucket) do update set
  running_until = excluded.running_until,
  began_at = case when r.ended_at is null then r.began_at else excluded.began_at end,
  ended_at = null,
  compared = case when r.ended_at is null then r.compared else 0 end,
  missing = case when r.ended_at is null then r.missing else 0 end,
  outdated = case when r.ended_at is null then r.outdated else 0 end,
  orphaned = case when r.ended_at is null then r.orphaned else 0 end,
  misdescribed = case when r.ended_at is null then r.misdescribed else 0 end
where coalesce(r.running_until, '-infinity') <= now()
  and coalesce(r.ended_at, '-infinity') <= now() - make_interval(secs => %(rest)s)
returning after_key, began_at, compared, missing, outdated, orphaned, misdescribed

-- save_reconciliation --
update reconciliations set
  after_key = %(after_key)s, compared = %(compared)s, missing = %(missing)s, outdated = %(outdated)s, orphaned = %(orphaned)s,
  misdescribed = %(misdescribed)s,
  running_until = case when %(going_on)s then running_until end, ended_at = case when %(complete)s then now() end
where bucket = %(bucket)s
returning now()

-- collection_names --
select id, name from collections where tenant_id = %(tenant)s

-- indexed_documents --
select key, version_id, status, updated_at, coalesce(leased_until > now(), false), sidecar_version_id from documents
where tenant_id = %(tenant)s and collection_id = %(collection)s and key collate "C" > %(after)s
order by key collate "C"
limit %(most)s

-- indexed_documents_of --
select key, version_id, status, updated_at, coalesce(leased_until > now(), false), sidecar_version_id from documents
where tenant_id = %(tenant)s and collection_id = %(collection)s and key collate "C" = any(%(keys)s::text[])
order by key collate "C"

-- indexed_document --
select key, version_id, status, updated_at, coalesce(leased_until > now(), false), sidecar_version_id from documents
where tenant_id = %(tenant)s and id = %(document)s

-- unsettled_documents --
-- Those that nobody is at work on, and whose message must have come again by now: `quiet` seconds after it came last.
-- Of these the ones that were asked for again, in vain, `longest` seconds after they began to wait: they are stuck.
select d.tenant_id, c.name, d.key, d.collection_id, d.version_id,
  d.requeued_at is not null as stuck
from documents d join collections c on c.tenant_id = d.tenant_id and c.id = d.collection_id
where d.status in ('uploaded', 'processing') and d.tenant_id <> %(but)s
  and coalesce(d.leased_until, '-infinity') <= coalesce(%(at)s::timestamptz, now())
  and d.updated_at < coalesce(%(at)s::timestamptz, now()) - make_interval(secs => %(quiet)s)
  and (d.requeued_at is null or (
    d.requeued_at < coalesce(%(at)s::timestamptz, now()) - make_interval(secs => %(quiet)s)
    and case d.status when 'uploaded' then d.updated_at else d.unsettled_at end
      < coalesce(%(at)s::timestamptz, now()) - make_interval(secs => %(longest)s)
  ))
order by d.unsettled_at
limit %(most)s

-- requeue_document --
update documents set requeued_at = coalesce(%(at)s::timestamptz, now())
where tenant_id = %(tenant)s and id = %(document)s and status in ('uploaded', 'processing') and requeued_at is null
returning id

-- end_stuck_document --
-- Unless somebody has begun with it meanwhile.
with ended as (
  update documents set status = 'failed', error_code = %(error_code)s, error_message = %(error_message)s, updated_at = now()
  where tenant_id = %(tenant)s and id = %(document)s and status in ('uploaded', 'processing')
    and version_id is not distinct from %(version)s
    and coalesce(leased_until, '-infinity') <= coalesce(%(at)s::timestamptz, now())
  returning unsettled_at, attempts
), recorded as (
  insert into ingestions (
    tenant_id, document_id, collection_id, key, version_id, outcome, error_code, error_message, started_at, attempt
  )
  select %(tenant)s, %(document)s, %(collection)s, %(key)s, %(version)s, 'failed', %(error_code)s, %(error_message)s, unsettled_at, attempts
  from ended
)
select attempts from ended

-- create_canary --
insert into tenants (id, name) values (%(tenant)s, %(name)s) on conflict do nothing
