"""Who is asking which service, and may they: the first thing that a request meets."""

from __future__ import annotations

import json
import secrets
import sys
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from werkzeug.wsgi import get_input_stream

from local.aws import REGION, access, cors, inside_moto, presigned, upload_form
from local.aws.buckets import Buckets
from local.aws.bus import Bus
from local.aws.call import Call
from local.aws.errors import S3Error, access_denied
from local.aws.exchange import Environ, Reply, authorization, body_environ, request
from local.aws.queues import Queues
from local.aws.replay import replay
from local.aws.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from _typeshed.wsgi import StartResponse

    from local.aws import Credentials
    from local.aws.journal import Journal

_HEALTHY = Reply(200, (("Content-Type", "application/json"),), b'{"status": "ok"}')

# Its own idea of CORS, and an id that SDKs would take for S3's.
_MOTO_ONLY = ("access-control-", "x-amzn-requestid")


class Gateway:
    """The WSGI application of the local AWS; building it brings back everything that the journal holds."""

    def __init__(self, journal: Journal, credentials: Credentials, events: Path) -> None:
        self._credentials = credentials
        s3 = inside_moto.application("s3")
        self._vault = Vault(inside_moto.application("secretsmanager"), journal)
        self._queues = Queues(inside_moto.application("sqs"), journal)
        self._buckets = Buckets(s3, journal, self._queues)
        self._bus = Bus(events)
        self._vault.replay()
        self._queues.replay()
        replay(s3, journal, self._buckets, report=_report)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reply = self._route(environ)
        return reply.send(start_response, head=environ["REQUEST_METHOD"] == "HEAD")

    def _route(self, environ: Environ) -> Reply:
        try:
            access.check_host(environ)
        except S3Error as error:
            return error.reply("")
        target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
        region, service = _scope(environ)
        if target:
            return self._json(environ, target.partition(".")[0], region)
        if service not in {"s3", ""}:
            return _refused(f"The local AWS has no {service} over this protocol; update the AWS SDK of the caller.")
        if (environ["PATH_INFO"], service, environ["QUERY_STRING"]) == ("/health", "", ""):
            return _HEALTHY
        return self._s3(environ)

    def _json(self, environ: Environ, service: str, region: str) -> Reply:
        if region != REGION:
            return _refused(f"The local AWS has one region, {REGION}; this request was signed for {region or 'none'}.")
        body = _body(environ)
        try:
            self._check_signature(environ, body)
        except S3Error as error:
            return _refused(str(error), error.status, error.code)
        environ |= body_environ(body)
        match service:
            case "AmazonSQS":
                return self._queues.answer(environ, body)
            case "secretsmanager":
                return self._vault.answer(environ)
            case "AWSEvents":
                return self._bus.answer(str(environ["HTTP_X_AMZ_TARGET"]).partition(".")[2], body)
            case _:
                return _refused(f"The local AWS has no {service}.")

    def _check_signature(self, environ: Environ, body: bytes) -> None:
        method, target = environ["REQUEST_METHOD"], str(environ["RAW_URI"])
        now = datetime.now(UTC)
        access.check_signature(method, target, _headers(environ), body, credentials=self._credentials, now=now)

    def _s3(self, environ: Environ) -> Reply:
        request_id, host_id = secrets.token_hex(8).upper(), secrets.token_urlsafe(48)
        headers = _headers(environ)
        call = Call(environ, b"", request_id, host_id)
        try:
            reply = self._answer_s3(call, headers)
        except S3Error as error:
            reply = error.reply(request_id)
        except Exception as error:  # noqa: BLE001  # the client is told, the log has the traceback
            traceback.print_exc()
            reply = S3Error(500, "InternalError", f"{type(error).__name__}: {error}").reply(request_id)
        reply = reply.adding({"x-amz-request-id": request_id, "x-amz-id-2": host_id})
        if call.method == "OPTIONS":
            return reply
        kept = tuple(h for h in reply.headers if not h[0].lower().startswith(_MOTO_ONLY))
        return replace(reply, headers=kept).adding(cors.headers_for(_cors_rules(call), call.method, headers))

    def _answer_s3(self, call: Call, headers: dict[str, str]) -> Reply:
        environ = call.environ
        if call.method == "OPTIONS":
            return cors.preflight(_cors_rules(call), headers)
        if call.method == "POST" and not call.key and "delete" not in call.query:
            return self._upload(call, headers)
        _check_authentication(environ, headers, self._credentials)
        body = _body(environ)
        # moto trusts what it takes for signed; the URL's own signature has been checked.
        environ |= {**body_environ(body), "HTTP_AUTHORIZATION": environ.get("HTTP_AUTHORIZATION", authorization("s3"))}
        return self._buckets.answer(replace(call, body=body))

    def _upload(self, call: Call, headers: dict[str, str]) -> Reply:
        form = upload_form.read(
            call.bucket,
            headers.get("content-type", ""),
            get_input_stream(call.environ),
            now=datetime.now(UTC),
            credentials=self._credentials,
        )
        put = request("s3", "PUT", quote(f"/{form.bucket}/{form.key}"), headers=form.headers, body=form.content)
        stored = self._buckets.answer(
            Call(put, form.content, call.request_id, call.host_id, event="ObjectCreated:Post")
        )
        return form.reply(stored, host=headers.get("host", "")) if stored.ok else stored


def _check_authentication(environ: Environ, headers: dict[str, str], credentials: Credentials) -> None:
    if "HTTP_AUTHORIZATION" in environ:
        return
    query = environ["QUERY_STRING"]
    if presigned.is_presigned(query):
        method, path = environ["REQUEST_METHOD"], str(environ["RAW_URI"]).partition("?")[0]
        presigned.check(method, path, query, headers, now=datetime.now(UTC), credentials=credentials)
    elif "Signature=" in query:
        message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        raise S3Error(400, "InvalidRequest", message)
    else:
        raise access_denied("Access Denied")


def _scope(environ: Environ) -> tuple[str, str]:
    """(region, service) that the header's signature names; empty without one."""
    credential = str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2].partition(",")[0]
    parts = credential.split("/")
    return (parts[2], parts[3]) if len(parts) == 5 else ("", "")


def _body(environ: Environ) -> bytes:
    return bytes(get_input_stream(environ).read())


def _headers(environ: Environ) -> dict[str, str]:
    headers = {n[5:].replace("_", "-").lower(): str(v) for n, v in environ.items() if n.startswith("HTTP_")}
    unprefixed = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
    return headers | {name: str(environ.get(variable, "")) for name, variable in unprefixed.items()}


def _cors_rules(call: Call) -> list[object]:
    found = inside_moto.bucket(call.bucket)
    return list(found.cors) if found else []


def _refused(message: str, status: int = 400, code: str = "InvalidAction") -> Reply:
    body = json.dumps({"__type": code, "message": message}).encode()
    return Reply(status, (("Content-Type", "application/x-amz-json-1.0"),), body)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # the log of the process
