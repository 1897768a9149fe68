"""Every function in one table: its limits, its database role, and what it is told of, on AWS and on a laptop alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OWNER = "rag_owner"
# Messages that ingest gets at once, at most.
INGEST_BATCH_SIZE = 10
USUAL_TEMPORARY_MIB = 512
# Paths of the HTTP API that nobody needs a credential for.
PUBLIC = frozenset({"/health", "/ready", "/openapi.json", "/docs"})

Use = Literal[
    "bucket",
    "queue",
    "retry",
    "reconcile",
    "dead_letters",
    "bus",
    "maintenance",
    "erasures",
    "audit",
    "cache",
    "model",
    "roles",
    "tokens",
]


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """One line of the table; `role` is the database role that it connects as, `uses` what else it is told of.

    Its code is `functions/<folder>`, by default the folder of its name. One that `streams` these routes (method and
    path) is their integration in the transfer mode STREAM, and is run by its `wrapper` instead of Lambda's runtime.
    A `warm` one has a sandbox before its first event where the stage pays for it (provisioned concurrency or
    SnapStart); one with `schedule_seconds` is invoked with `{}` so often. `temporary_mib` is the size of its /tmp.
    """

    name: str
    timeout_seconds: int
    memory_mib: int
    role: str
    uses: frozenset[Use] = frozenset()
    warm: bool = False
    schedule_seconds: int | None = None
    code: str | None = None
    temporary_mib: int = USUAL_TEMPORARY_MIB
    streams: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return self.code or self.name

    @property
    def handler(self) -> str:
        return f"functions.{self.folder}.handler.handler"

    @property
    def environment(self) -> dict[str, str]:
        """What its sandboxes are told besides their settings, on AWS and on a laptop."""
        return {
            "POWERTOOLS_SERVICE_NAME": self.name,
            "POWERTOOLS_METRICS_NAMESPACE": "Rag",
            # There are none; to look for them is to read the metadata of every distribution at every start.
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
            "OTEL_PROPAGATORS": "none",
        }

    @property
    def wrapper(self) -> str | None:
        """What AWS_LAMBDA_EXEC_WRAPPER names, relative to the folder that holds `functions`."""
        return f"functions/{self.folder}/streaming.sh" if self.streams else None


INGEST = FunctionRow(
    "ingest",
    600,
    2048,
    "rag_ingest",
    uses=frozenset({"bucket", "queue", "bus", "maintenance", "model"}),
    warm=True,
    # Of each document that is worked on at once the file and its text, as JSON.
    temporary_mib=2048,
)
# A second less than a REST API waits for an answer.
QUERY = FunctionRow(
    "query", 28, 512, "rag_query", uses=frozenset({"bucket", "retry", "erasures", "cache", "model"}), warm=True
)
# A route has one integration: whether an answer is asked for as a stream or whole, this function gives it.
ANSWER = FunctionRow(
    "answer",
    120,
    512,
    QUERY.role,
    uses=QUERY.uses - {"bucket", "retry", "erasures"},
    warm=True,
    code=QUERY.folder,
    streams=("POST /v1/query",),
)
AUTHORIZE = FunctionRow("authorize", 10, 256, "rag_authorize", uses=frozenset({"tokens"}), warm=True)
MIGRATE = FunctionRow("migrate", 300, 256, OWNER, uses=frozenset({"roles", "model"}))
MAINTAIN = FunctionRow("maintain", 900, 256, OWNER, uses=frozenset({"audit"}), schedule_seconds=300)
RECONCILE = FunctionRow(
    "reconcile", 300, 256, "rag_reconcile", uses=frozenset({"retry", "reconcile"}), schedule_seconds=300
)
TENANTS = FunctionRow("tenants", 30, 256, "rag_admin", uses=frozenset({"erasures", "model"}))
# By the schedule it finds what a message was lost of.
ERASE = FunctionRow(
    "erase", 600, 256, "rag_erase", uses=frozenset({"bucket", "erasures", "cache"}), schedule_seconds=900
)
NOTIFY = FunctionRow(
    "notify", 55, 256, INGEST.role, uses=frozenset({"bucket", "dead_letters", "bus", "model"}), schedule_seconds=60
)
FUNCTIONS = (AUTHORIZE, QUERY, ANSWER, INGEST, MIGRATE, MAINTAIN, RECONCILE, TENANTS, ERASE, NOTIFY)
# Those that ask the models; others only have to know which they are.
ASKING = (QUERY, ANSWER, INGEST)
ROLES = tuple(dict.fromkeys(row.role for row in FUNCTIONS if row.role != OWNER))
