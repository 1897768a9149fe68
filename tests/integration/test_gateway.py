"""The gateway over HTTP, in front of real sandboxes with small handlers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from local import code
from local.asgi import Server, listen
from local.authorizer import Authorizer
from local.gateway import Gateway
from local.invoke_api import InvokeApi
from local.lambda_runtime import Function, Invocation
from local.plan import of_the_table
from local.runtime_api import RuntimeApi
from local.sandbox import Launch
from rag.answer_headers import ON_EVERY_ANSWER

pytestmark = pytest.mark.slow

_TOKEN = "3f2a-admin-token"
ROUTES = [route for route in of_the_table().routes if not route.streams]

_QUERY = """
import time

def handler(event, context):
    path = event["path"]
    if path.startswith("/app"):
        return app(event, context)
    if path.startswith("/answers"):
        return __import__("json").loads(event["body"])
    if path == "/crashes":
        raise RuntimeError("secret detail")
    if path == "/exits":
        __import__("os")._exit(1)
    if path == "/sleeps":
        time.sleep(600)
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": __import__("json").dumps(event)}

def app(event, context):
    import asyncio
    from mangum import Mangum
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def show(request):
        return JSONResponse({
            "name": request.path_params["name"],
            "tags": request.query_params.getlist("tag"),
            "accept": request.headers.getlist("accept"),
            "client": request.client.host,
            "url": str(request.url),
            "body": (await request.body()).decode("latin-1"),
        })

    asyncio.set_event_loop(asyncio.new_event_loop())
    routes = [Route("/app/{name:path}", show, methods=["GET", "POST"])]
    return Mangum(Starlette(routes=routes), lifespan="off")(event, context)
"""

_AUTHORIZE = """
import os, pathlib

def handler(event, context):
    asked = pathlib.Path(os.environ["MARKS"]) / "asked"
    with asked.open("a") as file:
        file.write(event["methodArn"] + "\\n")
    headers = {name.lower(): value for name, value in event["headers"].items()}
    credential = headers.get("x-api-key") or headers["authorization"].removeprefix("Bearer ")
    if credential.startswith("unknown"):
        raise Exception("Unauthorized")
    if credential.startswith("crashing"):
        raise RuntimeError("the database is down")
    if credential.startswith("nonsense"):
        return {"principalId": "x"}
    effect = "Deny" if credential.startswith("denied") else "Allow"
    resource = event["methodArn"] if credential.startswith("narrow") else "arn:aws:execute-api:*"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    return {
        "principalId": credential,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {"tenant_id": "t-1", "limit": 7, "admin": True},
    }
"""


@dataclass
class Running:
    """The API, the administrators' API, and what the authorizer was asked."""

    url: str
    admin_url: str
    marks: Path

    def get(self, path: str, *, key: str | None = "good", **options: Any) -> httpx.Response:
        return self.request("GET", path, key=key, **options)

    def request(self, method: str, path: str, *, key: str | None = "good", **options: Any) -> httpx.Response:
        headers = ({"x-api-key": key} if key else {}) | options.pop("headers", {})
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.request(method, self.url + path, headers=headers, **options)

    def asked(self) -> list[str]:
        file = self.marks / "asked"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "querying.py").write_text(_QUERY)
    (folder / "authorizing.py").write_text(_AUTHORIZE)
    with _Loop() as loop:
        context = _served(folder)
        yield loop.run(context.__aenter__())
        loop.run(context.__aexit__(None, None, None))


