"""Give moto back, after a restart, what the journal holds of S3."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from local.aws import inside_moto
from local.aws.buckets import passing_version
from local.aws.exchange import ask, hiding_form, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

    from local.aws.buckets import Buckets
    from local.aws.journal import Journal, Version

_PROGRESS_EVERY = 1000
_ENABLED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


def replay(app: WSGIApplication, journal: Journal, buckets: Buckets, *, report: Callable[[str], None]) -> None:
    """Make every bucket, then every version in its old order, then the settings, which might refuse a version."""
    settings = journal.settings()
    for name, headers, body in journal.buckets():
        _put(app, f"/{name}", body, headers)
    for bucket, name, _, _ in settings:
        if name == "versioning":
            _put(app, f"/{bucket}?versioning", _ENABLED)
    _replay_versions(app, journal, report)
    for bucket, name, query, body in settings:
        if name == "notification":
            buckets.remember_rules(bucket, body)
        else:
            _put(app, f"/{bucket}?{name}{query and '&'}{query}", body)


def _replay_versions(app: WSGIApplication, journal: Journal, report: Callable[[str], None]) -> None:
    count, started = journal.version_count(), time.monotonic()
    for done, (version, content) in enumerate(journal.versions(), start=1):
        _make(app, version, content)
        if done % _PROGRESS_EVERY == 0 or done == count:
            report(f"replayed {done} of {count} versions in {time.monotonic() - started:.1f} s")


def _make(app: WSGIApplication, version: Version, content: bytes) -> None:
    target = quote(f"/{version.bucket}/{version.key}")
    if not version.is_marker:
        _put(app, target, content, {name: value for name, value in version.headers.items() if value})
    elif inside_moto.versions(version.bucket, version.key):
        ask(app, request("s3", "DELETE", target))
    else:
        with passing_version(app, version.bucket, version.key):
            ask(app, request("s3", "DELETE", target))
    inside_moto.stamp(inside_moto.versions(version.bucket, version.key)[-1], version)


def _put(app: WSGIApplication, target: str, body: bytes, headers: object = None) -> None:
    reply = ask(app, hiding_form(request("s3", "PUT", target, headers=headers, body=body)))  # type: ignore[arg-type]
    if not reply.ok:
        raise RuntimeError(f"moto refused to take back {target}: {reply.status} {reply.body[:500]!r}")
