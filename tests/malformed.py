"""Bodies that are none, or that two readers would take differently, each with the status that says so."""

from __future__ import annotations

REFUSED: list[tuple[str, bytes, int]] = [
    ("as large as a function takes", b'{"query": "' + b"x" * 4_400_000 + b'"}', 413),
    ("a little larger than any body", b'"' + b"x" * 1_048_576 + b'"', 413),
    ("nested 10,000 deep", b"[" * 10_000 + b"]" * 10_000, 400),
    ("objects nested 10,000 deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
    ("a number without bounds", b'{"top_k": 1e400}', 400),
    ("a number of many digits", b'{"top_k": ' + b"9" * 5_000 + b"}", 400),
    ("NaN", b'{"top_k": NaN}', 400),
    ("Infinity", b'{"top_k": -Infinity}', 400),
    ("a name twice", b'{"query": "a", "query": "b"}', 400),
    ("a name twice, spelt otherwise", b'{"query": "a", "\\u0071uery": "b"}', 400),
    ("a name twice, deep inside", b'{"filters": {"a": {"eq": 1, "eq": 2}}}', 400),
    ("bytes that are not UTF-8", b'{"query": "\xff\xfe"}', 400),
    ("UTF-16", '{"query": "a"}'.encode("utf-16"), 400),
    ("a byte order mark", b"\xef\xbb\xbf{}", 400),
    ("two texts", b"{}{}", 400),
    ("a raw NUL", b'{"query": "a\0b"}', 400),
    ("nothing of JSON", b"query=a", 400),
]
OTHER_TYPES = [
    *("", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("application/json; charset=latin-1", "application/xml", "application/json-seq", "*/*"),
]
