"""A platform that is wired as a stage's templates say, not as the functions' table does.

    python -m tests.infrastructure.driven --templates FILE --data DIR --ready-file FILE

`--templates` is a JSON file of stack → template.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from local.platform import run
from tests.infrastructure.deployed import Deployed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", default="dev")
    for name in ("templates", "data", "ready-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    deployed = Deployed(options.stage, json.loads(options.templates.read_text()))
    run(options.data, ready_file=options.ready_file, plan=deployed.plan)


if __name__ == "__main__":
    main()
