"""Upload forms as boto3 signs them, and what of them S3 would refuse."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local import aws
from local.aws import post_policy
from local.aws.errors import S3Error
from local.aws.signature import scope, signature

BUCKET = "documents"
KEY = aws.Credentials("LOCALRAG", "the secret")


@pytest.fixture(scope="module")
def s3() -> Any:
    return boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:1",
        region_name=aws.REGION,
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=Config(signature_version="s3v4"),
    )


def form(s3: Any, conditions: list[Any], fields: dict[str, str] | None = None, key: str = "a/b.txt") -> dict[str, str]:
    signed = s3.generate_presigned_post(BUCKET, key, Fields=fields, Conditions=conditions, ExpiresIn=60)
    return {name.lower(): value for name, value in signed["fields"].items()}


def own_form(policy: Any, **fields: str) -> dict[str, str]:
    """A form with any policy, correctly signed."""
    day = datetime.now(UTC).strftime("%Y%m%d")
    of = scope(f"{KEY.access_key_id}/{day}/{aws.REGION}/s3/aws4_request", KEY)
    text = base64.b64encode(json.dumps(policy).encode()).decode()
    return {
        "key": "k",
        "policy": text,
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{of.access_key_id}/{of.text}",
        "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
        "x-amz-signature": signature(text, of, KEY),
        **fields,
    }


def refusal(fields: dict[str, str], *, now: datetime | None = None, bucket: str = BUCKET) -> S3Error:
    with pytest.raises(S3Error) as error:
        post_policy.check(fields, bucket=bucket, now=now or datetime.now(UTC), credentials=KEY)
    return error.value


def test_a_form_as_boto3_signs_it_is_accepted_with_its_size_limits(s3: Any) -> None:
    limits = post_policy.check(
        form(s3, [["content-length-range", 1, 1000]]), bucket=BUCKET, now=datetime.now(UTC), credentials=KEY
    )
    assert (limits.smallest, limits.largest) == (1, 1000)


def test_a_file_outside_the_range_is_refused_with_both_sizes(s3: Any) -> None:
    limits = post_policy.check(
        form(s3, [["content-length-range", 2, 4]]), bucket=BUCKET, now=datetime.now(UTC), credentials=KEY
    )
    limits.refuse_above(4)
    limits.refuse_below(2)
    with pytest.raises(S3Error) as large:
        limits.refuse_above(5)
    with pytest.raises(S3Error) as small:
        limits.refuse_below(1)
    assert (large.value.status, large.value.code, large.value.details["MaxSizeAllowed"]) == (400, "EntityTooLarge", "4")
    assert (small.value.status, small.value.code, small.value.details["MinSizeAllowed"]) == (400, "EntityTooSmall", "2")


def test_a_policy_expires(s3: Any) -> None:
    fields = form(s3, [])
    assert "Policy expired" in str(refusal(fields, now=datetime.now(UTC) + timedelta(seconds=62)))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": "a/other.txt"}, "AccessDenied"),
        ({"x-amz-meta-owner": "me"}, "AccessDenied"),
        ({"x-amz-signature": "0" * 64}, "SignatureDoesNotMatch"),
        ({"policy": base64.b64encode(b"{}").decode()}, "SignatureDoesNotMatch"),
        ({"x-amz-credential": "SOMEBODY/20261120/us-east-1/s3/aws4_request"}, "InvalidAccessKeyId"),
        ({"x-amz-date": "20200101T000000Z"}, "InvalidArgument"),
        ({"x-amz-signature": ""}, "InvalidArgument"),
    ],
)
def test_a_changed_form_is_refused(s3: Any, change: dict[str, str], code: str) -> None:
    assert refusal({**form(s3, []), **change}).code == code


def test_a_form_without_a_policy_is_nobodys() -> None:
    assert refusal({"key": "a"}).code == "AccessDenied"


def test_a_form_for_one_bucket_does_not_open_another(s3: Any) -> None:
    assert "Policy Condition failed" in str(refusal(form(s3, []), bucket="others"))


def test_fields_that_begin_with_x_ignore_need_no_condition(s3: Any) -> None:
    post_policy.check({**form(s3, []), "x-ignore-me": "1"}, bucket=BUCKET, now=datetime.now(UTC), credentials=KEY)


def test_a_condition_on_a_field_that_is_absent_fails(s3: Any) -> None:
    assert "x-amz-meta-owner" in str(refusal(form(s3, [{"x-amz-meta-owner": "me"}])))


@pytest.mark.parametrize(
    ("condition", "value", "accepted"),
    [
        (["starts-with", "$Content-Type", "text/"], "text/plain", True),
        (["starts-with", "$content-type", "text/"], "text/plain,text/html", True),
        (["starts-with", "$Content-Type", "text/"], "text/plain,image/png", False),
        (["starts-with", "$Content-Type", ""], "anything", True),
        (["eq", "$Content-Type", "text/plain"], "text/plain", True),
        (["eq", "$Content-Type", "text/plain"], "text/plain2", False),
        ({"content-type": "text/plain"}, "text/plain", True),
    ],
)
def test_conditions_compare_as_they_say(s3: Any, condition: Any, value: str, *, accepted: bool) -> None:
    fields = {**form(s3, [condition]), "content-type": value}
    if accepted:
        post_policy.check(fields, bucket=BUCKET, now=datetime.now(UTC), credentials=KEY)
    else:
        assert refusal(fields).code == "AccessDenied"


@pytest.mark.parametrize(
    "policy",
    [
        [],
        {"conditions": []},
        {"expiration": "2099-01-01T00:00:00Z"},
        {"expiration": "tomorrow", "conditions": []},
        {"expiration": "2099-01-01T00:00:00", "conditions": []},
        {"expiration": "2099-01-01T00:00:00Z", "conditions": [["content-length-range", 0]]},
        {"expiration": "2099-01-01T00:00:00Z", "conditions": [["content-length-range", -1, 3]]},
        {"expiration": "2099-01-01T00:00:00Z", "conditions": [["content-length-range", "a", 3]]},
        {"expiration": "2099-01-01T00:00:00Z", "conditions": [["like", "$key", "a"]]},
        {"expiration": "2099-01-01T00:00:00Z", "conditions": [["eq", "key", "a"]]},
    ],
)
def test_a_signed_policy_that_makes_no_sense_is_invalid(policy: Any) -> None:
    error = refusal(own_form(policy))
    assert (error.status, error.code) == (400, "InvalidPolicyDocument")


def test_a_policy_must_name_its_bucket() -> None:
    day_scope = own_form({})
    names = ("x-amz-algorithm", "x-amz-credential", "x-amz-date")
    conditions: list[Any] = [["starts-with", "$key", ""], *({name: day_scope[name]} for name in names)]
    error = refusal(own_form({"expiration": "2099-01-01T00:00:00Z", "conditions": conditions}))
    assert str(error) == "Invalid according to Policy: Extra input fields: bucket"
