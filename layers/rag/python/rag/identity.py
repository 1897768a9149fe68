"""Who this function is to AWS: the credentials of its role, where Lambda puts them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from rag.errors import UnavailableError
from rag.signing import Credentials

TIMEOUT_SECONDS = 2.0


def credentials(environment: Mapping[str, str]) -> Credentials:
    """Return those of the environment or, where a snapshot must not hold any (SnapStart), of the endpoint on localhost.

    Asked for at each connection, of which there are few, so that none can be kept longer than it is valid.
    UnavailableError when there are none. Source: Lambda developer guide, "Activating and managing Lambda SnapStart".
    """
    try:
        if "AWS_CONTAINER_CREDENTIALS_FULL_URI" in environment and "AWS_ACCESS_KEY_ID" not in environment:
            return _from_endpoint(environment)
        return Credentials(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            environment.get("AWS_SESSION_TOKEN", ""),
        )
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        msg = f"this function's AWS credentials cannot be had: {type(error).__name__}"
        raise UnavailableError(msg) from error


def _from_endpoint(environment: Mapping[str, str]) -> Credentials:
    url = urlsplit(environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
    connection = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_SECONDS)
    try:
        path = f"{url.path}?{url.query}" if url.query else url.path
        token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        connection.request("GET", path, headers={"Authorization": token})
        found = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
