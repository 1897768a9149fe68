"""The documents' bucket."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rag.errors import DocumentError, UnavailableError
from rag.types import JSON, ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PIECE_BYTES = 1 << 20
UNVERSIONED = "etag:"


class Budget(NamedTuple):
    """What one call may take."""

    connect_seconds: float
    read_seconds: float
    attempts: int


PATIENT = Budget(2, 20, 3)
HURRIED = Budget(1, 2, 1)


class Bucket:
    """S3 through boto3, which is imported when the first call needs it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._clients: dict[Budget, S3Client] = {}

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None:
        """Return the current version of an object; None when there is none, or a delete marker.

        `hurried`, for a caller that others wait for: one attempt, of three seconds at most. UnavailableError also when
        the bucket itself is not there, which HEAD of an object answers alike.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (boto3 costs 0.4 s to import)

        try:
            return _current(self._client(HURRIED if hurried else PATIENT), self._name, object_key)
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def fetch(self, object_key: str, version: ObjectVersion, path: Path, *, limit_bytes: int) -> bytes:
        """Write that version to `path` and return its sha256; DocumentError(TOO_LARGE) above the limit."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        if version.size > limit_bytes:
            msg = f"the file has {version.size:,} bytes, the limit is {limit_bytes:,}"
            raise DocumentError("TOO_LARGE", msg)
        digest = hashlib.sha256()
        try:
            body = self._client().get_object(Bucket=self._name, Key=object_key, **_only(version))["Body"]
            with path.open("wb") as file:
                for piece in body.iter_chunks(PIECE_BYTES):
                    digest.update(piece)
                    file.write(piece)
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error
        return digest.digest()

    def delete(self, object_key: str) -> None:
        """Delete the current version; older ones stay until the bucket's lifecycle takes them."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            self._client().delete_object(Bucket=self._name, Key=object_key)
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def presign_upload(self, object_key: str, *, limit_bytes: int, valid_seconds: int) -> JSON:
        """Return `{"url", "fields"}` of a POST that may write this one key, up to `limit_bytes`."""
        return dict(
            self._client().generate_presigned_post(
                self._name,
                object_key,
                Conditions=[["content-length-range", 0, limit_bytes]],
                ExpiresIn=valid_seconds,
            )
        )

    def _client(self, budget: Budget = PATIENT) -> S3Client:
        if budget not in self._clients:
            import boto3  # noqa: PLC0415 (0.4 s that most questions do not need)
            from botocore.config import Config  # noqa: PLC0415

            config = Config(
                connect_timeout=budget.connect_seconds,
                read_timeout=budget.read_seconds,
                retries={"mode": "standard", "total_max_attempts": budget.attempts},
                signature_version="s3v4",
                # Else a form's URL names no region, and a bucket elsewhere than us-east-1 answers by a redirect.
                s3={"addressing_style": "virtual"},
            )
            self._clients[budget] = boto3.client("s3", config=config)
        return self._clients[budget]


def _current(client: S3Client, bucket: str, object_key: str) -> ObjectVersion | None:
    try:
        found = client.head_object(Bucket=bucket, Key=object_key)
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        client.head_bucket(Bucket=bucket)
        return None
    return ObjectVersion(
        version_id=_version_id(found.get("VersionId"), found["ETag"]),
        etag=found["ETag"],
        size=found["ContentLength"],
        media_type=found.get("ContentType"),
    )


def _version_id(named: str | None, etag: str) -> str:
    """Where versioning is off or suspended every version is called `null`: there the content tells them apart."""
    return UNVERSIONED + etag.strip('"') if named in {None, "null"} else str(named)


def _only(version: ObjectVersion) -> dict[str, Any]:
    """What makes S3 send this version or an error."""
    if version.version_id.startswith(UNVERSIONED):
        return {"IfMatch": version.etag}
    return {"VersionId": version.version_id}


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"the bucket is not available: {type(error).__name__}", retry_after_seconds=1)
