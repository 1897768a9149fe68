"""API keys on the running platform, by the command line: made, limited, rotated, and refused when they have ended."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from tests.acceptance.platform_process import RAG, ROOT, PlatformProcess, assert_problem

pytestmark = pytest.mark.slow

LONGEST_SECONDS = 60


def rag(platform: PlatformProcess, *arguments: str) -> Any:
    command = [*RAG, *arguments, "--json", "--data", str(platform.directory)]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)


def test_a_key_lives_from_its_making_to_its_end_and_a_minute_at_most(running_platform: PlatformProcess) -> None:
    made = rag(running_platform, "keys", "create", "importer", "--role", "writer", "--collection", "orchards")
    with running_platform.api(made["api_key"]) as limited, running_platform.api() as admin:
        limited.upload("pears.md", b"Pears are picked in September.", "orchards")
        limited.wait_until_ready("orchards", {"pears.md"})
        admin.upload("plums.md", b"Plums are picked in August.", "hedges")
        admin.wait_until_ready("hedges", {"plums.md"})
        asked = {"query": "When are they picked?"}
        assert limited.post("/v1/search", {**asked, "collection": "orchards"}).json()["hits"][0]["key"] == "pears.md"
        assert_problem(limited.post("/v1/search", {**asked, "collection": "hedges"}), 404)
        assert_problem(limited.get("/v1/keys"), 403)
        new = rag(running_platform, "keys", "rotate", made["id"])
        with running_platform.api(new["api_key"]) as successor:
            assert successor.post("/v1/search", {**asked, "collection": "orchards"}).status_code == 200
            assert limited.post("/v1/search", {**asked, "collection": "orchards"}).status_code == 200
            listed = {key["id"]: key for key in rag(running_platform, "keys", "list")["keys"]}
            assert listed[made["id"]]["replaced_by"] == new["id"]
            assert listed[made["id"]]["last_used_at"]
            assert rag(running_platform, "keys", "revoke", made["id"])["status"] == "revoked"
            began = time.monotonic()
            while (reply := limited.get("/v1/collections")).status_code == 200:
                assert time.monotonic() - began < LONGEST_SECONDS + 30
                time.sleep(1)
            assert_problem(reply, 401)
            assert successor.get("/v1/collections").status_code == 200
        unused = rag(running_platform, "keys", "create", "never used")
        rag(running_platform, "keys", "revoke", unused["id"])
        assert_problem(admin.http.get("/v1/collections", headers={"x-api-key": unused["api_key"]}), 401)
