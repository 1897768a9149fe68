"""The real ingest handler in processes that can be killed: each delivery runs in a fork of one that has all imported.

Run as a program it reads a line of JSON for each delivery (`workers.Workers.deliver`), and writes
`{"pid"}` when it begins and `{"pid", "status"}` when it has ended: 0, all was acknowledged; 1, not all; -9, killed.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import resource
import select
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

ALL_DONE, NOT_ALL = 0, 1

# Shared with the forks: which of them talks with the parser's helper process, else 0.
talker = memoryview(mmap.mmap(-1, 4)).cast("i")


class Context:
    """What Lambda passes beside the event."""

    function_name = "ingest"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:ingest"
    aws_request_id = "1"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


def main() -> None:
    import boto3
    import openai  # noqa: F401 (imported once, for all forks)

    import rag.llm
    import rag.store.index
    from functions.ingest import handler
    from rag import wiring

    # The description of a service is read once, by whoever makes its first client.
    for service in ("s3", "sqs"):
        boto3.client(service)  # type: ignore[call-overload]
    rag.llm._everybodys_authorities()
    warm_parser()
    # A fork that collects garbage would copy the pages of all that stands there.
    gc.collect()
    gc.freeze()
    children: set[int] = set()
    # What a buffer held, `select` would not tell of.
    lines = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 (as long as the process)
    while True:
        if select.select([lines], [], [], 0.003 if children else None)[0]:
            line = lines.readline()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                deliver(handler.handler, json.loads(line))
            children.add(pid)
            tell({"pid": pid})
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            children.remove(pid)
            if talker[0] == pid:  # it ended in the middle: what it was to be told would be told to the next one
                wiring.parser().close()
                warm_parser()
                talker[0] = 0
            tell({"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def warm_parser() -> None:
    """Its helper process takes longer to start than all the rest of a delivery."""
    from rag import wiring

    with tempfile.NamedTemporaryFile() as file:
        file.write(b"warm")
        file.flush()
        wiring.parser().parse(Path(file.name), "warm.txt")


def tell(message: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def deliver(handler: Any, delivery: dict[str, Any]) -> None:
    """Never returns: the process ends with the delivery."""
    from rag import wiring
    from tests.integration.deployment import forget_wiring

    os.environ.update(delivery["environment"])
    forget_wiring()
    helper = wiring.parser()._helper
    if delivery["alone"]:  # one helper serves one worker at a time
        wiring.parser()._helper = None
    else:
        say_who_talks(helper)
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(
        silence if delivery.get("log") is None else os.open(delivery["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), 1
    )
    status = NOT_ALL
    limit_memory(delivery["memory_mib"])
    try:
        answer = handler(delivery["event"], Context(delivery["seconds"]))
        status = NOT_ALL if answer["batchItemFailures"] else ALL_DONE
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 (the process ends here, whatever it was)
        traceback.print_exc()
    os._exit(status)


def say_who_talks(helper: Any) -> None:
    run = helper.run

    def told(*arguments: Any) -> Any:
        talker[0] = os.getpid()
        result = run(*arguments)
        talker[0] = 0
        return result

    helper.run = told


def limit_memory(more_mib: int | None) -> None:
    """As Lambda's limit, but that allocations fail where Lambda would end the sandbox."""
    if more_mib is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more_mib * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
