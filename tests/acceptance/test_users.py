"""People on the local platform: made, given a token by the command line, and let in by the gateway."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest

from tests.acceptance.platform_process import RAG, PlatformProcess

pytestmark = pytest.mark.slow


def rag(platform: PlatformProcess, *arguments: str, expected: int = 0) -> str:
    command = [*RAG, *arguments, "--data", platform.ready["data"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stderr
    return done.stdout if expected == 0 else done.stderr


def ask(platform: PlatformProcess, token: str, method: str, path: str, body: Any = None) -> httpx.Response:
    url, headers = platform.ready["url"] + path, {"authorization": f"Bearer {token}"}
    return httpx.request(method, url, json=body, headers=headers, timeout=60, trust_env=False)


def test_a_user_asks_with_a_token_within_her_tenant_and_role(running_platform: PlatformProcess) -> None:
    tenant = json.loads(rag(running_platform, "tenants", "create", "of-users", "--json"))
    rag(running_platform, "users", "create", "ann@example.com", "--tenant", tenant["tenant_id"], "--groups", "finance")
    ann = rag(running_platform, "users", "token", "ann@example.com").strip()
    found = ask(running_platform, ann, "GET", "/v1/documents")
    assert (found.status_code, found.json()["documents"]) == (200, [])
    assert ask(running_platform, ann, "POST", "/v1/documents", {"key": "a.md", "size": 3}).status_code == 403
    assert json.loads(rag(running_platform, "documents", "--token", ann, "--json"))["documents"] == []

    rag(running_platform, "users", "create", "bob@example.com", "--tenant", tenant["tenant_id"], "--role", "writer")
    bob = rag(running_platform, "users", "token", "bob@example.com").strip()
    assert ask(running_platform, bob, "POST", "/v1/documents", {"key": "a.md", "size": 3}).status_code in {200, 201}

    rag(running_platform, "users", "delete", "bob@example.com", "--yes")
    assert "no user bob@example.com" in rag(running_platform, "users", "token", "bob@example.com", expected=1)


def test_a_token_that_was_tampered_with_and_a_user_of_no_tenant_are_refused(running_platform: PlatformProcess) -> None:
    nowhere = "0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11"
    rag(running_platform, "users", "create", "eve@example.com", "--tenant", nowhere, "--role", "admin")
    eve = rag(running_platform, "users", "token", "eve@example.com").strip()
    rag(running_platform, "users", "create", "dan@example.com")
    dan = rag(running_platform, "users", "token", "dan@example.com").strip()
    assert ask(running_platform, dan, "GET", "/v1/documents").status_code == 200
    for token in (eve, dan[:-4] + "AAAA", f"{dan.split('.')[0]}.{eve.split('.')[1]}.{dan.split('.')[2]}"):
        refused = ask(running_platform, token, "GET", "/v1/documents")
        assert refused.status_code == 401, refused.text
    assert "access token" in rag(running_platform, "documents", "--token", eve, expected=3)
