"""What the environment of a function's sandboxes holds, and what of the user's own gets there."""

from __future__ import annotations

from pathlib import Path

import pytest

from functions.table import FUNCTIONS, INGEST, FunctionRow
from local import environment, shell
from local.aws import Credentials
from local.environment import Addresses, Model
from local.service import ServiceError
from rag.settings import PREFIX, Settings

ADDRESSES = Addresses(
    "http://aws", "http://queue", "http://maintenance", "http://erase", 5432, 6379, Credentials("id", "secret")
)
MODEL = Model("http://model/v1", "embedder", 384, "chatter", api_key="sk-secret")


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row.name)
def test_the_environment_of_each_function_is_one_that_the_settings_know(row: FunctionRow) -> None:
    variables = environment.environment_of(row, ADDRESSES, MODEL)
    settings = Settings.from_environment(variables)
    assert settings.database_url == f"postgresql://{row.role}@127.0.0.1:5432/rag"
    assert "sk-secret" not in str(variables)


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row.name)
def test_settings_of_the_user_reach_each_function(row: FunctionRow) -> None:
    given = {"RAG_MIN_SCORE": "0.5", "RAG_CHUNK_TOKENS": "99", "RAG_LOG_LEVEL": "DEBUG", "RAG_PARSE_SECONDS": "7"}
    variables = environment.environment_of(row, ADDRESSES, MODEL, shell.read(given).settings)
    settings = Settings.from_environment(variables)
    assert (settings.min_score, settings.chunk_tokens, settings.parse_seconds) == (0.5, 99, 7)
    assert settings.log_level == "DEBUG"


def test_nothing_else_of_the_user_reaches_a_function() -> None:
    given = dict.fromkeys(shell.OURS | {"RAG_URL", "RAG_API_KEY", "RAG_DATA", "TEST_DATA", "HOME"}, "elsewhere")
    assert shell.read({**given, "RAG_LOG_LEVEL": ""}) == shell.Shell()


def test_scans_are_read_by_tesseract_where_it_is_installed_and_nobody_says_otherwise(tmp_path: Path) -> None:
    program = tmp_path / "tesseract"
    program.write_text("")
    program.chmod(0o755)
    assert shell.read({"PATH": str(tmp_path)}).settings == {"RAG_OCR": "tesseract"}
    assert shell.read({"PATH": str(tmp_path), "RAG_OCR": "off"}).settings == {"RAG_OCR": "off"}


def test_what_the_platform_sets_is_not_taken_from_the_user() -> None:
    every = {name for row in FUNCTIONS for name in environment.settings_of(row, ADDRESSES, MODEL)}
    assert every == shell.OURS
    assert {PREFIX + name.upper() for name in Settings.model_fields} == shell.OURS | shell.PASSED


@pytest.mark.parametrize(("name", "value"), [("RAG_CHUNK_TOKENS", "many"), ("RAG_LOG_LEVEL", "LOUD")])
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ServiceError, match=f"{name}={value} cannot be used"):
        shell.read({name: value})


def test_a_real_model_is_used_when_its_key_is_set() -> None:
    assert shell.read({}).model is None
    model = shell.read({"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "https://models.example/v1"}).model
    assert model == Model("https://models.example/v1", "text-embedding-3-small", 1536, "gpt-4.1-mini", api_key="sk-1")


def test_a_real_model_is_described_in_numbers() -> None:
    with pytest.raises(ServiceError, match="RAG_EMBEDDING_DIMENSIONS=wide cannot be used"):
        shell.read({"OPENAI_API_KEY": "sk-1", "RAG_EMBEDDING_DIMENSIONS": "wide"})


def test_a_document_cannot_take_all_the_memory_of_its_function() -> None:
    assert INGEST.memory_mib >= 2 * Settings().parse_memory_mib
