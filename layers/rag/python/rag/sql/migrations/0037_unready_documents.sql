-- How many documents of a collection wait, are worked on or have failed is asked without reading those that are ready.

create index documents_unready on documents (tenant_id, collection_id, status) where status <> 'ready';
