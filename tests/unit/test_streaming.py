"""What the streaming function writes before a body, and what it reads of an invocation."""

from __future__ import annotations

import base64
import email.message
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from functions.query import runtime
from functions.query.runtime import ClientGoneError, Context, StreamedResponse


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
    soon = str(int(time.time() * 1000) + 500_000)
    context = Context.of(told(Aws_Request_Id="1", Deadline_Ms=soon), {"AWS_LAMBDA_FUNCTION_NAME": "answer"})
    assert 400_000 < context.get_remaining_time_in_millis() <= 500_000
    assert (context.aws_request_id, context.function_name) == ("1", "answer")
    assert Context.of(told(Aws_Request_Id="1", Deadline_Ms="1000"), {}).get_remaining_time_in_millis() == 0


def sent(respond: Callable[[StreamedResponse], None], answer: bytes = b"HTTP/1.1 202 \r\n\r\n") -> str:
    """What a response looks like on the wire."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        got: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while not b"".join(got).endswith((b"0\r\n\r\n", b"=\r\n\r\n")) and (data := connection.recv(9999)):
                    got.append(data)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            respond(StreamedResponse(f"127.0.0.1:{server.getsockname()[1]}", "id-1", "again"))
        finally:
            thread.join()
    return b"".join(got).decode()


def test_a_response_is_on_the_wire_as_the_runtime_api_documents_it() -> None:
    def respond(response: StreamedResponse) -> None:
        response.begin({"statusCode": 200})
        response.write(b"one")
        response.write(b"")
        response.end()

    head, _, body = sent(respond).partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    assert line == "POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1"
    assert set(headers[1:]) == {
        "Content-Type: application/vnd.awslambda.http-integration-response",
        "Lambda-Runtime-Function-Response-Mode: streaming",
        "Transfer-Encoding: chunked",
        "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
        "Lambda-Runtime-Invocation-Id: again",
    }
    assert body == '1b\r\n{"statusCode": 200}' + 8 * "\0" + "\r\n3\r\none\r\n0\r\n\r\n"


def test_an_error_midway_ends_the_body_with_trailers() -> None:
    def respond(response: StreamedResponse) -> None:
        response.begin({})
        response.fail(ValueError("why"))

    *_, type_line, body_line, _, _ = sent(respond).split("\r\n")
    assert type_line == "Lambda-Runtime-Function-Error-Type: ValueError"
    name, _, value = body_line.partition(": ")
    assert name == "Lambda-Runtime-Function-Error-Body"
    assert json.loads(base64.b64decode(value)) == {"errorType": "ValueError", "errorMessage": "why"}


@pytest.mark.parametrize("answer", [b"HTTP/1.1 410 \r\n\r\n", b""], ids=["refused", "hung up"])
def test_a_response_that_nobody_takes_is_a_client_who_left(answer: bytes) -> None:
    def respond(response: StreamedResponse) -> None:
        response.begin({})
        response.end()

    with pytest.raises(ClientGoneError):
        sent(respond, answer)


def test_the_log_says_which_error_it_was_and_where_and_not_what_stands_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise ValueError("insert into chunks values ('persimmon')")

    with pytest.raises(ValueError, match="persimmon") as caught:
        fail()
    runtime._log_of_event(caught.value, "id-1")
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["function_request_id"]) == ("ERROR", "id-1")
    assert "ValueError" in line["exception"]
    assert " fail" in line["exception"]
    assert "persimmon" not in line["exception"]
