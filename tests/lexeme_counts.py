"""In how many chunks a lexeme stands, as SQL: what is added up, and what is not yet."""

LEXEME_COUNTS = """(
    select collection_id, lexeme, document_frequency
    from lexeme_blocks, unnest(lexemes, document_frequencies) as block (lexeme, document_frequency)
    union all
    select collection_id, split_part(pair, ':', 1)::int, split_part(pair, ':', 2)::float::int
    from lexeme_changes, unnest(string_to_array(trim(both '{}' from split_part(changes::text, '/', 1)), ',')) as pair
) as lexeme_counts"""
