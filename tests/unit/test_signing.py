"""What we sign is, byte for byte, what AWS's own SDK signs."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
import botocore.auth
import botocore.credentials
import pytest
from botocore.awsrequest import AWSRequest
from hypothesis import example, given
from hypothesis import strategies as st

from rag.signing import Credentials, connect_token, signed

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
CREDENTIALS = st.builds(
    Credentials,
    st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=20),
    st.text(string.ascii_letters + string.digits + "/+", min_size=40, max_size=40),
    st.just("") | st.text(string.ascii_letters + string.digits + "/+=", min_size=1, max_size=400),
)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (bounds are naive)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
HOSTS = st.builds("{}.{}.eu-west-1.rds.amazonaws.com".format, LABELS, LABELS)
REGIONS = st.sampled_from(["us-east-1", "eu-central-1", "ap-southeast-2", "us-gov-west-1"])
USERS = st.text(min_size=1, max_size=63).filter(lambda user: user.isprintable())
ROLE = Credentials("ASIAEXAMPLEEXAMPLE12", "s" * 40, "a/session+token==")
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@cache
def rds() -> Any:
    """Made once: it takes 0.2 s."""
    return boto3.session.Session("id", "secret", region_name="us-east-1").client("rds")


def as_the_sdk_has(credentials: Credentials) -> botocore.credentials.Credentials:
    token = credentials.session_token or None
    return botocore.credentials.Credentials(credentials.access_key_id, credentials.secret_access_key, token)


@given(host=HOSTS, port=st.integers(1, 65535), user=USERS, region=REGIONS, credentials=CREDENTIALS, at=TIMES)
@example(host="db.example", port=443, user="rag_query", region="us-east-1", credentials=ROLE, at=NOON)
def test_a_connect_token_is_the_one_of_the_sdk(
    host: str, port: int, user: str, region: str, credentials: Credentials, at: datetime
) -> None:
    client = rds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: at)
        patch.setattr(client._request_signer, "_credentials", as_the_sdk_has(credentials))
        wanted = client.generate_db_auth_token(host, port, user, region)
    assert connect_token(host, port, user, region=region, credentials=credentials, at=at) == wanted


@given(target=PRINTABLE, body=st.binary(max_size=100), region=REGIONS, credentials=CREDENTIALS, at=TIMES)
def test_the_headers_of_a_signed_request_are_those_of_the_sdk(
    target: str, body: bytes, region: str, credentials: Credentials, at: datetime
) -> None:
    headers = {"host": f"secretsmanager.{region}.amazonaws.com", "x-amz-target": target}
    request = AWSRequest("POST", f"https://{headers['host']}/", {"x-amz-target": target}, body)
    request.context["payload_signing_enabled"] = True
    known = as_the_sdk_has(credentials)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: at)
        botocore.auth.SigV4Auth(known, "secretsmanager", region).add_auth(request)
    sent = signed(headers, body, service="secretsmanager", region=region, credentials=credentials, at=at)
    assert sent == {"host": headers["host"], **{name.lower(): value for name, value in request.headers.items()}}
