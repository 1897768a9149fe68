"""Dead letters go back to the queue of ingest: those that are wanted, and none is ever lost."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local import cli, dead_letters
from local.dead_letters import Queues
from rag.types import Location
from tests.integration.deployment import notification
from tests.unit.test_cli_help import _examples, _shape

pytestmark = pytest.mark.slow

TENANT = uuid.UUID("0c6f9a52-6d0b-4d7a-9a53-5f0d3c1e2b11")
TRAVEL, LEAVE, PRICES = (
    Location(TENANT, *place) for place in (("hr", "travel one.md"), ("hr", "leave.md"), ("shop", "prices.csv"))
)
NONSENSE = "this is no notification"


def body(place: Location) -> str:
    return notification(place.object_key)


@pytest.fixture
def queues(aws: Any) -> Iterator[Queues]:
    sqs, name = aws.client("sqs"), f"redrive-{uuid.uuid4()}"
    urls = [sqs.create_queue(QueueName=each)["QueueUrl"] for each in (name, f"{name}-dead")]
    yield Queues(sqs, *urls)
    for url in urls:
        sqs.delete_queue(QueueUrl=url)


def bury(queues: Queues, *bodies: str) -> None:
    for each in bodies:
        queues.sqs.send_message(QueueUrl=queues.dead_letter_url, MessageBody=each)


def bodies(queues: Queues, url: str) -> list[str]:
    """All that is visible in a queue, which has ten at most."""
    got = queues.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return sorted(message["Body"] for message in got.get("Messages", []))


def moved(queues: Queues, **wanted: Any) -> list[str]:
    found = dead_letters.redrive(queues, dead_letters.of(**wanted))
    return sorted(letter.body for letter, moves in found if moves)


@contextmanager
def aws_without(queues: Queues, operation: str) -> Iterator[None]:
    """The program is interrupted where it would ask for this."""

    def interrupted(**_: object) -> None:
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues.sqs, operation, interrupted)
        yield


def test_without_a_filter_every_message_goes_back(queues: Queues) -> None:
    every = sorted([body(TRAVEL), body(PRICES), NONSENSE])
    bury(queues, *every)
    assert moved(queues) == every
    assert (bodies(queues, queues.queue_url), bodies(queues, queues.dead_letter_url)) == (every, [])


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ({"collection": "hr"}, [TRAVEL, LEAVE]),
        ({"document": TRAVEL.document_id}, [TRAVEL]),
        ({"collection": "hr", "document": PRICES.document_id}, []),
    ],
)
def test_a_filter_moves_what_it_names_and_leaves_the_rest_visible(
    queues: Queues, wanted: dict[str, Any], places: list[Location]
) -> None:
    every = [body(TRAVEL), body(LEAVE), body(PRICES), NONSENSE]
    bury(queues, *every)
    chosen = sorted(map(body, places))
    assert moved(queues, **wanted) == chosen
    assert bodies(queues, queues.queue_url) == chosen
    assert bodies(queues, queues.dead_letter_url) == sorted(set(every) - set(chosen))


def test_many_messages_are_all_moved(queues: Queues) -> None:
    every = sorted(body(Location(TENANT, "hr", f"{number}.md")) for number in range(25))
    bury(queues, *every)
    assert moved(queues, collection="hr") == every
    assert bodies(queues, queues.dead_letter_url) == []


def test_a_run_that_is_cut_off_loses_no_message(queues: Queues) -> None:
    every = sorted(map(body, (TRAVEL, LEAVE, PRICES)))
    bury(queues, *every)
    found = dead_letters.redrive(queues, dead_letters.of())
    next(found)
    found.close()
    [first] = bodies(queues, queues.queue_url)
    assert sorted([first, *bodies(queues, queues.dead_letter_url)]) == every
    with aws_without(queues, "delete_message"), pytest.raises(InterruptedError):
        moved(queues)
    went, left = bodies(queues, queues.queue_url), bodies(queues, queues.dead_letter_url)
    assert (len(went), len(left)) == (2, 2)
    assert sorted({*went, *left}) == every
    assert moved(queues) == left
    assert sorted(set(bodies(queues, queues.queue_url))) == every


def test_what_dies_again_meanwhile_is_left_to_the_next_run(queues: Queues) -> None:
    bury(queues, NONSENSE)
    found = dead_letters.redrive(queues, dead_letters.of())
    next(found)
    bury(queues, NONSENSE)
    assert list(found) == []
    assert bodies(queues, queues.dead_letter_url) == [NONSENSE]


@pytest.fixture
def data(queues: Queues, aws: Any, tmp_path: Path) -> Path:
    """Where a running platform says where its queues are."""
    ready = {"url": "http://127.0.0.1:1", "api_key": "", "s3_endpoint": aws.url, **aws.credentials._asdict()}
    ready |= {"queue_url": queues.queue_url, "dead_letter_queue_url": queues.dead_letter_url}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    return tmp_path


def test_the_command_shows_what_would_move_and_then_moves_it(
    queues: Queues, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bury(queues, body(TRAVEL), body(PRICES), NONSENSE)
    arguments = ["redrive", "--data", str(data), "--collection", "hr"]
    assert cli.run([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1 message would move, 2 left." in out
    assert NONSENSE in out
    assert bodies(queues, queues.queue_url) == []
    assert cli.run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert _shape(told) == _shape(_examples()["redrive"])
    assert (told["moved"], told["left"], told["dry_run"]) == (1, 2, False)
    [one] = [message for message in told["messages"] if message["action"] == "moved"]
    assert one["documents"] == [
        {"id": str(TRAVEL.document_id), "tenant_id": str(TENANT), "collection": "hr", "key": "travel one.md"}
    ]
    assert bodies(queues, queues.queue_url) == [body(TRAVEL)]


def test_the_command_says_when_there_is_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["redrive", "--data", str(data)]) == 0
    assert capsys.readouterr().out == "There are no dead letters.\n"


def test_the_queues_of_a_stage_are_found_by_their_names(
    aws: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    assert cli.run(["redrive", "--stage", "prod"]) == 1
    assert "The queues of prod cannot be found" in capsys.readouterr().err
    sqs = aws.client("sqs")
    urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("rag-dev-ingest", "rag-dev-ingest-dead-letters")]
    bury(queues := Queues(sqs, *urls), body(LEAVE))
    assert cli.run(["redrive", "--stage", "dev"]) == 0
    assert "1 message moved, 0 left." in capsys.readouterr().out
    assert bodies(queues, urls[0]) == [body(LEAVE)]
    for url in urls:
        sqs.delete_queue(QueueUrl=url)
