"""Refusals in S3's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from local.aws.exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping


class S3Error(Exception):
    """A request that S3 refuses: `status`, S3's error `code`, its message, and what else S3 puts into the answer."""

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.details = status, code, dict(details or {})

    def reply(self, request_id: str) -> Reply:
        """The `<Error>` document. Source: Amazon S3 API Reference, "Error responses"."""
        fields = {"Code": self.code, "Message": str(self), **self.details, "RequestId": request_id}
        inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
        return Reply(self.status, (("Content-Type", "application/xml"),), body.encode())


def access_denied(message: str, details: Mapping[str, str] | None = None) -> S3Error:
    return S3Error(403, "AccessDenied", message, details)
