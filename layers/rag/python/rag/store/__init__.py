"""The database: the only package that runs SQL, and every statement of it stands in `rag/sql/queries.sql`."""
