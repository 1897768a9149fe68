"""`python -m local.aws --data DIR --port N`: serve until SIGTERM or SIGINT, on 127.0.0.1 only."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from pathlib import Path

from local.aws import EVENTS, kept_credentials
from local.aws.gateway import Gateway
from local.aws.journal import Journal
from local.aws.server import listening


def main() -> None:
    """Serve; the port is open only once everything kept is back, so whoever can connect may work."""
    parser = argparse.ArgumentParser(
        prog="python -m local.aws", description="S3, SQS, EventBridge and Secrets Manager on this machine."
    )
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps everything (mode 0700)")
    parser.add_argument("--port", type=int, required=True, help="port of 127.0.0.1")
    options = parser.parse_args()
    os.umask(0o077)
    # What is acknowledged is durable, so there is nothing to tidy up.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    gateway = Gateway(Journal(options.data), kept_credentials(options.data), options.data / EVENTS)
    listening(options.port, gateway).serve_forever()


if __name__ == "__main__":
    main()
