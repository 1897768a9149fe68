"""The webhook: signed requests to one address of the operator's, and to no private place.

Source: Standard Webhooks 1.0.0 (https://github.com/standard-webhooks/standard-webhooks), "Signature scheme".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from functools import cache
from urllib.parse import urlsplit

from rag.errors import UnavailableError

TIMEOUT_SECONDS = 5.0
SECRET_PREFIX = "whsec_"  # noqa: S105 (what a secret of this kind begins with)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses of IPv4 in those of IPv6, by the ways of RFC 6052, 3056 and 4380: whom they reach decides another machine.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


class Webhook:
    """HTTPS to public addresses only; `local` is for a laptop, and allows plain HTTP to this very machine instead."""

    def __init__(self, url: str, secret: Callable[[], str], *, local: bool = False) -> None:
        self._url = urlsplit(url)
        self._secret = secret
        self._local = local

    def post(self, message_id: str, body: bytes) -> None:
        """Send one message; UnavailableError unless it is answered by a status of 200 to 299 in time.

        No redirect is followed. The receiver may get a message more than once, with the same id.
        """
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "rag-webhook",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._secret(), message_id, timestamp, body),
        }
        target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            connection = self._connection()
            try:
                connection.request("POST", target, body, headers)
                status = connection.getresponse().status
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            msg = f"the webhook cannot be reached: {type(error).__name__}: {error}"
            raise UnavailableError(msg) from error
        if not http.client.OK <= status < http.client.MULTIPLE_CHOICES:
            msg = f"the webhook answered {status}"
            raise UnavailableError(msg)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._local and self._url.scheme == "http":
            return _Pinned(host, port or 80, timeout=TIMEOUT_SECONDS, to=_address(host, port or 80, _is_this_machine))
        if self._url.scheme != "https":
            msg = "its address does not begin with https://"
            raise ValueError(msg)
        return _PinnedTLS(host, port or 443, timeout=TIMEOUT_SECONDS, to=_address(host, port or 443, is_public))


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign a message: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for: base64 after `whsec_`, else its own bytes."""
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return secret.encode()


def is_public(address: Address) -> bool:
    """Whether the address is one of the internet's, which nobody inside of the network has."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _is_this_machine(address: Address) -> bool:
    return address.is_loopback


def _address(host: str, port: int, allowed: Callable[[Address], bool]) -> tuple[str, int]:
    """Look the host up once, so that what was checked is what is reached; ValueError when that may not be."""
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not found or not all(allowed(ipaddress.ip_address(one)) for one in found):
        msg = f"{host} is at a place that a webhook may not be"
        raise ValueError(msg)
    return min(found), port


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Pinned(http.client.HTTPConnection):
    """Connects to this address, whatever the name of the host is said to mean by now."""

    def __init__(self, host: str, port: int, *, timeout: float, to: tuple[str, int]) -> None:
        super().__init__(host, port, timeout=timeout)
        self._to = to

    def connect(self) -> None:
        self.sock = socket.create_connection(self._to, self.timeout)


class _PinnedTLS(_Pinned):
    """The certificate must be the host's."""

    default_port = 443

    def connect(self) -> None:
        super().connect()
        self.sock = _trust().wrap_socket(self.sock, server_hostname=self.host)
