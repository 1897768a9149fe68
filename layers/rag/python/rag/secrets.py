"""Secrets, by the AWS Parameters and Secrets extension's protocol on localhost: no SDK, cached by the extension.

Source: AWS Secrets Manager user guide, "Use AWS Secrets Manager secrets in AWS Lambda functions".
"""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from urllib.parse import quote

from rag.errors import UnavailableError

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Secrets:
    """Reads through the extension at `port`, with the session token that the platform gave this sandbox."""

    port: int
    token: str

    @classmethod
    def from_environment(cls) -> Secrets:
        port = int(os.environ.get("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "2773"))
        return cls(port, os.environ.get("AWS_SESSION_TOKEN", ""))

    def get(self, secret: str) -> str:
        """Return the secret's string, by id or ARN; UnavailableError when it cannot be read."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(
                "GET",
                f"/secretsmanager/get?secretId={quote(secret, safe='')}",
                headers={"X-Aws-Parameters-Secrets-Token": self.token},
            )
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            msg = "the secrets extension does not answer"
            raise UnavailableError(msg) from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            msg = f"the secret {secret} cannot be read (status {response.status})"
            raise UnavailableError(msg)
        return _string(secret, body)


def _string(secret: str, body: bytes) -> str:
    try:
        return str(json.loads(body)["SecretString"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"the secret {secret} holds no string"
        raise UnavailableError(msg) from error
