"""The documents' bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rag import metadata, permissions, sdk
from rag.errors import DocumentError, UnavailableError
from rag.types import JSON, Beside, Listed, ObjectVersion, StoredVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef, ObjectIdentifierTypeDef

# S3 has none longer, and answers as if the request were at fault.
LONGEST_KEY_BYTES = 1024
PIECE_BYTES = 1 << 20
# S3 API reference, DeleteObjects: 1,000 keys in one request.
MOST_DELETED = 1000
UNVERSIONED = "etag:"


class Budget(NamedTuple):
    """What one call may take."""

    connect_seconds: float
    read_seconds: float
    attempts: int


PATIENT = Budget(2, 20, 3)
HURRIED = Budget(1, 2, 1)


class Opened:
    """A version that is being read: what S3 says of it comes before its bytes, in one answer."""

    def __init__(self, answer: GetObjectOutputTypeDef) -> None:
        self.version = _version(answer)
        self._body = answer["Body"]

    def fetch(self, path: Path, *, limit_bytes: int) -> bytes:
        """Write it to `path` and return its sha256, once; DocumentError(TOO_LARGE) above the limit."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        if self.version.size > limit_bytes:
            msg = f"the file has {self.version.size:,} bytes, the limit is {limit_bytes:,}"
            raise DocumentError("TOO_LARGE", msg)
        digest = hashlib.sha256()
        try:
            with path.open("wb") as file:
                for piece in self._body.iter_chunks(PIECE_BYTES):
                    digest.update(piece)
                    file.write(piece)
        except BotoCoreError as error:
            raise _unavailable(error) from error
        return digest.digest()

    def close(self) -> None:
        """Read no more of it; what has not come yet does not."""
        self._body.close()


