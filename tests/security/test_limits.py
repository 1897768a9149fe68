"""Nobody gets more than his limits, whatever he sends and whatever fails, and nobody else gets less by it."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from local.valkey import Valkey
from tests.integration.deployment import Deployment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RecordAttack = Callable[..., None]
LIMIT, DAY = 100, 24 * 3600
PROCESSES = 4


class Callers:
    """Processes that wait for their turn to ask as one key."""

    def __init__(self, url: str, *, times: int, window_seconds: int = DAY) -> None:
        given = [url, str(uuid.uuid4()), str(LIMIT), str(window_seconds), str(times)]
        path = f"{ROOT}:{ROOT / 'layers/rag/python'}"
        command = [sys.executable, "-m", "tests.security.limited_caller", *given]
        self.processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": path}
            )
            for _ in range(PROCESSES)
        ]
        for process in self.processes:
            assert self._line(process) == "ready"

    def ask(self) -> tuple[list[int], float]:
        """How often each was admitted, all asking at once, and the slowest of their requests."""
        for process in self.processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [self._line(process).split() for process in self.processes]
        return [int(admitted) for admitted, _ in told], max(float(slowest) for _, slowest in told)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout
        return process.stdout.readline().strip()


@contextmanager
def callers(url: str, **given: int) -> Iterator[Callers]:
    opened = Callers(url, **given)
    try:
        yield opened
    finally:
        opened.end()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Valkey]:
    """A server of this test's own, to be killed."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


def test_a_burst_from_several_processes_gets_what_the_bucket_holds(valkey: Any, record_attack: RecordAttack) -> None:
    with callers(valkey.url, times=50) as asking:
        admitted, _ = asking.ask()
    over = max(sum(admitted) - LIMIT, 0)
    record_attack(
        "I5",
        tried=50 * PROCESSES,
        succeeded=max(over - 1, 0),
        figure=f"{sum(admitted)} of {50 * PROCESSES} at once admitted, limit {LIMIT}, {PROCESSES} processes",
    )
    assert sum(admitted) in {LIMIT, LIMIT + 1}


def test_while_a_bucket_fills_again_only_that_is_admitted(valkey: Any, record_attack: RecordAttack) -> None:
    began = time.monotonic()
    total = 0
    with callers(valkey.url, times=50, window_seconds=20) as asking:
        for _ in range(10):
            total += sum(asking.ask()[0])
            time.sleep(0.3)
        seconds = time.monotonic() - began
    allowed = LIMIT + seconds * LIMIT / 20 + 1
    record_attack(
        "I5",
        tried=500 * PROCESSES,
        succeeded=int(total > allowed),
        figure=f"{total} admitted in {seconds:.1f} s, {LIMIT} at once and 5/s allow {allowed:.0f}",
    )
    assert LIMIT <= total <= allowed


def test_with_the_cache_killed_in_the_middle_each_process_holds_the_limit(
    mortal: Valkey, record_attack: RecordAttack
) -> None:
    with callers(mortal.url, times=10) as asking:
        before, _ = asking.ask()
        assert mortal.process
        mortal.process.kill()
        mortal.process.wait()
        rounds = [asking.ask() for _ in range(15)]
    each = [sum(counts) for counts in zip(before, *(admitted for admitted, _ in rounds), strict=True)]
    slowest = max(took for _, took in rounds)
    record_attack(
        "I5",
        tried=160 * PROCESSES,
        succeeded=sum(count > LIMIT for count in each),
        figure=f"cache killed: at most {max(each)} of 160 in a process, limit {LIMIT}; slowest {slowest * 1000:.0f} ms",
    )
    assert max(each) <= LIMIT
    assert slowest < 15


def test_an_emptied_cache_gives_no_process_a_second_bucket(valkey: Any, record_attack: RecordAttack) -> None:
    with callers(valkey.url, times=50) as asking, redis.Redis.from_url(valkey.url) as client:
        totals: Counter[int] = Counter()
        for _ in range(10):
            admitted, _ = asking.ask()
            totals.update(dict(enumerate(admitted)))
            client.flushall()
    record_attack(
        "I5",
        tried=10,
        succeeded=sum(count > LIMIT for count in totals.values()),
        figure=f"10 × FLUSHALL: at most {max(totals.values())} of 500 in a process, limit {LIMIT}",
    )
    assert max(totals.values()) <= LIMIT


