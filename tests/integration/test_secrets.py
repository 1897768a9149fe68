"""Secrets as functions read them: from Secrets Manager's protocol, with the credentials that Lambda gives."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rag import identity
from rag import secrets as secrets_module
from rag.errors import UnavailableError
from rag.secrets import Secrets
from rag.signing import Credentials
from tests import doors
from tests.certificates import Authority

ROLE = {"AccessKeyId": "ASIA1", "SecretAccessKey": "secret", "Token": "session", "Expiration": "2026-11-21T18:00:00Z"}


@pytest.fixture
def reader(aws: Any, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return Secrets.from_environment()


@pytest.fixture
def endpoint() -> Iterator[dict[str, Any]]:
    """Where SnapStart has credentials; `answer` is what it says."""
    said: dict[str, Any] = {"answer": json.dumps(ROLE).encode()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = (self.path, self.headers["Authorization"]) == ("/2021-04-23/credentials?v=1", "let me")
            self.send_response(200 if known else 403)
            self.end_headers()
            self.wfile.write(said["answer"] if known else b"{}")

        def log_message(self, *_: object) -> None:
            """Tests speak for themselves."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/2021-04-23/credentials?v=1"
    said["environment"] = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "let me"}
    yield said
    server.shutdown()
    server.server_close()


def kept(aws: Any, value: str) -> str:
    name = f"rag/test/{secrets.token_hex(4)}"
    return str(aws.client("secretsmanager").create_secret(Name=name, SecretString=value)["ARN"])


def test_a_secret_is_read_by_its_arn_and_never_an_old_one(aws: Any, reader: Secrets) -> None:
    arn = kept(aws, "first")
    assert reader.get(arn) == "first"
    aws.client("secretsmanager").put_secret_value(SecretId=arn, SecretString="second")
    assert reader.get(arn) == "second"


@pytest.mark.parametrize(
    ("held", "password"),
    [
        ("plain", "plain"),
        ('{"username": "rag_owner", "password": "pässword"}', "pässword"),
        ("12345", "12345"),
        ('"quoted"', '"quoted"'),
        ("{not json", "{not json"),
    ],
)
def test_a_password_is_the_whole_secret_or_the_password_of_its_object(
    aws: Any, reader: Secrets, held: str, password: str
) -> None:
    assert reader.password(kept(aws, held)) == password


@pytest.mark.parametrize("held", ['{"username": "rag_owner"}', '{"password": 5}'])
def test_an_object_without_a_password_is_refused_without_showing_it(aws: Any, reader: Secrets, held: str) -> None:
    arn = kept(aws, held)
    with pytest.raises(UnavailableError) as refused:
        reader.password(arn)
    assert str(refused.value) == f"the secret {arn} is a JSON object without a password"


@pytest.mark.usefixtures("reader")
def test_whoever_signs_with_another_key_reads_nothing(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = kept(aws, "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(UnavailableError, match="cannot be read"):
        Secrets.from_environment().get(arn)


def test_only_the_host_that_was_asked_for_may_answer(
    aws: Any, reader: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = kept(aws, "hidden")
    authority, foreign = Authority(tmp_path, "authority"), Authority(tmp_path, "foreign")
    with doors.tls(aws.port, authority.server("localhost")) as port:

        def read(host: str, trusted: Authority) -> str:
            # The system's bundle, where OpenSSL looks for it.
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted.pem))
            secrets_module._everybodys_authorities.cache_clear()
            return Secrets(f"https://{host}:{port}", reader.region).get(arn)

        # It answers, and only wants what it is sent to be signed for its own address.
        with pytest.raises(UnavailableError, match="status 403"):
            read("localhost", authority)
        for host, trusted in (("127.0.0.1", authority), ("localhost", foreign)):
            with pytest.raises(UnavailableError, match="does not answer"):
                read(host, trusted)
    secrets_module._everybodys_authorities.cache_clear()


def test_a_secret_that_is_not_there_is_named(reader: Secrets) -> None:
    with pytest.raises(UnavailableError, match="the secret rag/none cannot be read"):
        reader.get("rag/none")


@pytest.mark.usefixtures("reader")
def test_nobody_there_is_an_unavailable_secret() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        Secrets("http://127.0.0.1:1", "us-east-1").get("rag/any")


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "secretsmanager.eu-west-1.amazonaws.com"),
        ("cn-north-1", "secretsmanager.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_on_aws_it_is_the_regions_endpoint(monkeypatch: pytest.MonkeyPatch, region: str, host: str) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_REGION", region)
    assert Secrets.from_environment().endpoint == f"https://{host}"


def test_credentials_come_from_the_environment() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    assert identity.credentials(environment) == Credentials("a", "b", "c")


def test_under_snapstart_credentials_come_from_the_endpoint_each_time(endpoint: dict[str, Any]) -> None:
    assert identity.credentials(endpoint["environment"]) == Credentials("ASIA1", "secret", "session")
    endpoint["answer"] = json.dumps(ROLE | {"AccessKeyId": "ASIA2"}).encode()
    assert identity.credentials(endpoint["environment"]).access_key_id == "ASIA2"


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"AccessKeyId": "A"}', b"not json"])
def test_an_endpoint_that_gives_no_credentials_is_unavailable(endpoint: dict[str, Any], answer: bytes) -> None:
    endpoint["answer"] = answer
    with pytest.raises(UnavailableError, match="credentials cannot be had"):
        identity.credentials(endpoint["environment"])


@pytest.mark.parametrize(
    "environment", [{}, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/"}], ids=["none", "nobody there"]
)
def test_without_credentials_it_is_unavailable(environment: dict[str, str]) -> None:
    with pytest.raises(UnavailableError, match="credentials cannot be had"):
        identity.credentials(environment)
