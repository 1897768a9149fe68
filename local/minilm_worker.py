"""One process with the model: token ids in as JSON lines, vectors out as float32.

It ends at the end of its input, so a server that was killed leaves none behind.
"""

from __future__ import annotations

import json
import sys
from typing import BinaryIO

from local.minilm import MiniLM
from local.wordpieces import model_directory

READY = b"\n"


def serve(model: MiniLM, requests: BinaryIO, replies: BinaryIO) -> None:
    """Say `READY`; then each line is a list of texts (lists of ids), each reply 384 little-endian float32 per text."""
    replies.write(READY)
    replies.flush()
    for line in requests:
        replies.write(model.embed(json.loads(line)).astype("<f4", copy=False).tobytes())
        replies.flush()


if __name__ == "__main__":
    try:
        serve(MiniLM(model_directory()), sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        sys.exit(0)
