"""Every error that the product raises on purpose.

RagError
├── InvalidRequestError      the caller can fix it                         400
│   ├── TooLargeError        more bytes than is allowed                    413
│   ├── ConflictError        it exists, and differently                    409
│   │   └── InProgressError  this very request is being carried out        409
│   └── ReusedKeyError       an Idempotency-Key that named another request 422
├── MetadataError            user metadata that is not what it may be      422
├── NotAuthorizedError       no live credential                            401
├── ForbiddenError           the credential's role is not enough           403
├── NotFoundError            absent, or somebody else's: the same answer   404
├── BudgetError              what may be used of the models is used up     429
├── RateLimitError           more requests than are allowed                429
├── UnavailableError         a dependency is down or slow; worth a retry   503
│   ├── DeadlineError        time ran out                                  504
│   ├── OutOfTimeError       this run is over; the next one goes on from what was kept
│   ├── BusyError            it asks to be left alone for a while, or is left alone because it fails
│   └── ModelError           the model's answer cannot be used
│       ├── DeclinedError    the model refuses to answer; asked again, it would again
│       └── EndlessError     more than was asked for; it is paid for once, and not asked for again
└── DocumentError            a document that no retry will make readable: `failed(code, message)`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

FailureCode = Literal[
    "NO_TEXT",
    "EMPTY",
    "ENCRYPTED",
    "CORRUPT",
    "UNSUPPORTED",
    "TOO_LARGE",
    "TOO_MUCH_TEXT",
    "TOO_MANY_PAGES",
    "TOO_MANY_PARTS",
    "TOO_DEEP",
    "UNPACKS_TOO_LARGE",
    "COMPRESSED_TOO_FAR",
    "TOO_MANY_CHUNKS",
    "PARSE_TIMEOUT",
    "PARSE_MEMORY",
    "BUDGET",
    "INTERNAL",
    "STUCK",
    "OUT_OF_MEMORY",
    "DISK_FULL",
]


class RagError(Exception):
    """Something that the product foresaw."""


class InvalidRequestError(RagError):
    """The request cannot be carried out as it stands."""


class TooLargeError(InvalidRequestError):
    """What was announced is larger than this deployment takes."""


class ConflictError(InvalidRequestError):
    """There is one already, and it is not the same."""


class InProgressError(ConflictError):
    """Another run is carrying out this very request; soon there is an answer to it."""

    retry_after_seconds = 1.0


class ReusedKeyError(InvalidRequestError):
    """A request has the name of another one."""


class MetadataError(RagError, ValueError):
    """What is given as user metadata is not flat, typed or small enough."""


class ForbiddenError(RagError):
    """The credential is live, and its role does not reach this far."""


class NotAuthorizedError(RagError):
    """The credential is missing, unknown, expired or revoked."""


class NotFoundError(RagError):
    """There is no such thing, or not for this caller."""


class UnavailableError(RagError):
    """A dependency did not answer; the same request may succeed later."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineError(UnavailableError):
    """The time for this request is used up."""


class OutOfTimeError(UnavailableError):
    """There is not enough time left in this run for the next step.

    `progress` says how far all runs have come with this version of the document, if any has.
    """

    def __init__(self, message: str, *, version_id: str | None = None, progress: int = 0) -> None:
        super().__init__(message)
        self.version_id = version_id
        self.progress = progress


class BusyError(UnavailableError):
    """The dependency is to be left alone until `retry_after_seconds` are over."""


class BudgetError(RagError):
    """What a tenant or a key may use of the models is used up; until `reset_at` are `retry_after_seconds`."""

    def __init__(self, message: str, reset_at: datetime, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.reset_at = reset_at
        self.retry_after_seconds = retry_after_seconds


class RateLimitError(RagError):
    """More requests than are allowed in a time, by the limits that are named."""

    def __init__(self, message: str, violated: list[str], *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.violated = violated
        self.retry_after_seconds = retry_after_seconds


class ModelError(UnavailableError):
    """The model server answered, but not with what was asked for."""


class DeclinedError(ModelError):
    """The model refuses to answer."""


class EndlessError(ModelError):
    """The model server sent more than was asked for."""


class DocumentError(RagError):
    """The document itself is why it cannot be indexed."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code
