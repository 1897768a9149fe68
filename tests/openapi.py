"""`poe openapi`: write docs/openapi.json anew, as the application describes itself."""

from __future__ import annotations

import json
from pathlib import Path

from functions.query.api import app

FILE = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def described() -> str:
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(described())
