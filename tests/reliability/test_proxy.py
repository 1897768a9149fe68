"""The proxy does to a conversation what is asked of it: what the other tests rest on."""

from __future__ import annotations

import os
import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.reliability import proxy as proxies
from tests.reliability.proxy import SEGMENT_BYTES, Edge, Proxy, proxying

pytestmark = pytest.mark.faults_fast


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        with proxying(server.server_address[1]) as proxied:
            yield proxied
        server.shutdown()
        thread.join()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def received(client: socket.socket) -> bytes:
    """What came before the reset."""
    got = b""
    try:
        while piece := client.recv(100):
            got += piece
    except ConnectionResetError:
        return got
    raise AssertionError(got)


def test_it_passes_everything_and_numbers_who_speaks(proxy: Proxy) -> None:
    edges: list[Edge] = []
    proxy.watch = lambda edge: not edges.append(edge)  # type: ignore[func-returns-value]
    with connect(proxy) as client:
        for word in (b"one", b"two"):
            client.sendall(word)
            assert client.recv(10) == word
    assert [(edge.direction, edge.data) for edge in edges] == [
        ("request", b"one"), ("reply", b"one"), ("request", b"two"), ("reply", b"two"),
    ]  # fmt: skip


def test_a_cut_ends_with_a_reset_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.cut_after = 4
    with connect(proxy) as client:
        client.sendall(b"abcdefgh")
        assert received(client) in {b"abcd", b""}  # a reset may overtake what was sent before it


def test_latency_and_bandwidth_take_their_time(proxy: Proxy) -> None:
    proxy.latency_seconds = 0.1
    with connect(proxy) as client:
        began = time.monotonic()
        client.sendall(b"x")
        assert client.recv(10) == b"x"
        assert time.monotonic() - began >= 0.2
        proxy.latency_seconds, proxy.bytes_per_second = 0.0, 1000
        began = time.monotonic()
        client.sendall(b"x" * 200)
        left = 200
        while left:
            left -= len(client.recv(left))
        assert 0.15 <= time.monotonic() - began < 2


def test_a_lost_segment_is_late_and_all_that_is_behind_it_waits(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "RETRANSMISSION_SECONDS", 0.2)
    proxy.loss, proxy.chance = 0.2, random.Random(1)  # which draws less than that first, and more then
    with connect(proxy) as client:
        began = time.monotonic()
        client.sendall(b"x")
        assert client.recv(10) == b"x"
        assert time.monotonic() - began >= 0.2
        assert proxy.lost == 1
        monkeypatch.setattr(proxies, "RETRANSMISSION_SECONDS", 0.001)
        proxy.loss, said = 0.5, os.urandom(20 * SEGMENT_BYTES)
        client.sendall(said)
        got = b""
        while len(got) < len(said):
            got += client.recv(len(said))
        assert got == said
        assert proxy.lost > 10
        lost = proxy.lost
        proxy.healthy()
        client.sendall(said)
        assert client.recv(10)
        assert proxy.lost == lost


def test_a_silent_one_says_nothing_until_it_is_healthy(proxy: Proxy) -> None:
    proxy.silent = True
    with connect(proxy) as client:
        client.settimeout(0.2)
        client.sendall(b"x")
        with pytest.raises(TimeoutError):
            client.recv(10)
        proxy.healthy()
        client.settimeout(5)
        assert client.recv(10) == b"x"


def test_a_half_closed_connection_ends_what_the_server_says(proxy: Proxy) -> None:
    proxy.half_closed = True
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(10) == b""


def test_one_that_refuses_takes_no_connection_until_it_accepts_again(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(10) == b"x"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.accept()
    with connect(proxy) as client:
        client.sendall(b"y")
        assert client.recv(10) == b"y"
