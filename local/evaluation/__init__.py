"""How well a collection is searched: test collections, question files, and the figures of retrieval."""
