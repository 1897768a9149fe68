"""The documents' bucket."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import DocumentError, UnavailableError
from rag.types import JSON, ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PIECE_BYTES = 1 << 20


class Bucket:
    """S3 through boto3, which is imported when the first call needs it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: S3Client | None = None

    def head(self, object_key: str) -> ObjectVersion | None:
        """Return the current version of an object; None when there is none, or a delete marker."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (boto3 costs 0.4 s to import)

        try:
            found = self._s3.head_object(Bucket=self._name, Key=object_key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise _unavailable(error) from error
        except BotoCoreError as error:
            raise _unavailable(error) from error
        return ObjectVersion(
            version_id=found.get("VersionId", "null"),
            etag=found["ETag"],
            size=found["ContentLength"],
            media_type=found.get("ContentType"),
        )

    def fetch(self, object_key: str, version: ObjectVersion, path: Path, *, limit_bytes: int) -> bytes:
        """Write that version to `path` and return its sha256; DocumentError(TOO_LARGE) above the limit."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        if version.size > limit_bytes:
            msg = f"the file has {version.size:,} bytes, the limit is {limit_bytes:,}"
            raise DocumentError("TOO_LARGE", msg)
        digest = hashlib.sha256()
        try:
            body = self._s3.get_object(Bucket=self._name, Key=object_key, VersionId=version.version_id)["Body"]
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
            self._s3.delete_object(Bucket=self._name, Key=object_key)
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def presign_upload(self, object_key: str, *, limit_bytes: int, valid_seconds: int) -> JSON:
        """Return `{"url", "fields"}` of a POST that may write this one key, up to `limit_bytes`."""
        return dict(
            self._s3.generate_presigned_post(
                self._name,
                object_key,
                Conditions=[["content-length-range", 0, limit_bytes]],
                ExpiresIn=valid_seconds,
            )
        )

    @property
    def _s3(self) -> S3Client:
        if self._client is None:
            import boto3  # noqa: PLC0415 (0.4 s that most questions do not need)
            from botocore.config import Config  # noqa: PLC0415

            config = Config(
                connect_timeout=2,
                read_timeout=20,
                retries={"mode": "standard", "max_attempts": 3},
                signature_version="s3v4",
            )
            self._client = boto3.client("s3", config=config)
        return self._client


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"the bucket is not available: {type(error).__name__}", retry_after_seconds=1)
