"""Notification rules: read, written, matched."""

from __future__ import annotations

import pytest

from local.aws import notifications
from local.aws.errors import S3Error
from local.aws.notifications import Rule

INFIX = b"<Filter><S3Key><FilterRule><Name>infix</Name><Value>a</Value></FilterRule></S3Key></Filter>"


def test_a_configuration_reads_back_as_it_was_written() -> None:
    rules = [
        Rule("one", "arn:aws:sqs:us-east-1:123456789012:q", ("s3:ObjectCreated:*",), "a & b/", ".pdf"),
        Rule("two", "arn:aws:sqs:us-east-1:123456789012:r", ("s3:ObjectRemoved:Delete", "s3:ObjectCreated:Put")),
    ]
    assert notifications.parse(notifications.render(rules)) == rules


@pytest.mark.parametrize(
    ("event", "key", "wanted"),
    [
        ("ObjectCreated:Put", "in/a.pdf", True),
        ("ObjectCreated:CompleteMultipartUpload", "in/a.pdf", True),
        ("ObjectRemoved:Delete", "in/a.pdf", True),
        ("ObjectRemoved:DeleteMarkerCreated", "in/a.pdf", False),
        ("ObjectCreated:Put", "out/a.pdf", False),
        ("ObjectCreated:Put", "in/a.txt", False),
    ],
)
def test_a_rule_wants_its_events_of_its_keys(event: str, key: str, *, wanted: bool) -> None:
    rule = Rule("one", "arn", ("s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"), "in/", ".pdf")
    assert rule.wants(event, key) is wanted


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"<NotificationConfiguration>", "MalformedXML"),
        (
            b"<N><QueueConfiguration><Queue>q</Queue><Event>s3:Nonsense</Event></QueueConfiguration></N>",
            "InvalidArgument",
        ),
        (b"<N><QueueConfiguration><Queue>q</Queue></QueueConfiguration></N>", "InvalidArgument"),
        (b"<N><TopicConfiguration><Topic>t</Topic></TopicConfiguration></N>", "NotImplemented"),
        (
            b"<N><QueueConfiguration><Event>s3:ObjectCreated:*</Event>" + INFIX + b"</QueueConfiguration></N>",
            "InvalidArgument",
        ),
    ],
)
def test_a_configuration_that_s3_would_not_take_is_refused(document: bytes, code: str) -> None:
    with pytest.raises(S3Error) as error:
        notifications.parse(document)
    assert error.value.code == code
