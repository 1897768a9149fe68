"""What one request to S3 names, and what kind of change it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from local.aws.exchange import Environ


@dataclass(frozen=True, slots=True)
class Call:
    """One S3 request: what it names, and its body, read whole."""

    environ: Environ
    body: bytes
    request_id: str
    host_id: str
    event: str | None = None
    bucket: str = field(init=False)
    key: str = field(init=False)
    query: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        path = unquote(str(self.environ["RAW_URI"]).partition("?")[0]).removeprefix("/")
        bucket, _, key = path.partition("/")
        object.__setattr__(self, "bucket", bucket)
        object.__setattr__(self, "key", key)
        query = parse_qsl(self.environ["QUERY_STRING"], keep_blank_values=True)
        object.__setattr__(self, "query", dict(query))

    @property
    def method(self) -> str:
        return str(self.environ["REQUEST_METHOD"])

    @property
    def is_part(self) -> bool:
        """A step of a multipart upload that leaves no object behind."""
        return "uploads" in self.query or ("uploadId" in self.query and self.method != "POST")

    @property
    def creation(self) -> str:
        """The `eventName` of a version that this request makes."""
        if self.event:
            return self.event
        if "uploadId" in self.query:
            return "ObjectCreated:CompleteMultipartUpload"
        copied = "HTTP_X_AMZ_COPY_SOURCE" in self.environ
        return "ObjectCreated:Copy" if copied else "ObjectCreated:Put"
