"""With OPENAI_API_KEY and OPENAI_BASE_URL set, that model server is used, and its key stays a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fake_model
from tests.acceptance.platform_process import platform_process
from tests.fake_model import FakeModel

API_KEY = "sk-the-key-of-a-real-model"


@pytest.mark.slow
def test_a_real_model_server_is_asked_with_its_key_which_no_function_carries_about() -> None:
    environment = {
        "OPENAI_API_KEY": API_KEY,
        "RAG_EMBEDDING_MODEL": "bigger-embeddings",
        "RAG_EMBEDDING_DIMENSIONS": "8",
        "RAG_CHAT_MODEL": "bigger-chat",
    }
    with (
        fake_model.serving(FakeModel(dimensions=8)) as model,
        platform_process({**environment, "OPENAI_BASE_URL": model.url}) as platform,
        platform.api() as api,
    ):
        model.says = "The lighthouse is lit at dusk. [1]"
        api.upload("lights.txt", b"The lighthouse is lit at dusk.")
        api.wait_until_ready("default", {"lights.txt"})
        answer = api.post("/v1/query", {"question": "When is the lighthouse lit?"}).json()
        assert answer["answer"] == "The lighthouse is lit at dusk. [1]"
        assert answer["citations"][0]["quote"] == "The lighthouse is lit at dusk."
        assert {request["model"] for request in model.requests} == {"bigger-embeddings", "bigger-chat"}
        assert model.keys == {f"Bearer {API_KEY}"}
        assert platform.ready["openai_base_url"] == model.url
        assert "models" not in platform.ready["pids"]
        for function in ("ingest", "query", "answer"):
            for pid in platform.sandboxes(function):
                assert API_KEY not in Path(f"/proc/{pid}/environ").read_text()
        for log in (platform.directory / "logs").iterdir():
            assert API_KEY not in log.read_text()
