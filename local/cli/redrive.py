"""`rag redrive`: what ended among the dead letters of ingest goes back to its queue."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local import aws
from local.cli.connection import data_directory, ready_file
from local.cli.failure import Failure
from local.cli.output import as_json, one_line, plural, table
from local.cli.remote import AsJson, Data, Given

if TYPE_CHECKING:
    from local.dead_letters import DeadLetter, Queues

EPILOG = """\b
Examples:
  rag redrive --dry-run                          # what is there, and what would move
  rag redrive --collection hr                    # of the platform on this machine
  rag redrive --stage prod --document 6f1d3c1e-54b5-5b6e-9c63-0b9f2a1d7c55
"""


@dataclass(frozen=True, slots=True)
class Told:
    """One letter as it is printed."""

    letter: "DeadLetter"
    action: str

    def as_json(self) -> dict[str, Any]:
        return {
            "message_id": self.letter.message_id,
            "sent_at": self.letter.sent_at.isoformat(),
            "documents": [
                {
                    "id": str(one.document_id),
                    "tenant_id": str(one.tenant_id),
                    "collection": one.collection,
                    "key": one.key,
                }
                for one in self.letter.documents
            ],
            "action": self.action,
        }

    def as_row(self) -> tuple[str, ...]:
        return (
            ", ".join(dict.fromkeys(one.collection for one in self.letter.documents)),
            ", ".join(one.key for one in self.letter.documents) or one_line(self.letter.body)[:60],
            f"{self.letter.sent_at:%Y-%m-%d %H:%M}",
            self.letter.message_id,
            self.action,
        )


def redrive(
    ctx: typer.Context,
    *,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="Only of documents in this collection.")
    ] = None,
    document: Annotated[
        uuid.UUID | None, typer.Option("--document", metavar="ID", help="Only of the document with this id.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would move, and move nothing.")] = False,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="NAME", help="A stage on AWS instead, with your AWS credentials.")
    ] = None,
    data: Data = None,
    json: AsJson = False,
) -> int:
    """Move dead letters of ingest back to its queue.

    First mend why they failed: `rag documents --status failed` tells it. Each is sent before it is deleted, so a
    command that is interrupted loses nothing, and can be given again.
    """
    from local import dead_letters  # noqa: PLC0415 (what it looks for is compiled first)

    before = ctx.obj or Given()
    queues = _of_stage(stage) if stage else _of_platform(data or before.wanted.data)
    moving = "would move" if dry_run else "moved"
    found = dead_letters.redrive(queues, dead_letters.of(collection=collection, document=document), dry_run=dry_run)
    told = [Told(letter, moving if moves else "left") for letter, moves in found]
    moved = sum(one.action == moving for one in told)
    if json or before.json:
        counts = {"moved": 0 if dry_run else moved, "left": len(told) - (0 if dry_run else moved)}
        print(as_json({**counts, "dry_run": dry_run, "messages": [one.as_json() for one in told]}))
    else:
        _tell(told, moved, moving)
    return 0


def _tell(told: list[Told], moved: int, moving: str) -> None:
    if not told:
        print("There are no dead letters.")
        return
    table(("collection", "key", "sent", "message", "action"), [one.as_row() for one in told])
    print(f"{plural(moved, 'message')} {moving}, {len(told) - moved} left.")


def _of_platform(data: Path | None) -> "Queues":
    from local.dead_letters import Queues  # noqa: PLC0415

    ready = ready_file(data_directory(data))
    if "dead_letter_queue_url" not in ready:
        raise Failure("This platform keeps no dead letters of ingest.")
    return Queues(
        _sqs(
            endpoint_url=ready["s3_endpoint"],
            region_name=aws.REGION,
            aws_access_key_id=ready["access_key_id"],
            aws_secret_access_key=ready["secret_access_key"],
        ),
        ready["queue_url"],
        ready["dead_letter_queue_url"],
    )


def _of_stage(stage: str) -> "Queues":
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    from local.dead_letters import Queues  # noqa: PLC0415

    try:
        sqs = _sqs()
        names = (f"rag-{stage}-ingest", f"rag-{stage}-ingest-dead-letters")
        return Queues(sqs, *(sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in names))
    except (BotoCoreError, ClientError) as problem:
        hint = "Are AWS_PROFILE and AWS_REGION those of the stage's account?"
        raise Failure(f"The queues of {stage} cannot be found: {one_line(problem)}", hint=hint) from problem


def _sqs(**given: Any) -> Any:
    import boto3  # noqa: PLC0415 (0.4 s, which `rag --help` need not wait for)

    return boto3.client("sqs", **given)
