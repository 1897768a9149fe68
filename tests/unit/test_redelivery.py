"""How long a message that failed waits before it comes back."""

from __future__ import annotations

import errno

import pytest

from functions.ingest.redelivery import given_up, pause_seconds
from rag.errors import UnavailableError

DELIVERIES = range(1, 5)  # the fifth is the last: nothing comes after it


def test_a_failed_message_comes_back_soon_and_later_each_time() -> None:
    pauses = [pause_seconds(UnavailableError("down", retry_after_seconds=1), receives) for receives in DELIVERIES]
    assert pauses[0] == 1
    assert pauses == sorted(set(pauses))


def test_all_deliveries_together_outlast_the_failover_of_a_database() -> None:
    down = UnavailableError("down", retry_after_seconds=1)
    assert sum(pause_seconds(down, receives) for receives in DELIVERIES) >= 240


def test_no_pause_is_longer_than_a_quarter_of_an_hour() -> None:
    assert pause_seconds(UnavailableError("down", retry_after_seconds=3600), 1) == 900
    assert pause_seconds(RuntimeError("unforeseen"), 4) == 900


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("the model is not available"), "INTERNAL"),
        (MemoryError(), "OUT_OF_MEMORY"),
        (OSError(errno.ENOSPC, "No space left on device"), "DISK_FULL"),
        (OSError(errno.EFBIG, "File too large"), "DISK_FULL"),
        (OSError(errno.ECONNRESET, "reset"), "INTERNAL"),
        (RuntimeError("secret of the inside"), "INTERNAL"),
    ],
)
def test_what_is_given_up_says_why_and_nothing_of_the_inside(error: Exception, code: str) -> None:
    found, reason = given_up(error, "m-1")
    assert found == code
    assert "inside" not in reason


def test_what_is_no_notification_is_not_waited_for() -> None:
    assert pause_seconds(ValueError("the message is not an S3 notification"), 1) == 0
