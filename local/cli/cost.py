"""`rag cost`: what a stage on AWS costs a month while nobody uses it."""

from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from sys import stderr
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local.cli.failure import Failure, UsageFailure
from local.cli.output import as_json, table
from local.cli.remote import AsJson, Given

if TYPE_CHECKING:
    from cdk.cost import Bill

EPILOG = """\b
Examples:
  rag cost --stage dev
  rag cost --stage prod --json | jq .usd
"""


def cost(
    ctx: typer.Context,
    *,
    stage: Annotated[str, typer.Option("--stage", metavar="NAME", help="dev, staging or prod.")],
    json: AsJson = False,
) -> int:
    """Show what a stage costs idle, a month.

    Computed from the synthesised templates and the dated list prices in cdk/prices.toml; asks nobody, needs no account.
    What is billed by use (requests, bytes, users) is named without a sum.
    """
    try:
        from cdk import cost as pricing  # noqa: PLC0415 (the CDK takes seconds to import, and is no part of the package)
        from cdk.stages import STAGES  # noqa: PLC0415
    except ImportError as problem:
        hint = "Run it in a clone of the repository: `uv run rag cost`."
        raise Failure(
            f"The stages are described in cdk/, which is not installed here ({problem}).", hint=hint
        ) from None
    names = [row.name for row in STAGES]
    if stage not in names:
        raise UsageFailure(f"There is no stage {stage}.", hint=f"There are {', '.join(names)}.")
    bill = pricing.idle(_templates()[stage])
    if json or (ctx.obj or Given()).json:
        print(as_json(_as_json(stage, bill, pricing.prices())))
    else:
        _tell(stage, bill, pricing.prices())
    return 0


def _templates() -> Any:
    from cdk.templates import synthesised  # noqa: PLC0415 (starts the CDK's engine)

    with TemporaryDirectory() as folder, redirect_stdout(stderr):
        return synthesised(Path(folder))


def _as_json(stage: str, bill: "Bill", prices: dict[str, Any]) -> dict[str, Any]:
    return {
        "stage": stage,
        "usd": round(bill.usd, 2),
        "as_of": str(prices["as_of"]),
        "region": prices["region"],
        "lines": [asdict(line) | {"usd": round(line.usd, 2)} for line in bill.lines],
        "by_use": bill.by_use,
        "unknown": bill.unknown,
    }


def _tell(stage: str, bill: "Bill", prices: dict[str, Any]) -> None:
    rows = sorted(bill.lines, key=lambda line: -line.usd)
    table(
        ("resource", "what", "quantity", "price", "USD a month"),
        [(line.resource, line.what, f"{line.quantity:g}", f"{line.price:.2f}", f"{line.usd:.2f}") for line in rows],
    )
    print(f"\n{stage} idle: {bill.usd:.2f} USD a month ({prices['region']}, list prices of {prices['as_of']})")
    print(f"Billed by use only: {', '.join(bill.by_use)}")
    if bill.unknown:
        print(f"Not in the table of prices, so not in the sum: {', '.join(bill.unknown)}")
