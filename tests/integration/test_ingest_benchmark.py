"""What the ingest benchmark puts in is what it counts, and the platform takes all of it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rag.parser import Parser
from tests.benchmarks.ingest import __main__ as benchmark
from tests.benchmarks.ingest.documents import note, report

pytestmark = pytest.mark.slow


def test_the_report_has_its_pages_and_each_has_its_own_text(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(report(3))
    parser = Parser()
    try:
        parsed = parser.parse(path, "report.pdf")
        sections = list(parsed.sections)
    finally:
        parser.close()
    assert {section.page for section in sections} == {1, 2, 3}
    assert len({section.text for section in sections}) == len(sections)
    assert 3 * 400 < len(" ".join(section.text for section in sections).split()) < 3 * 500


def test_documents_are_the_same_every_time_and_others_in_every_run() -> None:
    assert note(1) == note(1) != note(2)
    assert report(2, run=0) == report(2, run=0) != report(2, run=1)


def test_a_small_run_counts_what_became_ready(tmp_path: Path) -> None:
    options = argparse.Namespace(documents=5, pages=4, model_milliseconds=[10.0])
    notes, pdf = benchmark.run(tmp_path, options)["runs"]
    assert (notes["documents"], notes["chunks"], notes["model_requests"]) == (5, 5, 5)
    assert (pdf["pages"], pdf["model_requests"]) == (4, 1)
    for each in (notes, pdf):
        assert 0.01 <= each["model_alone_seconds"] < each["seconds"]
        assert each["upload_seconds"] < each["seconds"]
        assert 0 < each["nothing_embedding"] < 1
        assert 0 < each["not_embedding"] < 1
