"""The process of the function that streams: `streaming.sh` starts it in the place of Lambda's own runtime."""

from __future__ import annotations

from functions.query import runtime


def load() -> runtime.Handler:
    """Import the handler here, so that an import that fails is reported as an error of the initialisation."""
    from functions.query.streaming import handler  # noqa: PLC0415

    return handler


if __name__ == "__main__":
    runtime.run(load)
