"""Each sample request of the query function is answered by it."""

from __future__ import annotations

import pytest

from tests.integration.deployment import EVENTS, Context, Deployment, sample

ANSWERED = {
    "query/ask.json": 200,
    "query/create_document.json": 201,
    "query/health.json": 200,
    "query/list_documents.json": 200,
    "query/search.json": 200,
}


def test_every_sample_request_is_known() -> None:
    assert {f"query/{path.name}" for path in (EVENTS / "query").iterdir()} == set(ANSWERED)


@pytest.mark.parametrize(("name", "status"), ANSWERED.items())
def test_a_sample_request_is_answered(deployment: Deployment, name: str, status: int) -> None:
    from functions.query.handler import handler

    event = sample(name)
    if "authorizer" in event["requestContext"]:
        event["requestContext"]["authorizer"]["tenant_id"] = str(deployment.tenant)
    with deployment.function("rag_query"):
        assert handler(event, Context())["statusCode"] == status
