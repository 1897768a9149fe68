"""Give moto back, after a restart, what the journal holds of S3."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from local.aws import inside_moto
from local.aws.exchange import ask, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

    from local.aws.buckets import Buckets
    from local.aws.journal import Journal

_PROGRESS_EVERY = 1000


def replay(app: WSGIApplication, journal: Journal, buckets: Buckets, *, report: Callable[[str], None]) -> None:
    """Make every bucket, give it its versions in their old order, then its settings."""
    for name, headers, body in journal.buckets():
        ask(app, request("s3", "PUT", f"/{name}", headers=headers, body=body))
    _restore_versions(journal, report)
    for bucket, name, query, body in journal.settings():
        if name == "notification":
            buckets.remember_rules(bucket, body)
        else:
            target = f"/{bucket}?{name}{query and '&'}{query}"
            reply = ask(app, request("s3", "PUT", target, body=body))
            # Such as an ACL that stood in headers: losing it is better than not starting.
            if not reply.ok:
                report(f"lost {target}: moto answered {reply.status}")


def _restore_versions(journal: Journal, report: Callable[[str], None]) -> None:
    count, started = journal.version_count(), time.monotonic()
    for done, (version, content) in enumerate(journal.versions(), start=1):
        inside_moto.restore(version, content)
        if done % _PROGRESS_EVERY == 0 or done == count:
            report(f"restored {done} of {count} versions in {time.monotonic() - started:.1f} s")
