"""Browser uploads: a multipart/form-data POST to a bucket, read into the PUT that it stands for.

Source: Amazon S3 API Reference, "POST object". Fields after the file are ignored, as on S3; the file is read no further
than its policy allows.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from local.aws import post_policy
from local.aws.errors import S3Error
from local.aws.exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from typing import IO

    from local.aws import Credentials

_CHUNK_BYTES = 256 * 1024
_LONGEST_FIELDS_BYTES = 20 * 1024
_HEADERS = {"cache-control", "content-type", "content-disposition", "content-encoding", "expires"}
_HEADER_PREFIXES = (
    "x-amz-meta-",
    "x-amz-checksum-",
    "x-amz-server-side-encryption",
    "x-amz-storage-class",
)


@dataclass(frozen=True, slots=True)
class Upload:
    bucket: str
    key: str
    content: bytes
    headers: Mapping[str, str]
    fields: Mapping[str, str]

    def reply(self, stored: Reply, *, host: str) -> Reply:
        """What the form asked to hear of the PUT's reply."""
        etag = dict(stored.headers).get("ETag", "")
        kept = tuple((n, v) for n, v in stored.headers if n.lower() == "etag" or n.lower().startswith("x-amz-"))
        place = f"http://{host}/{self.bucket}/{quote(self.key)}"
        redirect = self.fields.get("success_action_redirect") or self.fields.get("redirect")
        if redirect:
            query = urlencode({"bucket": self.bucket, "key": self.key, "etag": etag})
            return Reply(303, (*kept, ("Location", f"{redirect}{'&' if '?' in redirect else '?'}{query}")))
        match self.fields.get("success_action_status"):
            case "200":
                return Reply(200, (*kept, ("Location", place)))
            case "201":
                body = _post_response({"Location": place, "Bucket": self.bucket, "Key": self.key, "ETag": etag})
                return Reply(201, (*kept, ("Location", place), ("Content-Type", "application/xml")), body)
            case _:
                return Reply(204, (*kept, ("Location", place)))


def _post_response(fields: Mapping[str, str]) -> bytes:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<PostResponse>{inner}</PostResponse>'.encode()


def read(bucket: str, content_type: str, stream: IO[bytes], *, now: datetime, credentials: Credentials) -> Upload:
    """Read the form and hold it against its policy; raise S3Error as S3 would."""
    events = _events(content_type, stream)
    try:
        fields, file = _fields(events)
        if file is None:
            raise S3Error(400, "InvalidArgument", "POST requires exactly one file upload per request.")
        if not fields.get("key"):
            raise S3Error(400, "InvalidArgument", "Bucket POST must contain a field named 'key'.")
        limits = post_policy.check(fields, bucket=bucket, now=now, credentials=credentials)
        content = _content(events, limits)
    except (ValueError, EOFError) as error:
        message = "The body of your POST request is not well-formed multipart/form-data."
        raise S3Error(400, "MalformedPOSTRequest", message) from error
    key = fields["key"].replace("${filename}", file.rpartition("/")[2].rpartition("\\")[2])
    return Upload(bucket, key, content, _put_headers(fields), fields)


def _put_headers(fields: Mapping[str, str]) -> Mapping[str, str]:
    headers = {n: _header(v) for n, v in fields.items() if n in _HEADERS or n.startswith(_HEADER_PREFIXES)}
    return headers | ({"x-amz-acl": fields["acl"]} if "acl" in fields else {})


def _header(value: str) -> str:
    """A form holds UTF-8, a header does not: what is not ASCII is answered as RFC 2047 has it, as on S3."""
    return value if value.isascii() else f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def _events(content_type: str, stream: IO[bytes]) -> Iterator[Event]:
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise S3Error(412, "PreconditionFailed", "Bucket POST must be of the enclosure-type multipart/form-data")
    decoder = MultipartDecoder(options["boundary"].encode())
    while not isinstance(event := decoder.next_event(), Epilogue):
        if isinstance(event, NeedData):
            # None tells the decoder that nothing follows: an unfinished form is a ValueError then.
            decoder.receive_data(stream.read(_CHUNK_BYTES) or None)
        else:
            yield event


def _fields(events: Iterator[Event]) -> tuple[dict[str, str], str | None]:
    """The fields up to the file, names in lower case, and the file's name: None when there is no file."""
    values: dict[str, bytes] = {}
    name = ""
    for event in events:
        if isinstance(event, Field | File):
            name = str(event.name).lower()
            if name == "file":
                return {n: v.decode() for n, v in values.items()}, getattr(event, "filename", "") or ""
            values[name] = b""
        elif isinstance(event, Data):
            values[name] += event.data
            if sum(map(len, values.values())) > _LONGEST_FIELDS_BYTES:
                raise S3Error(400, "MaxPostPreDataLengthExceededError", "Your POST request fields are too large.")
    return {}, None


def _content(events: Iterator[Event], limits: post_policy.SizeLimits) -> bytes:
    content = bytearray()
    for event in events:
        if not isinstance(event, Data):
            raise ValueError("the file has no content")  # noqa: TRY004  # the form is malformed, not our types
        content += event.data
        limits.refuse_above(len(content))
        if not event.more_data:
            break
    limits.refuse_below(len(content))
    return bytes(content)
