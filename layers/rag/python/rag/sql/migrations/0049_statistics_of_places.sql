-- A collection is of one tenant: taken for independent of each other, both together let through a hundredth of what they do,
-- and a collection of 10,000 chunks among a million was read whole instead of by its own index.

create statistics chunks_places (dependencies) on tenant_id, collection_id from chunks;
create statistics embeddings_places (dependencies) on tenant_id, collection_id from embeddings;
