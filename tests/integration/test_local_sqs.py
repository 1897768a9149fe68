"""The local SQS and Secrets Manager as a real process: what consumers see, and what a restart keeps."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from local import aws
from local.aws import inside_moto
from local.aws.journal import Journal, JournalVersionError, Message
from local.aws.queues import Queues
from local.aws_service import Aws

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

_numbers = itertools.count(1)


@dataclass
class Queue:
    server: Aws
    name: str

    @cached_property
    def sqs(self) -> Any:
        return self.server.client("sqs")

    @property
    def url(self) -> str:
        return f"{self.server.url}/{aws.ACCOUNT_ID}/{self.name}"

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:{aws.REGION}:{aws.ACCOUNT_ID}:{self.name}"

    def create(self, **attributes: str) -> Queue:
        self.sqs.create_queue(QueueName=self.name, Attributes=attributes)
        return self

    def send(self, body: str, **options: Any) -> str:
        return str(self.sqs.send_message(QueueUrl=self.url, MessageBody=body, **options)["MessageId"])

    def receive(self, **options: Any) -> list[dict[str, Any]]:
        options = {"MaxNumberOfMessages": 10, "AttributeNames": ["All"], "MessageAttributeNames": ["All"], **options}
        return list(self.sqs.receive_message(QueueUrl=self.url, **options).get("Messages", []))

    def delete(self, message: dict[str, Any]) -> None:
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])

    def attributes(self) -> dict[str, str]:
        return dict(self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"])

    def count(self) -> int:
        return int(self.attributes()["ApproximateNumberOfMessages"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """Tests may kill it; each has queues and secrets of its own."""
    server = Aws(tmp_path_factory.mktemp("servers") / "aws")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def queue(server: Aws) -> Queue:
    return Queue(server, f"queue-{next(_numbers)}").create()


@pytest.fixture
def with_dead_letters(server: Aws) -> tuple[Queue, Queue]:
    dead = Queue(server, f"dead-{next(_numbers)}").create()
    policy = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": 2})
    return Queue(server, f"queue-{next(_numbers)}").create(RedrivePolicy=policy), dead


def restart(server: Aws) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()


def bodies(messages: list[dict[str, Any]]) -> list[str]:
    return [message["Body"] for message in messages]


def test_messages_survive_a_kill_unless_they_were_deleted(server: Aws, queue: Queue) -> None:
    attributes = {
        "n": {"DataType": "Number", "StringValue": "1"},
        "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    ids = [queue.send("kept", MessageAttributes=attributes), queue.send("in flight"), queue.send("deleted")]
    received = queue.receive()
    queue.delete(received[2])
    restart(server)
    found = queue.receive()
    assert [(message["MessageId"], message["Body"]) for message in found] == [(ids[0], "kept"), (ids[1], "in flight")]
    assert found[0]["MessageAttributes"] == attributes
    for name in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
        assert found[0]["Attributes"][name] == received[0]["Attributes"][name]
    assert [message["Attributes"]["ApproximateReceiveCount"] for message in found] == ["2", "2"]


def test_batches_delays_and_purges_survive_a_kill(server: Aws, queue: Queue) -> None:
    entries = [{"Id": str(number), "MessageBody": f"m{number}"} for number in range(3)]
    queue.sqs.send_message_batch(QueueUrl=queue.url, Entries=entries)
    handles = [message["ReceiptHandle"] for message in queue.receive()]
    doomed = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles[:2])]
    queue.sqs.delete_message_batch(QueueUrl=queue.url, Entries=doomed)
    queue.send("later", DelaySeconds=900)
    purged = Queue(server, f"purged-{next(_numbers)}").create()
    purged.send("m")
    purged.sqs.purge_queue(QueueUrl=purged.url)
    restart(server)
    assert bodies(queue.receive()) == ["m2"]
    assert queue.attributes()["ApproximateNumberOfMessagesDelayed"] == "1"
    assert purged.count() == 0


def test_a_message_received_too_often_goes_to_the_dead_letter_queue_for_good(
    server: Aws, with_dead_letters: tuple[Queue, Queue]
) -> None:
    queue, dead = with_dead_letters
    queue.send("poison")
    assert bodies(queue.receive(VisibilityTimeout=0)) == ["poison"]
    restart(server)
    # The count survives too: a message that takes everything down with it must not start over.
    assert bodies(queue.receive(VisibilityTimeout=0)) == ["poison"]
    assert bodies(queue.receive()) == []
    assert (queue.count(), dead.count()) == (0, 1)
    restart(server)
    assert (queue.count(), bodies(dead.receive())) == (0, ["poison"])


def test_queues_come_back_with_their_attributes_and_may_be_created_again(server: Aws, with_dead_letters: Any) -> None:
    queue, dead = with_dead_letters
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "77"})
    queue.sqs.tag_queue(QueueUrl=queue.url, Tags={"a": "1"})
    gone = Queue(server, "gone").create()
    gone.sqs.delete_queue(QueueUrl=gone.url)
    restart(server)
    attributes = queue.attributes()
    assert (attributes["VisibilityTimeout"], json.loads(attributes["RedrivePolicy"])) == (
        "77",
        {"deadLetterTargetArn": dead.arn, "maxReceiveCount": 2},
    )
    assert queue.sqs.list_queue_tags(QueueUrl=queue.url)["Tags"] == {"a": "1"}
    queue.create(VisibilityTimeout="77")
    with pytest.raises(queue.sqs.exceptions.QueueNameExists):
        queue.create(VisibilityTimeout="78")
    with pytest.raises(gone.sqs.exceptions.QueueDoesNotExist):
        gone.attributes()


def test_a_message_made_visible_can_be_received_at_once(queue: Queue) -> None:
    queue.send("again")
    [message] = queue.receive(VisibilityTimeout=600)
    assert queue.receive() == []
    queue.sqs.change_message_visibility(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert bodies(queue.receive()) == ["again"]


def test_a_long_poll_holds_up_nobody_and_ends_with_the_message(queue: Queue) -> None:
    found: list[list[str]] = []

    def poll() -> None:
        found.append(bodies(queue.receive(WaitTimeSeconds=20)))

    pollers = [threading.Thread(target=poll) for _ in range(3)]
    for poller in pollers:
        poller.start()
    for number in range(3):
        queue.send(str(number))
        # Each poll takes all there is, so the next message is sent only when this one was taken.
        while len(found) <= number:
            threading.Event().wait(0.01)
    for poller in pollers:
        poller.join()
    assert sorted(found) == [["0"], ["1"], ["2"]]


def test_a_long_poll_ends_when_a_message_becomes_visible_again(queue: Queue) -> None:
    queue.send("later")
    assert bodies(queue.receive(VisibilityTimeout=1)) == ["later"]
    assert bodies(queue.receive(WaitTimeSeconds=20)) == ["later"]


def test_a_long_poll_of_an_empty_queue_ends_empty(queue: Queue) -> None:
    assert queue.receive(WaitTimeSeconds=1) == []


def test_a_long_queue_is_counted_and_received_whole_once(server: Aws, queue: Queue) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="many-events")
    rule = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket="many-events", NotificationConfiguration={"QueueConfigurations": [rule]}
    )
    for number in range(30):
        s3.put_object(Bucket="many-events", Key=str(number), Body=b"")
    assert queue.count() == 31
    restart(server)
    assert queue.count() == 31
    received = []
    while messages := queue.receive():
        received += [json.loads(body) for body in bodies(messages)]
    keys = [event["Records"][0]["s3"]["object"]["key"] for event in received if "Records" in event]
    assert sorted(keys, key=int) == [str(number) for number in range(30)]


def test_sigterm_ends_the_server_even_during_a_long_poll(tmp_path: Path) -> None:
    server = Aws(tmp_path / "aws")
    server.start()
    queue = Queue(server, "q").create()

    def poll() -> None:
        with suppress(BotoCoreError):
            queue.receive(WaitTimeSeconds=20)

    poller = threading.Thread(target=poll)
    poller.start()
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    poller.join()


def test_what_would_not_be_kept_is_refused(server: Aws) -> None:
    elsewhere = boto3.client(
        "sqs",
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
    )
    with pytest.raises(ClientError, match="one region, us-east-1"):
        elsewhere.create_queue(QueueName="q")
    with pytest.raises(ClientError, match="has no AmazonSSM"):
        server.client("ssm").get_parameter(Name="p")
    scope = f"Credential={server.credentials.access_key_id}/20260101/{aws.REGION}/sqs/aws4_request"
    old = httpx.post(
        server.url, data={"Action": "ListQueues"}, headers={"Authorization": f"AWS4-HMAC-SHA256 {scope}, x"}
    )
    assert (old.status_code, "update the AWS SDK" in old.text) == (400, True)


def test_queues_and_secrets_open_to_the_key_of_the_directory_only(server: Aws, queue: Queue) -> None:
    ours = server.credentials
    server.client("secretsmanager").create_secret(Name="guarded", SecretString="s")

    def refusal(service: str, credentials: aws.Credentials, operation: str, **parameters: str) -> tuple[int, str]:
        named = {"aws_access_key_id": credentials[0], "aws_secret_access_key": credentials[1]}
        client = boto3.client(service, endpoint_url=server.url, region_name=aws.REGION, **named)  # type: ignore[call-overload]
        with pytest.raises(ClientError) as error:
            getattr(client, operation)(**parameters)
        return error.value.response["ResponseMetadata"]["HTTPStatusCode"], error.value.response["Error"]["Code"]

    stranger, guess = aws.Credentials("LOCALRAG", "x"), aws.Credentials(ours.access_key_id, "guess")
    assert refusal("secretsmanager", stranger, "get_secret_value", SecretId="guarded") == (403, "InvalidClientTokenId")
    assert refusal("sqs", stranger, "receive_message", QueueUrl=queue.url) == (403, "InvalidClientTokenId")
    assert refusal("secretsmanager", guess, "get_secret_value", SecretId="guarded")[1] == "InvalidSignatureException"
    assert refusal("sqs", guess, "receive_message", QueueUrl=queue.url)[1] == "InvalidSignatureException"
    unsigned = {"X-Amz-Target": "secretsmanager.ListSecrets", "Authorization": f"Credential=x/1/{aws.REGION}/y/z"}
    assert httpx.post(server.url, content="{}", headers=unsigned).status_code == 403


def test_the_key_of_a_directory_is_its_own_and_for_its_owner_only(server: Aws, tmp_path: Path) -> None:
    assert aws.kept_credentials(server.directory) == server.credentials
    assert aws.kept_credentials(tmp_path) != server.credentials
    assert (server.directory / "credentials").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["evil.example:{port}", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "evil", "["])
def test_a_request_under_another_name_is_refused(server: Aws, host: str) -> None:
    reply = httpx.get(f"{server.url}/health", headers={"Host": host.format(port=server.port)})
    assert reply.status_code == 403


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}"])
def test_a_request_under_a_loopback_name_is_answered(server: Aws, host: str) -> None:
    reply = httpx.get(f"{server.url}/health", headers={"Host": host.format(port=server.port)})
    assert reply.status_code == 200


def test_secrets_survive_a_kill_with_their_versions_and_arn(server: Aws) -> None:
    secrets = server.client("secretsmanager")
    arn = secrets.create_secret(Name="rag/password", SecretString="one", Tags=[{"Key": "a", "Value": "1"}])["ARN"]
    secrets.put_secret_value(SecretId="rag/password", SecretString="two")
    secrets.create_secret(Name="binary", SecretBinary=b"\x00\xff")
    secrets.create_secret(Name="gone", SecretString="x")
    secrets.delete_secret(SecretId="gone", ForceDeleteWithoutRecovery=True)
    described = {**secrets.describe_secret(SecretId=arn), "ResponseMetadata": None}
    restart(server)
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "two"
    assert secrets.get_secret_value(SecretId="rag/password", VersionStage="AWSPREVIOUS")["SecretString"] == "one"
    assert secrets.get_secret_value(SecretId="binary")["SecretBinary"] == b"\x00\xff"
    assert {**secrets.describe_secret(SecretId=arn), "ResponseMetadata": None} == described
    with pytest.raises(secrets.exceptions.ResourceNotFoundException):
        secrets.get_secret_value(SecretId="gone")


def test_a_message_past_its_retention_starts_anew(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        with journal.commit():
            journal.save_queue("old", {"MessageRetentionPeriod": "60"}, {})
            journal.save_message(Message("one", "old", {"MessageBody": "m"}, sent_ms=1))
        queues = Queues(inside_moto.application("sqs"), journal)
        queues.replay()
        environ = {"HTTP_X_AMZ_TARGET": "AmazonSQS.ReceiveMessage", "CONTENT_TYPE": "application/x-amz-json-1.0"}
        from local.aws.exchange import request

        body = json.dumps({"QueueUrl": "old"}).encode()
        reply = queues.answer({**request("sqs", "POST", "/", body=body), **environ}, body)
        assert [message["MessageId"] for message in json.loads(reply.body)["Messages"]] == ["one"]


def test_a_journal_of_another_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "aws.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(JournalVersionError, match="delete"):
        Journal(tmp_path)
