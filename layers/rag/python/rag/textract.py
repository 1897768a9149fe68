"""Amazon Textract: the lines of a page from its picture, in one synchronous request.

DetectDocumentText takes a picture of at most 10 MB: Amazon Textract developer guide, "Set quotas in Amazon Textract".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag import sdk
from rag.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_BYTES = 10_000_000
_UNREADABLE = frozenset(
    ("BadDocumentException", "UnsupportedDocumentException", "DocumentTooLargeException", "InvalidParameterException")
)


class Textract:
    """One client for all threads; the SDK waits and asks again where the account's rate is exceeded."""

    at_once = 4

    def __init__(self) -> None:
        self._client: Any = None

    def read(self, picture: bytes) -> str:
        """The lines of a page from top to bottom, none where it cannot be read; UnavailableError without an answer."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (boto3 costs 0.4 s to import)

        if len(picture) > _MOST_BYTES:
            return ""
        try:
            answer = self._textract().detect_document_text(Document={"Bytes": picture})
        except ClientError as error:
            if error.response["Error"]["Code"] in _UNREADABLE:
                return ""
            raise UnavailableError(f"Textract does not answer: {error.response['Error']['Code']}") from error
        except BotoCoreError as error:
            raise UnavailableError(f"Textract does not answer: {type(error).__name__}") from error
        return "\n".join(_lines(answer))

    def _textract(self) -> Any:
        if self._client is None:
            from botocore.config import Config  # noqa: PLC0415

            config = Config(
                connect_timeout=3, read_timeout=30, retries={"mode": "adaptive", "total_max_attempts": 6},
                max_pool_connections=self.at_once,
            )  # fmt: skip
            self._client = sdk.client("textract", config=config)
        return self._client


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    return (block["Text"] for block in answer["Blocks"] if block["BlockType"] == "LINE")
