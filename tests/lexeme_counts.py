"""In how many chunks a lexeme stands, as SQL: what is added up, and what is not yet."""

LEXEME_COUNTS = """(
    select collection_id, lexeme, document_frequency
    from lexeme_blocks, unnest(lexemes, document_frequencies) as block (lexeme, document_frequency)
    union all
    select collection_id, lexeme, count from lexeme_changes, unnest(lexemes, counts) as changes (lexeme, count)
) as lexeme_counts"""