class Bucket:
    """S3 through boto3, which is imported when the first call needs it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._clients: dict[Budget, S3Client] = {}

    def head(self, object_key: str, *, hurried: bool = False) -> ObjectVersion | None:
        """Return the current version of an object; None when there is none, or a delete marker.

        `hurried`, for a caller that others wait for: one attempt, of three seconds at most. UnavailableError also when
        the bucket itself is not there, which HEAD of an object answers alike.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (boto3 costs 0.4 s to import)

        try:
            return _current(self._client(HURRIED if hurried else PATIENT), self.name, object_key)
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def open(self, object_key: str) -> Opened | None:
        """Return the current version of an object, its bytes not yet read; None as `head` does."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        client = self._client()
        try:
            return Opened(client.get_object(Bucket=self.name, Key=object_key))
        except client.exceptions.NoSuchKey:
            return None
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def read(self, object_key: str, *, limit_bytes: int) -> Beside | None:
        """Return what a sidecar holds now, one byte more than the limit at most; None when there is none.

        Others wait for the caller: one attempt, of three seconds at most.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        if len(object_key.encode()) > LONGEST_KEY_BYTES:
            return None
        client = self._client(HURRIED)
        try:
            found = client.get_object(Bucket=self.name, Key=object_key)
            with found["Body"] as body:
                version_id = _version_id(found.get("VersionId"), found["ETag"])
                return Beside(body.read(limit_bytes + 1), found["Metadata"].get(permissions.AUTHOR), version_id)
        except client.exceptions.NoSuchKey:
            return None
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def versions_of(self, object_key: str) -> list[StoredVersion]:
        """Return every version of one key, the newest first, and the markers of its deletions."""
        found: list[StoredVersion] = []
        if len(object_key.encode()) > LONGEST_KEY_BYTES:
            return found
        for page in self.versions_under(object_key):
            own = [version for version in page if version.key == object_key]
            found += own
            # Sorted by key, in which the shortest comes first.
            if len(own) < len(page):
                break
        return found

    def versions_under(self, prefix: str) -> Iterator[list[StoredVersion]]:
        """Yield every version of every key with this prefix, and the markers of deletions, a thousand at a time."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        pages = self._client().get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=prefix)
        try:
            for page in pages:
                # Read as a whole: boto3 tells versions and markers apart, each the newest first.
                listed = ((page.get("Versions", []), False), (page.get("DeleteMarkers", []), True))
                versions = [
                    StoredVersion(each["Key"], each["VersionId"], each["LastModified"], is_marker)
                    for kind, is_marker in listed
                    for each in kind
                ]
                yield sorted(versions, key=attrgetter("key"))
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def erase(self, versions: Sequence[StoredVersion]) -> None:
        """Delete these versions for good; those that are gone already are no error."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        for start in range(0, len(versions), MOST_DELETED):
            some = versions[start : start + MOST_DELETED]
            objects: list[ObjectIdentifierTypeDef] = [
                {"Key": version.key, "VersionId": version.version_id} for version in some
            ]
            try:
                reply = self._client().delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})
            except (ClientError, BotoCoreError) as error:
                raise _unavailable(error) from error
            if refused := reply.get("Errors"):
                msg = f"the bucket keeps {len(refused)} versions that are to be erased: {refused[0].get('Code')}"
                raise UnavailableError(msg)

    def listed(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """What stands under each key with this prefix, after that key, in the order of their UTF-8, page by page.

        A deletion marker has no version. Source: S3 API reference, "ListObjectVersions".
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        position: dict[str, Any] = {"KeyMarker": after} if after else {}
        try:
            while True:
                page = self._client().list_object_versions(Bucket=self.name, Prefix=prefix, **position)
                yield from _newest(page)
                if not page["IsTruncated"]:
                    return
                position = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def put(self, object_key: str, body: bytes) -> None:
        """Write a small object."""
        self._change(lambda client: client.put_object(Bucket=self.name, Key=object_key, Body=body))

    def mark_deleted(self, object_key: str) -> None:
        """Delete the current version; it and older ones stay until the bucket's lifecycle takes them."""
        self._change(lambda client: client.delete_object(Bucket=self.name, Key=object_key))

    def _change(self, change: Callable[[S3Client], object]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            change(self._client())
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from error

    def presign_upload(
        self, object_key: str, *, limit_bytes: int, valid_seconds: int, carried: Mapping[str, str] | None = None
    ) -> JSON:
        """Return `{"url", "fields"}` of a POST that may write this one key, up to `limit_bytes`.

        What is to be `carried`, by its name, is signed into it: the version that is uploaded has just that.
        """
        fields = {f"x-amz-meta-{name}": text for name, text in (carried or {}).items()}
        return dict(
            self._client().generate_presigned_post(
                self.name,
                object_key,
                Fields=dict(fields),
                Conditions=[["content-length-range", 0, limit_bytes], *({name: fields[name]} for name in fields)],
                ExpiresIn=valid_seconds,
            )
        )

    def presign_download(self, object_key: str, version_id: str | None, *, valid_seconds: int) -> str:
        """Return where that version can be fetched from, by whoever has the address; None: the current one.

        A browser keeps what is there as a file and shows it to nobody: it may be a page with a script.
        """
        version = {} if version_id is None or version_id.startswith(UNVERSIONED) else {"VersionId": version_id}
        asked = {"Bucket": self.name, "Key": object_key, "ResponseContentDisposition": "attachment", **version}
        return self._client().generate_presigned_url("get_object", Params=asked, ExpiresIn=valid_seconds)

    def _client(self, budget: Budget = PATIENT) -> S3Client:
        if budget not in self._clients:
            from botocore.config import Config  # noqa: PLC0415

            config = Config(
                connect_timeout=budget.connect_seconds,
                read_timeout=budget.read_seconds,
                retries={"mode": "standard", "total_max_attempts": budget.attempts},
                signature_version="s3v4",
                # Else a form's URL names no region, and a bucket elsewhere than us-east-1 answers by a redirect.
                s3={"addressing_style": "virtual"},
            )
            self._clients[budget] = sdk.client("s3", config=config)
        return self._clients[budget]


def _current(client: S3Client, bucket: str, object_key: str) -> ObjectVersion | None:
    try:
        found = client.head_object(Bucket=bucket, Key=object_key)
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        client.head_bucket(Bucket=bucket)
        return None
    return _version(found)


def _version(found: HeadObjectOutputTypeDef | GetObjectOutputTypeDef) -> ObjectVersion:
    return ObjectVersion(
        version_id=_version_id(found.get("VersionId"), found["ETag"]),
        etag=found["ETag"],
        size=found["ContentLength"],
        media_type=found.get("ContentType"),
        metadata=found["Metadata"].get(metadata.FIELD),
        modified_at=found["LastModified"],
    )


def _newest(page: Any) -> list[Listed]:
    objects = [
        Listed(one["Key"], _version_id(one.get("VersionId"), one["ETag"]), one["LastModified"])
        for one in page.get("Versions", ())
        if one["IsLatest"]
    ]
    markers = [
        Listed(one["Key"], None, one["LastModified"]) for one in page.get("DeleteMarkers", ()) if one["IsLatest"]
    ]
    return sorted(objects + markers, key=lambda one: one.object_key)


def _version_id(named: str | None, etag: str) -> str:
    """Where versioning is off or suspended every version is called `null`: there the content tells them apart."""
    return UNVERSIONED + etag.strip('"') if named in {None, "null"} else str(named)


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"the bucket is not available: {type(error).__name__}", retry_after_seconds=1)