class _Loop:
    """An event loop in a thread, which outlives everything that is started from it."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)


@asynccontextmanager
async def _served(folder: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        api = RuntimeApi(ports=4)
        await api.open()
        stack.push_async_callback(api.close)
        query, authorize = _function(folder, "querying", api, 6.0), _function(folder, "authorizing", api, 30.0)
        stack.push_async_callback(query.close)
        stack.push_async_callback(authorize.close)
        authorizer = Authorizer(authorize, cache_seconds=60)
        gateway = Gateway({"query": query}, ROUTES, authorizer, max_body_bytes=1_000_000)
        front = await _server(stack, gateway)
        admin = await _server(stack, InvokeApi({"query": query}, token=_TOKEN))
        yield Running(front, admin, folder)


async def _server(stack: AsyncExitStack, app: Any) -> str:
    door = listen()
    server = Server(app, grace_seconds=1)
    await server.open([door])
    stack.push_async_callback(server.close)
    return f"http://127.0.0.1:{door.getsockname()[1]}"


def _function(folder: Path, module: str, api: RuntimeApi, timeout_seconds: float) -> Function:
    variables = {**code.of_repository().environment, "MARKS": str(folder)}
    launch = Launch(module, f"{module}.handler", variables, folder, folder / "tmp", folder / "log")
    arn = f"arn:aws:lambda:us-east-1:1:function:{module}"
    return Function(launch, api, function_arn=arn, timeout_seconds=timeout_seconds, memory_mib=128, concurrency=2)


def _is_problem(response: httpx.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"] == response.headers["x-amzn-requestid"]
    assert ON_EVERY_ANSWER.items() <= dict(response.headers).items()
    assert "server" not in response.headers


# What the function is told


def test_the_event_is_a_rest_proxy_event(running: Running) -> None:
    event = running.get("/v1/things/a%20b?tag=x&tag=y%26z&empty=", headers={"X-One": "1"}).json()
    assert (event["resource"], event["httpMethod"], event["path"]) == ("/{proxy+}", "GET", "/v1/things/a%20b")
    assert event["queryStringParameters"] == {"tag": "y&z", "empty": ""}
    assert event["multiValueQueryStringParameters"] == {"tag": ["x", "y&z"], "empty": [""]}
    assert event["pathParameters"] == {"proxy": "v1/things/a%20b"}
    assert event["headers"]["x-one"] == "1"
    assert event["multiValueHeaders"]["x-one"] == ["1"]
    assert (event["body"], event["isBase64Encoded"]) == (None, False)


def test_the_request_context_names_the_request_and_its_source(running: Running) -> None:
    response = running.get("/v1/things")
    context = response.json()["requestContext"]
    assert context["requestId"] == response.headers["x-amzn-requestid"]
    assert context["identity"]["sourceIp"] == "127.0.0.1"
    assert context["stage"] == "local"
    assert context["requestTimeEpoch"] > 1_700_000_000_000


def test_the_authorizer_s_context_arrives_as_strings(running: Running) -> None:
    caller = running.get("/v1/things").json()["requestContext"]["authorizer"]
    assert caller == {"principalId": "good", "tenant_id": "t-1", "limit": "7", "admin": "true"}


def test_forwarding_headers_are_the_gateway_s_own(running: Running) -> None:
    sent = {"x-forwarded-proto": "https", "x-forwarded-port": "443", "x-forwarded-for": "10.0.0.1"}
    headers = running.get("/v1/things", headers=sent).json()["headers"]
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-port"] == running.url.rpartition(":")[2]
    assert headers["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"


def test_a_body_that_is_not_text_goes_as_base64(running: Running) -> None:
    event = running.request("POST", "/v1/things", content=b"\xff\x00").json()
    assert (event["body"], event["isBase64Encoded"]) == ("/wA=", True)


def test_mangum_sees_the_request_as_it_was_sent(running: Running) -> None:
    seen = running.request("POST", "/app/ä%2Fb?tag=1&tag=%C3%A9", content=b"body").json()
    assert seen["name"] == "ä/b"
    assert seen["tags"] == ["1", "é"]
    assert seen["client"] == "127.0.0.1"
    assert seen["body"] == "body"
    assert seen["url"].startswith(running.url)


# What the caller is told


def _answered(running: Running, answer: Any, method: str = "POST") -> httpx.Response:
    return running.request(method, "/answers", content=json.dumps(answer))


def test_status_headers_and_body_are_passed_on(running: Running) -> None:
    answer = {
        "statusCode": 418,
        "headers": {"content-type": "text/plain", "x-number": 5},
        "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]},
        "body": "déjà",
    }
    response = _answered(running, answer)
    assert (response.status_code, response.content) == (418, "déjà".encode())
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert response.headers["x-number"] == "5"


def test_a_base64_body_is_decoded(running: Running) -> None:
    response = _answered(running, {"statusCode": 200, "body": "/wA=", "isBase64Encoded": True})
    assert response.content == b"\xff\x00"


def test_an_answer_without_content_has_none(running: Running) -> None:
    response = _answered(running, {"statusCode": 204, "body": "ignored"})
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": 200, "body": {"not": "a string"}},
        {"statusCode": 200, "headers": ["not", "an", "object"]},
        {"statusCode": 200, "headers": {"bad name": "x"}},
        {"statusCode": 200, "headers": {"x": "split\r\nset-cookie: a=1"}},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
    ],
    ids=str,
)
def test_a_malformed_answer_is_502(running: Running, answer: Any) -> None:
    _is_problem(_answered(running, answer), 502)


@pytest.mark.parametrize("path", ["/crashes", "/exits"])
def test_a_failing_function_is_502_and_tells_nothing_of_the_inside(running: Running, path: str) -> None:
    response = running.get(path)
    _is_problem(response, 502)
    assert "secret detail" not in response.text


def test_a_function_that_runs_out_of_time_is_504(running: Running) -> None:
    _is_problem(running.get("/sleeps"), 504)


# Who may call


@pytest.mark.parametrize("path", ["/health", "/ready", "/openapi.json", "/docs"])
def test_public_routes_ask_nobody(running: Running, path: str) -> None:
    before = running.asked()
    response = running.get(path, key=None)
    assert response.json()["resource"] == path
    assert "authorizer" not in response.json()["requestContext"]
    assert running.asked() == before


@pytest.mark.parametrize(
    "path", ["/health/", "//health", "/docs/x", "/HEALTH", "/v1/query", "/", "/health/../v1/query"]
)
def test_every_other_route_needs_a_credential(running: Running, path: str) -> None:
    before = running.asked()
    response = running.get(path, key=None)
    _is_problem(response, 401)
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert running.asked() == before


def test_a_bearer_token_is_a_credential_too(running: Running) -> None:
    response = running.get("/v1/things", key=None, headers={"Authorization": "Bearer good"})
    assert response.json()["requestContext"]["authorizer"]["principalId"] == "good"


def test_an_unknown_key_is_401_and_is_asked_for_each_time(running: Running) -> None:
    before = len(running.asked())
    for _ in range(2):
        response = running.get("/v1/things", key="unknown-1")
        _is_problem(response, 401)
        assert "www-authenticate" in response.headers
    assert len(running.asked()) == before + 2


def test_a_denying_policy_is_403_and_is_kept(running: Running) -> None:
    before = len(running.asked())
    for _ in range(2):
        _is_problem(running.get("/v1/things", key="denied-1"), 403)
    assert len(running.asked()) == before + 1


def test_a_policy_is_kept_per_credential(running: Running) -> None:
    before = len(running.asked())
    for key in ("kept-1", "kept-1", "kept-2", "kept-1"):
        assert running.get("/v1/things", key=key).json()["requestContext"]["authorizer"]["principalId"] == key
    assert len(running.asked()) == before + 2


def test_a_kept_policy_is_applied_to_each_route(running: Running) -> None:
    assert running.get("/v1/allowed", key="narrow-1").status_code == 200
    _is_problem(running.get("/v1/other", key="narrow-1"), 403)
    _is_problem(running.request("DELETE", "/v1/allowed", key="narrow-1"), 403)


@pytest.mark.parametrize("key", ["crashing-1", "nonsense-1"])
def test_an_authorizer_that_fails_is_503_and_lets_nobody_in(running: Running, key: str) -> None:
    response = running.get("/v1/things", key=key)
    _is_problem(response, 503)
    assert "database" not in response.text


def test_a_preflight_needs_no_credential_and_opens_no_route(running: Running) -> None:
    before = running.asked()
    asking = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
    response = running.request("OPTIONS", "/v1/things", key=None, headers=asking)
    assert "authorizer" not in response.json()["requestContext"]
    assert running.asked() == before
    for headers, method in ((asking, "GET"), ({"origin": asking["origin"]}, "OPTIONS")):
        _is_problem(running.request(method, "/v1/things", key=None, headers=headers), 401)


# What is too much


def test_a_body_that_is_too_large_is_413(running: Running) -> None:
    _is_problem(running.request("POST", "/v1/things", content=b"x" * 1_000_001), 413)


def test_a_body_of_unannounced_length_that_is_too_large_is_413(running: Running) -> None:
    _is_problem(running.request("POST", "/v1/things", content=iter([b"x" * 600_000] * 2)), 413)


@pytest.mark.parametrize("path", ["/%", "/%zz", "/%ff", "/a%00b", "/v1/%E2%82"])
def test_a_path_that_is_no_text_is_400(running: Running, path: str) -> None:
    _is_problem(_raw(running, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nx-api-key: good"), 400)


@pytest.mark.parametrize("host", ["[::1]:80", "a:b", "a b", "x" * 10 + ":123456"])
def test_a_host_that_is_no_name_is_400(running: Running, host: str) -> None:
    _is_problem(_raw(running, f"GET /v1/things HTTP/1.1\r\nHost: {host}\r\nx-api-key: good"), 400)


def test_garbage_instead_of_http_stops_nothing(running: Running) -> None:
    address = running.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=60) as connection:
        connection.sendall(b"\xff\xfe\x00garbage\r\n\r\n")
        assert b"400" in connection.recv(1000)
    assert running.get("/health", key=None).status_code == 200


def test_a_body_that_is_cut_off_invokes_nothing() -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            functions = _Recorder()
            authorizer = Authorizer(functions, cache_seconds=60)
            urls = [
                await _server(stack, Gateway({"query": functions}, ROUTES, authorizer)) + "/health",
                await _server(stack, InvokeApi({"f": functions}, token=_TOKEN)) + "/2015-03-31/functions/f/invocations",
            ]
            for url in urls:
                await _send_part(url, b"{}")
                async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                    await client.post(url, content='{"whole": 1}', headers={"Authorization": f"Bearer {_TOKEN}"})
            assert len(functions.payloads) == len(urls)
            assert all(b"whole" in payload for payload in functions.payloads)

    asyncio.run(story())


class _Recorder:
    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    async def invoke(self, payload: bytes, *, trace_id: str | None = None) -> Invocation:
        self.payloads.append(payload)
        return Invocation(str(trace_id), b'{"statusCode": 200, "body": ""}', None, 1.0)


async def _send_part(url: str, body: bytes) -> None:
    """Announce more than is sent, then hang up."""
    address = httpx.URL(url)
    head = f"POST {address.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {_TOKEN}\r\nContent-Length: 100\r\n\r\n"
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(head.encode() + body)
    writer.write_eof()
    await reader.read()
    writer.close()


def _raw(running: Running, head: str) -> httpx.Response:
    """Send what no client library would."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, body = received.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)  # type: ignore[arg-type]


