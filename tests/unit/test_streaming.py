"""What the streaming function writes before a body, and what it reads of an invocation."""

from __future__ import annotations

import email.message
import http.client
import time

from functions.query.runtime import Context


def test_a_prelude_has_the_status_and_the_headers_but_for_those_of_the_framing() -> None:
    from functions.query.streaming import prelude

    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"5"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    assert prelude(201, headers) == {
        "statusCode": 201,
        "headers": {"content-type": "application/json"},
        "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]},
    }


def told(**headers: str) -> http.client.HTTPMessage:
    message: email.message.Message = http.client.HTTPMessage()
    for name, value in headers.items():
        message[f"Lambda-Runtime-{name.replace('_', '-')}"] = value
    assert isinstance(message, http.client.HTTPMessage)
    return message


def test_the_time_that_is_left_is_that_of_the_deadline_and_never_negative() -> None:
    soon = str(int(time.time() * 1000) + 5_000)
    context = Context.of(told(Aws_Request_Id="1", Deadline_Ms=soon), {"AWS_LAMBDA_FUNCTION_NAME": "answer"})
    assert 4_000 < context.get_remaining_time_in_millis() <= 5_000
    assert (context.aws_request_id, context.function_name) == ("1", "answer")
    assert Context.of(told(Aws_Request_Id="1", Deadline_Ms="1000"), {}).get_remaining_time_in_millis() == 0
