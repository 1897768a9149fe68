"""A document that kills the sandbox of whoever reads it costs nobody else a thing, and can be mended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from local.environment import MAX_RECEIVES
from tests import fake_model
from tests.acceptance.platform_process import RAG, PlatformProcess, platform_process, wait_for
from tests.fake_model import FakeModel

pytestmark = pytest.mark.slow

GOOD = {f"{number}.md": f"Note {number} tells of lighthouse {number}.".encode() for number in range(9)}
BUSY = {f"busy-{number}.md": f"Busy {number}.".encode() for number in range(2)}


class Murderous(FakeModel):
    """Waits with what is busy until it is let go; kills every sandbox of ingest that asks it about poison."""

    def __init__(self) -> None:
        super().__init__(dimensions=8)
        self.platform: PlatformProcess | None = None
        self.mended = False
        self.go = threading.Event()
        self.kills = 0

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        text = json.dumps(body)
        if "Busy" in text:
            self.go.wait(60)
        if "Poison" in text and not self.mended and self.platform:
            self.kills += 1
            for pid in self.platform.sandboxes("ingest"):
                os.kill(pid, signal.SIGKILL)
        super().reply(handler, body)


@contextmanager
def poisoned() -> Iterator[tuple[PlatformProcess, Murderous]]:
    environment = {
        "OPENAI_API_KEY": "sk-none",
        "RAG_EMBEDDING_MODEL": "murderous",
        "RAG_EMBEDDING_DIMENSIONS": "8",
        "RAG_CHAT_MODEL": "murderous",
    }
    model = Murderous()
    with (
        fake_model.serving(model),
        platform_process({**environment, "OPENAI_BASE_URL": model.url}) as platform,
    ):
        model.platform = platform
        try:
            yield platform, model
        finally:
            model.go.set()


def dead(platform: PlatformProcess) -> list[str]:
    sqs, url = platform.client("sqs"), platform.ready["dead_letter_queue_url"]
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return [message["Body"] for message in got.get("Messages", [])]


def begun(platform: PlatformProcess) -> dict[str, int]:
    return dict(platform.rows("select key, attempts from documents"))


def told(platform: PlatformProcess, key: str) -> list[str]:
    lines = (platform.directory / "aws" / "events.jsonl").read_text().splitlines()
    details = [json.loads(line)["detail"] for line in lines]
    return [detail["status"] for detail in details if detail["key"] == key]


@pytest.mark.faults_full
def test_poison_ends_as_failed_and_dead_and_its_batch_mates_are_ready_at_their_second_delivery(
    record_fault: Any,
) -> None:
    with poisoned() as (platform, model), platform.api() as api:
        for key, body in BUSY.items():
            api.upload(key, body)
        wait_for(lambda: both_busy(api))
        for key, body in {"poison.md": b"Poison is in here.", **GOOD}.items():
            api.upload(key, body)
        model.go.set()
        wait_for(lambda: len(dead(platform)) == 1, lambda: (api.documents("default"), begun(platform)))
        documents = api.documents("default")
        again = {key: number - 1 for key, number in begun(platform).items() if key in GOOD}
        figure = f"{model.kills} sandboxes killed; good documents begun again: {sum(again.values())} of {len(GOOD)}"
        assert {key for key, one in documents.items() if one["status"] == "ready"} == {*GOOD, *BUSY}
        assert (documents["poison.md"]["status"], documents["poison.md"]["error"]["code"]) == ("failed", "INTERNAL")
        assert model.kills <= MAX_RECEIVES
        assert max(again.values()) <= 1
        [letter] = dead(platform)
        assert "poison.md" in letter
        # Its last run's lease ends with the letter's being seen, within a minute; a redrive before would wait for it.
        wait_for(lambda: told(platform, "poison.md") == ["failed"], lambda: told(platform, "poison.md"))
        model.mended = True
        moved = subprocess.run(
            [*RAG, "redrive", "--data", str(platform.directory), "--json"], capture_output=True, check=True
        )
        assert json.loads(moved.stdout)["moved"] == 1
        api.wait_until_ready("default", {"poison.md", *GOOD, *BUSY})
        assert dead(platform) == []
        # Told after it is so: whoever asks the API may be there first.
        wait_for(lambda: told(platform, "poison.md")[-1] == "ready", lambda: told(platform, "poison.md"))
        record_fault("A9", injected=1, violations=0, figure=figure)
        record_fault("A13", injected=1, violations=0, figure="1 redriven, 1 ready")


def both_busy(api: Any) -> bool:
    """Both sandboxes have something to wait for."""
    found = [one["status"] for one in api.documents("default").values()]
    return found == ["processing"] * len(BUSY)
