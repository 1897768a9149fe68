"""Give moto back, after a restart, what the journal holds of S3."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from local.aws import inside_moto
from local.aws.exchange import ask, request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _typeshed.wsgi import WSGIApplication

    from local.aws.buckets import Buckets
    from local.aws.journal import Journal

_PROGRESS_EVERY = 1000


def replay(app: WSGIApplication, journal: Journal, buckets: Buckets, *, report: Callable[[str], None]) -> None:
    """Make every bucket, give it its versions in their old order, then its settings."""
    for name, headers, body in journal.buckets():
        _put(app, f"/{name}", body, headers)
    _restore_versions(journal, report)
    for bucket, name, query, body in journal.settings():
        if name == "notification":
            buckets.remember_rules(bucket, body)
        else:
            _put(app, f"/{bucket}?{name}{query and '&'}{query}", body)


def _restore_versions(journal: Journal, report: Callable[[str], None]) -> None:
    count, started = journal.version_count(), time.monotonic()
    for done, (version, content) in enumerate(journal.versions(), start=1):
        inside_moto.restore(version, content)
        if done % _PROGRESS_EVERY == 0 or done == count:
            report(f"restored {done} of {count} versions in {time.monotonic() - started:.1f} s")


def _put(app: WSGIApplication, target: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    reply = ask(app, request("s3", "PUT", target, headers=headers, body=body))
    if not reply.ok:
        raise RuntimeError(f"moto refused to take back {target}: {reply.status} {reply.body[:500]!r}")