# Administrators


def _admin(running: Running, name: str = "query", token: str = _TOKEN, **headers: str) -> httpx.Response:
    url = f"{running.admin_url}/2015-03-31/functions/{name}/invocations"
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(url, json={"path": "/x"}, headers={"Authorization": f"Bearer {token}", **headers})


def test_an_administrator_invokes_a_function_by_its_name(running: Running) -> None:
    response = _admin(running)
    assert json.loads(response.json()["body"]) == {"path": "/x"}


def test_boto3_invokes_with_the_token_as_access_key_id(running: Running) -> None:
    import boto3

    client = boto3.client(
        "lambda",
        endpoint_url=running.admin_url,
        region_name="us-east-1",
        aws_access_key_id=_TOKEN,
        aws_secret_access_key="unused",
    )
    good = client.invoke(FunctionName="query", Payload=b'{"path": "/x"}')
    bad = client.invoke(FunctionName="query", Payload=b'{"path": "/crashes"}')
    assert "FunctionError" not in good
    assert bad["FunctionError"] == "Unhandled"
    assert json.load(bad["Payload"])["errorMessage"] == "secret detail"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="absent", Payload=b"{}")
    assert client.invoke(FunctionName="query", InvocationType="Event", Payload=b'{"path": "/x"}')["StatusCode"] == 202


def test_nobody_invokes_without_the_token(running: Running) -> None:
    assert _admin(running, token="wrong").status_code == 403
    assert _admin(running, Authorization="").status_code == 403


def test_the_api_s_port_never_serves_lambda_s_own_api(running: Running) -> None:
    response = running.request(
        "POST",
        "/2015-03-31/functions/query/invocations",
        key=None,
        json={},
        headers={"Authorization": f"Bearer {_TOKEN}"},
    )
    # It is a path like any other: the function gets it as an event, not as its payload.
    assert response.json()["path"] == "/2015-03-31/functions/query/invocations"
