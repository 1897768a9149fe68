"""Secrets Manager: moto's as it is, and every secret on disk before the client hears of it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from local.aws import inside_moto
from local.aws.exchange import Environ, Reply, ask, request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from local.aws.journal import Journal


class Vault:
    def __init__(self, app: WSGIApplication, journal: Journal) -> None:
        self._app, self._journal = app, journal
        self._turn = threading.Lock()
        self._journalled: dict[str, str] = {}

    def answer(self, environ: Environ) -> Reply:
        """Reply when all that the request changed is durable."""
        with self._turn:
            reply = ask(self._app, environ)
            self._settle()
            return reply

    def _settle(self) -> None:
        states = inside_moto.secret_states()
        changed = {name: state for name, state in states.items() if self._journalled.get(name) != state}
        removed = self._journalled.keys() - states.keys()
        if changed or removed:
            with self._journal.commit() as journal:
                for name, state in changed.items():
                    journal.save_secret(name, state)
                for name in removed:
                    journal.remove_secret(name)
            self._journalled = states

    def replay(self) -> None:
        """Give moto the secrets of the journal."""
        headers = {"X-Amz-Target": "secretsmanager.CreateSecret", "Content-Type": "application/x-amz-json-1.1"}
        for name, state in self._journal.secrets().items():
            body = json.dumps({"Name": name, "SecretString": "-"}).encode()
            ask(self._app, request("secretsmanager", "POST", "/", headers=headers, body=body))
            inside_moto.restore_secret(name, state)
        self._journalled = inside_moto.secret_states()
