"""`--explain` on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from local.cli import explanation

PLACE = {"rank": 1, "score": 0.5}


def path(**stages: Any) -> dict[str, Any]:
    return {"chunk_id": "c", "document_id": "d", "dense": PLACE, "lexical": None, "fused": PLACE} | stages


@pytest.mark.parametrize(
    ("chosen", "told"), [({"rank": 7, "score": -0.1254}, "7. -0.125"), ({"rank": 51, "score": None}, "51.")]
)
def test_the_place_after_diversity_is_told_with_its_score_where_it_has_one(
    capsys: pytest.CaptureFixture[str], chosen: dict[str, Any], told: str
) -> None:
    explanation.tell(
        {
            "left": {"dense": 1, "fused": 1, "diversified": 1},
            "last": {},
            "hits": [path(diversified=chosen)],
            "timings_ms": {},
            "relevance": None,
            "why_not": None,
        },
        [{"chunk_id": "c", "key": "a.txt"}],
    )
    [row] = [line for line in capsys.readouterr().out.splitlines() if "a.txt" in line]
    assert row.split() == ["1", "1.", "0.500", "1.", "0.500", *told.split(), "a.txt"]
