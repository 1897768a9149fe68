"""What one tenant says and has, and secrets, are looked for in everything that another sees and that operators keep."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from rag import keys
from rag.errors import NotAuthorizedError
from tests.acceptance.platform_process import RAG, ROOT, PlatformProcess, platform_process, wait_for

pytestmark = pytest.mark.slow

# What the other tenant says: nowhere but in its own data. What it names: also in what is told of its own requests.
SAID = {name: f"zqx{name}canary" for name in ("content", "title", "metadata", "question", "broken", "refused")}
NAMED = {name: f"zqx{name}canary" for name in ("key", "collection")}
SECRET = re.compile(rb"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bsk-[A-Za-z0-9]{32,}|\bghp_[A-Za-z0-9]{36}")
OWN_KEY = re.compile(r"rag_[0-9A-Za-z]{8}\.[0-9A-Za-z]{49}")


@pytest.fixture(scope="module")
def platform() -> Iterator[PlatformProcess]:
    with platform_process() as started:
        yield started


@pytest.fixture(scope="module")
def other(platform: PlatformProcess) -> dict[str, str]:
    """A tenant who has used everything, and left a canary wherever something of its could be written."""
    command = [*RAG, "tenants", "create", "other", "--json", "--data", str(platform.directory)]
    made: dict[str, str] = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    with platform.api(made["api_key"]) as api:
        collection = NAMED["collection"]
        assert api.post("/v1/collections", {"name": collection, "language": "english"}).status_code == 201
        key = f"{NAMED['key']}.md"
        described = json.dumps({"note": SAID["metadata"]}).encode()
        api.upload(f"{key}.metadata.json", described, collection)
        text = f"# The {SAID['title']}\n\nThe vault of Harrowgate opens with the word {SAID['content']}."
        api.upload(key, text.encode(), collection)
        api.wait_until_ready(collection, {key})
        api.upload(f"{NAMED['key']}.pdf", f"%PDF-1.7 {SAID['broken']}".encode(), "broken")
        wait_for(lambda: [one["status"] for one in api.documents("broken").values()] == ["failed"])
        asked = {"question": f"Which word opens the vault, {SAID['question']}?", "collection": collection}
        answered = [api.post("/v1/query", {**asked, "conversation": True}).json() for _ in range(2)]
        assert SAID["content"] in answered[1]["answer"]
        api.post("/v1/search", {"query": SAID["question"], "collection": collection, "explain": True})
        assert api.post("/v1/search", {"query": 5, SAID["refused"]: SAID["refused"]}).status_code == 422
        assert api.post("/v1/search", {"query": "x", "filters": {"a": {SAID["refused"]: 1}}}).status_code == 422
    return made


def test_no_canary_of_a_tenant_is_found_where_another_or_an_operator_looks(
    platform: PlatformProcess, other: dict[str, str], record_attack: Callable[..., None]
) -> None:
    with platform.api() as api:
        api.upload("own.md", b"Opossums sleep in trees.")
        api.wait_until_ready("default", {"own.md"})
        canaries = [*SAID.values(), *NAMED.values()]
        seen = [api.get(path) for path in ("/v1/documents", "/v1/collections", "/v1/conversations", "/v1/erasures")]
        seen += [
            api.get(path) for path in ("/v1/keys", "/v1/audit", "/v1/usage", "/health", "/health/detailed", "/ready")
        ]
        for canary in ["vault Harrowgate word", *canaries]:
            seen += [
                api.post("/v1/search", {"query": canary, "explain": True}),
                api.post("/v1/query", {"question": f"What is {canary}?", "explain": True}),
                api.post(
                    "/v1/query", {"question": "Which word opens the vault of Harrowgate?", "collection": "default"}
                ),
            ]
    # An echo of one's own question is no leak: what was sent is taken out before it is looked through.
    shown = [_unasked(reply) for reply in seen]
    found = [("seen", canary) for canary in canaries for text in shown if canary in text]

    logs = [
        path.read_text(errors="replace") for path in sorted((platform.directory / "logs").rglob("*")) if path.is_file()
    ]
    lines = [line for log in [*logs, platform.output()] for line in log.splitlines()]
    metrics = [line for line in lines if '"_aws"' in line]
    assert len(metrics) > 10
    found += [(line, canary) for line in lines for canary in SAID.values() if canary in line]
    apart = [line for line in lines if other["tenant_id"] not in line]
    found += [(line, canary) for line in apart for canary in NAMED.values() if canary in line]
    found += [(line, canary) for line in metrics for canary in canaries if canary in line]

    sqs, dead = platform.client("sqs"), []
    for _ in range(3):
        got = sqs.receive_message(QueueUrl=platform.ready["dead_letter_queue_url"], MaxNumberOfMessages=10)
        dead += [message["Body"] for message in got.get("Messages", [])]
    found += [("dead letter", canary) for body in dead for canary in SAID.values() if canary in body]

    folder = platform.directory / "valkey"
    password, port = (folder / "password").read_text(), (folder / "port").read_text()
    entries: dict[str, str] = {}
    with redis.Redis(port=int(port), password=password) as client:
        for key in client.scan_iter():
            value = client.get(key) if client.type(key) == b"string" else b""
            entries[key.decode()] = (value or b"").decode(errors="replace")
    own = f"answer:{other['tenant_id']}:"
    assert any(key.startswith(own) and SAID["content"] in value for key, value in entries.items())
    found += [(key, canary) for key in entries for canary in canaries if canary in key]
    found += [
        (key, canary)
        for key, value in entries.items()
        for canary in canaries
        if canary in value and not key.startswith(own)
    ]
    looked = len(shown) + len(lines) + len(dead) + len(entries)
    record_attack(
        "H10",
        tried=looked,
        succeeded=len(found),
        figure=f"{len(canaries)} canaries in {len(shown)} answers, {len(lines)} log lines ({len(metrics)} of metrics), "
        f"{len(dead)} dead letters, {len(entries)} entries of the cache",
    )
    assert found == []


def _unasked(reply: Any) -> str:
    text = str(reply.text)
    with suppress(ValueError, TypeError):
        body = reply.json()
        body.pop("question", None)
        text = json.dumps(body)
    sent = json.loads(reply.request.content or b"{}")
    for words in sent.values():
        text = text.replace(str(words), "")
    return text


def test_no_secret_is_found_in_logs_answers_or_the_repository(
    platform: PlatformProcess, other: dict[str, str], record_attack: Callable[..., None]
) -> None:
    vault = platform.client("secretsmanager")
    names = [secret["Name"] for secret in vault.list_secrets()["SecretList"]]
    held = [vault.get_secret_value(SecretId=name)["SecretString"] for name in names]
    ready = platform.ready
    kept = [(platform.directory / place).read_text() for place in ("postgres/superuser-password", "valkey/password")]
    secrets = {*held, *kept, ready["api_key"], other["api_key"], ready["secret_access_key"]}
    secrets = {secret for secret in secrets if len(secret) > 8}
    assert len(secrets) > 8
    logs = [path for path in sorted((platform.directory / "logs").rglob("*")) if path.is_file()]
    texts = [(str(path), path.read_text(errors="replace")) for path in logs]
    found = [name for name, text in texts for secret in secrets if secret in text]
    # The first key is told to whoever starts the platform, on purpose and once.
    texts.append(("output", platform.output().replace(ready["api_key"], "", 1)))
    found += [name for name, text in texts[-1:] for secret in secrets if secret in text]

    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [ROOT / name for name in listed.split("\0") if name]
    for path in files:
        if not path.is_file():
            continue
        body = path.read_bytes()
        found += [
            f"{path}: {match.decode()}"
            for match in SECRET.findall(body)
            if b"EXAMPLE" not in match and not _sample(path)
        ]
        found += [f"{path}: a key" for key in OWN_KEY.findall(body.decode(errors="replace")) if _is_valid(key)]
        found += [str(path) for secret in secrets if secret.encode() in body]
    record_attack(
        "L2",
        tried=len(texts) + len(files),
        succeeded=len(found),
        figure=f"{len(secrets)} live secrets and 5 patterns in {len(texts)} logs, {len(files)} files of the repository "
        "(code of functions and layers, templates)",
    )
    assert found == []


def _sample(path: Path) -> bool:
    """This file, which has to write down what it looks for."""
    return path == Path(__file__).resolve()


def _is_valid(key: str) -> bool:
    with suppress(NotAuthorizedError):
        keys.parse(key)
        return True
    return False
