"""Settings come from the environment alone, and the documentation says all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pydantic
import pytest

from rag.settings import PREFIX, Settings

DOCS = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_the_environment_is_read_by_prefix_and_empty_values_are_unset() -> None:
    settings = Settings.from_environment({"RAG_BATCH_SIZE": "7", "RAG_MIN_SCORE": "", "PATH": "/bin"})
    assert (settings.batch_size, settings.min_score) == (7, None)


@pytest.mark.parametrize("name", ["RAG_BATCHSIZE", "RAG_batch_size_"])
def test_an_unknown_setting_is_refused_by_name(name: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=name.removeprefix(PREFIX).lower()):
        Settings.from_environment({name: "1"})


def test_a_malformed_value_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="batch_size"):
        Settings.from_environment({"RAG_BATCH_SIZE": "many"})


def test_role_secrets_are_json() -> None:
    settings = Settings.from_environment({"RAG_ROLE_SECRETS": '{"rag_query": "secret/query"}'})
    assert settings.role_secrets == {"rag_query": "secret/query"}


def test_the_documentation_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(RAG_\w+)` \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE)
    documented = {name: (default, meaning) for name, default, meaning in rows}
    actual = {
        PREFIX + name.upper(): (_default(field.get_default(call_default_factory=True)), field.description)
        for name, field in Settings.model_fields.items()
    }
    assert documented == actual


def _default(value: object) -> str:
    return "" if value in ("", None, {}, []) else f"`{value}`"
