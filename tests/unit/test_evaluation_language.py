"""A test collection's own language."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.evaluation import language
from local.evaluation.collection import read
from rag.lexical import LANGUAGES


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The board will meet on Thursday to approve the budget of the coming year.", "english"),
        ("Der Vorstand tagt am Donnerstag und beschließt den Haushalt des kommenden Jahres.", "german"),
        ("Совет соберётся в четверг, чтобы утвердить бюджет на следующий год.", "russian"),
        ("Το συμβούλιο θα συνεδριάσει την Πέμπτη για να εγκρίνει τον προϋπολογισμό.", "greek"),
        ("سيجتمع المجلس يوم الخميس للموافقة على ميزانية العام المقبل.", "arabic"),
        ("董事会将于星期四开会批准明年的预算。", "chinese"),
        ("คณะกรรมการจะประชุมวันพฤหัสบดีเพื่ออนุมัติงบประมาณของปีหน้า", "thai"),
        ("Kurul, gelecek yılın bütçesini onaylamak için perşembe günü toplanacak.", "turkish"),
        ("Hội đồng sẽ họp vào thứ năm để thông qua ngân sách của năm tới.", "simple"),
        ("", "english"),
    ],
)
def test_the_language_is_known_by_a_sentence(text: str, name: str) -> None:
    assert language.likely_language([text.encode()]) == name


def test_every_name_is_one_that_a_collection_can_have() -> None:
    assert set(language._NAMES.values()) <= LANGUAGES


@pytest.mark.data
@pytest.mark.parametrize(("name", "expected"), [("xquad-es", "spanish"), ("xquad-en", "english"), ("cacm", "english")])
def test_the_shared_collections_are_known(shared_data: Path, name: str, expected: str) -> None:
    assert language.likely_language(read(shared_data / "retrieval" / name).documents.values()) == expected
