"""Which request is whose route."""

from __future__ import annotations

import pytest

from local.plan import Plan, Route, of_the_table


@pytest.fixture(scope="module")
def plan() -> Plan:
    return of_the_table()


@pytest.mark.parametrize(
    ("route", "method", "path", "parameters"),
    [
        ("GET /v1/documents", "GET", "/v1/documents", {}),
        ("GET /v1/documents", "POST", "/v1/documents", None),
        ("GET /v1/documents", "GET", "/v1/documents/", None),
        ("GET /v1/documents", "GET", "/v1/documentsx", None),
        ("ANY /openapi.json", "HEAD", "/openapi.json", {}),
        ("ANY /openapi.json", "GET", "/openapixjson", None),
        ("GET /v1/{kind}/{id}", "GET", "/v1/documents/a b", {"kind": "documents", "id": "a b"}),
        ("GET /v1/{kind}/{id}", "GET", "/v1/documents/a/b", None),
        ("GET /v1/{kind}/{id}", "GET", "/v1/documents/", None),
        ("ANY /{proxy+}", "PUT", "/a/b\nc", {"proxy": "a/b\nc"}),
        ("ANY /{proxy+}", "PUT", "/", {"proxy": ""}),
    ],
)
def test_a_request_is_a_routes_by_method_and_path(
    route: str, method: str, path: str, parameters: dict[str, str] | None
) -> None:
    allowed, _, pattern = route.partition(" ")
    assert Route(allowed, pattern, "query").parameters(method, path) == parameters


def test_words_go_before_variables_and_these_before_everything_else() -> None:
    paths = ["/{proxy+}", "/v1/{kind}/{id}", "/v1/{kind}/all", "/v1/documents/all"]
    ranked = sorted((Route("GET", path, "query") for path in paths), key=lambda route: route.weight)
    assert [route.path for route in ranked] == [*reversed(paths)]


def test_everything_but_what_is_public_asks_who_is_calling(plan: Plan) -> None:
    ranked = sorted(plan.routes, key=lambda route: route.weight)

    def found(method: str, path: str) -> Route:
        return next(route for route in ranked if route.parameters(method, path) is not None)

    assert not found("GET", "/health").authorized
    assert found("GET", "/healthy").authorized
    assert found("GET", "/health/").authorized
    assert (found("POST", "/v1/query").function, found("GET", "/v1/query").function) == ("answer", "query")


def test_queues_that_others_give_their_failures_to_are_made_first(plan: Plan) -> None:
    names = [queue.name for queue in plan.queues]
    for queue in plan.queues:
        assert queue.dead_letters is None or names.index(queue.dead_letters) < names.index(queue.name)
