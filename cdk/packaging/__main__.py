"""Build every layer and every function's folder as they are deployed, and say how large they are.

What was built lies in build/packages, in folders named by their fingerprints; what has not changed is not built again.
`cdk deploy` builds the same by itself. Ends with 1 when a function with its layers is larger than it may be.
"""

from __future__ import annotations

import argparse
import json
import sys

from cdk.packaging import sizes
from cdk.packaging.programs import PackagingError
from cdk.packaging.recipe import Platform

_EPILOG = """examples:
  python -m cdk.packaging                      # what is deployed (arm64)
  python -m cdk.packaging --platform x86       # its twin that tests run on a laptop
  python -m cdk.packaging --json | jq '.deployed[] | {function, size}'

needs `uv` and Python 3.13 (`uv python install 3.13`), no Docker and no account; wheels come from the package index
by the hashes in uv.lock.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cdk.packaging",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    platforms = {platform.name.lower(): platform for platform in Platform}
    parser.add_argument("--platform", choices=platforms, default="arm", help="what the wheels are for (default arm)")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes")
    options = parser.parse_args()
    try:
        found = sizes.measured(platforms[options.platform])
    except PackagingError as error:
        sys.exit(str(error))
    print(json.dumps(sizes.as_json(found), indent=2) if options.json else sizes.table(found))  # noqa: T201 (a program)
    if large := found.too_large():
        sys.exit(f"too large: {', '.join(one.function for one in large)}")


if __name__ == "__main__":
    main()
