"""Secrets Manager, by its one call that functions make: no SDK, and nothing is kept that was rotated since.

Source: AWS Secrets Manager API reference, "GetSecretValue"; decision 14 says why not by the Lambda extension.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from urllib.parse import urlsplit

from rag import identity
from rag.errors import UnavailableError
from rag.signing import signed

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Secrets:
    """Reads from the endpoint as the role of this function."""

    endpoint: str
    region: str

    @classmethod
    def from_environment(cls) -> Secrets:
        """The region's endpoint, unless the SDKs' own variable names another."""
        region = os.environ.get("AWS_REGION", "")
        suffix = ".cn" if region.startswith("cn-") else ""
        return cls(os.environ.get("AWS_ENDPOINT_URL", f"https://secretsmanager.{region}.amazonaws.com{suffix}"), region)

    def get(self, secret: str) -> str:
        """Return the secret's string, by name or ARN; UnavailableError when it cannot be read."""
        status, body = self._ask(json.dumps({"SecretId": secret}).encode())
        if status != http.client.OK:
            msg = f"the secret {secret} cannot be read (status {status})"
            raise UnavailableError(msg)
        try:
            return str(json.loads(body)["SecretString"])
        except (ValueError, KeyError, TypeError) as error:
            msg = f"the secret {secret} holds no string"
            raise UnavailableError(msg) from error

    def password(self, secret: str) -> str:
        """Return the password that it holds: the `password` of a JSON object, as RDS keeps one, or else all of it."""
        text = self.get(secret)
        try:
            held = json.loads(text)
        except ValueError:
            return text
        if not isinstance(held, dict):
            return text
        if not isinstance(held.get("password"), str):
            msg = f"the secret {secret} is a JSON object without a password"
            raise UnavailableError(msg)
        return str(held["password"])

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        url = urlsplit(self.endpoint)
        headers = signed(
            {
                "host": url.netloc,
                "content-type": "application/x-amz-json-1.1",
                "x-amz-target": "secretsmanager.GetSecretValue",
            },
            body,
            service="secretsmanager",
            region=self.region,
            credentials=identity.credentials(os.environ),
            at=datetime.now(UTC),
        )
        connection = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_SECONDS)
        if url.scheme == "https":
            context = _everybodys_authorities()
            connection = http.client.HTTPSConnection(url.netloc, timeout=TIMEOUT_SECONDS, context=context)
        try:
            connection.request("POST", "/", body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            msg = "Secrets Manager does not answer"
            raise UnavailableError(msg) from error
        finally:
            connection.close()


@cache
def _everybodys_authorities() -> ssl.SSLContext:
    """The system's bundle, which takes 40 ms of a whole core to read: once, not for each secret."""
    return ssl.create_default_context()
