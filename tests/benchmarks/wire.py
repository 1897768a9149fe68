"""Round trips, counted where they happen: a relay on loopback between a function and what it talks to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_CLIENT, _SERVER = "client", "server"


class Tap:
    """Passes bytes on to `port`; `round_trips` is how often the client spoke after the server had."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.round_trips = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        spoke = [_SERVER]
        with client, server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pass_on, args=(server, client, _SERVER, spoke), daemon=True)
            back.start()
            self._pass_on(client, server, _CLIENT, spoke)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket, who: str, spoke: list[str]) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                with self._counting:
                    self.round_trips += who == _CLIENT and spoke[0] == _SERVER
                    spoke[0] = who
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)