def test_who_is_over_a_limit_costs_nobody_else_a_request(deployment: Deployment, record_attack: RecordAttack) -> None:
    deployment.settings |= {"RAG_RATE_LIMIT_REQUESTS": "5", "RAG_RATE_LIMIT_WINDOW": "3600"}
    deployment.settings["RAG_TENANT_RATE_LIMIT_REQUESTS"] = "12"
    other, _ = deployment.tenants.create("second")
    noisy: Counter[int] = Counter()
    quiet: Counter[int] = Counter()
    for _ in range(10):
        noisy[deployment.ask("GET", "/v1/collections", principal="key:noisy").status] += 1
        deployment.ask("GET", "/v1/collections", anonymous=True)
    for _ in range(5):
        quiet[deployment.ask("GET", "/v1/collections", principal="key:quiet").status] += 1
        quiet[deployment.ask("GET", "/v1/collections", tenant=other, principal="key:noisy").status] += 1
    record_attack(
        "F9",
        tried=20,
        succeeded=quiet.total() - quiet[200],
        figure=f"{noisy[429]} of 10 refused to one key, {quiet.total() - quiet[200]} errors of others",
    )
    assert noisy == {200: 5, 429: 5}
    assert quiet == {200: 10}


def test_one_request_uses_no_more_of_the_models_than_the_settings_say(
    deployment: Deployment, record_attack: RecordAttack
) -> None:
    """The longest question, everything that costs a call, and a collection full of long passages."""
    deployment.settings |= {"RAG_CONTEXT_TOKENS": "3000", "RAG_ANSWER_TOKENS": "500"}
    deployment.model.says = "Refunds are paid within nine working days. [1]"
    paragraph = "Refunds are paid within nine working days, whatever was bought, by whom, and from where. "
    for number in range(4):
        deployment.put(f"{number}.md", f"# Refunds {number}\n\n" + paragraph * 60)
    deployment.model.requests.clear()
    greedy = {
        "question": ("How long do refunds take? " * 200)[:4000],
        "style": "summary",
        "rerank": "llm",
        "top_k": 100,
        "diversity": 0.5,
        "explain": True,
        "conversation": True,
    }
    first = deployment.ask("POST", "/v1/query", greedy)
    assert first.status == 200, first.json
    second = deployment.ask("POST", "/v1/query", greedy | {"conversation_id": first.json["conversation_id"]})
    assert second.status == 200, second.json
    calls: Sequence[dict[str, Any]] = deployment.model.requests
    words = [sum(len(message["content"]) for message in call.get("messages", [])) // 4 for call in calls]
    longest, answers = (
        max(words),
        max(call.get("max_completion_tokens") or call.get("max_tokens") or 0 for call in calls),
    )
    refused = [
        deployment.ask("POST", "/v1/query", greedy | change).status
        for change in ({"question": "x" * 4001}, {"top_k": 101}, {"max_tokens": 10**6}, {"context_tokens": 10**6})
    ]
    record_attack(
        "K7",
        tried=2 + len(refused),
        succeeded=sum(status != 422 for status in refused) + (len(calls) > 10) + (longest > 12_000),
        figure=f"{len(calls)} calls of 2 requests, about {longest:,} tokens in and {answers:,} out at most for one",
    )
    assert refused == [422] * 4
    assert len(calls) <= 10
    assert longest <= 12_000


@pytest.mark.usefixtures("one_day")
def test_a_tenant_gets_no_further_than_its_day(deployment: Deployment, record_attack: RecordAttack) -> None:
    deployment.settings["RAG_TENANT_TOKENS_PER_DAY"] = "20"
    statuses: Counter[int] = Counter()
    for number in range(15):
        body = {"query": f"{'refunds ' * 10}{number}"}
        statuses[deployment.ask("POST", "/v1/search", body, principal=f"key:{number}").status] += 1
    month = deployment.ask("GET", "/v1/usage").json["month"]
    used = month["prompt_tokens"] + month["completion_tokens"]
    record_attack(
        "K7",
        tried=15,
        succeeded=int(used > 20),
        figure=f"15 searches by 15 keys: {used} of 20 tokens used, {statuses[429]} refused",
    )
    assert used <= 20
    assert statuses[429] > 0
    assert set(statuses) == {200, 429}
