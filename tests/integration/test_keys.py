"""Administrators manage their tenant's API keys through the API, on a real database."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from rag import calling
from rag.types import Caller
from tests.integration.deployment import Context, Deployment, Reply, presenting

pytestmark = pytest.mark.slow


def ask(deployment: Deployment, method: str, path: str = "", body: Any = None, **event: Any) -> Reply:
    asked = {"principal": f"key:{deployment.key[4:12]}", **event}
    return deployment.ask(method, f"/v1/keys{path}", body, **asked)


def made(deployment: Deployment, **body: Any) -> Any:
    reply = ask(deployment, "POST", "", {"name": "a key"} | body)
    assert reply.status == 201, reply.raw
    return reply.json


def listed(deployment: Deployment, **event: Any) -> dict[str, Any]:
    reply = ask(deployment, "GET", **event)
    assert reply.status == 200
    return {key["id"]: key for key in reply.json["keys"]}


def who(deployment: Deployment, api_key: str) -> Caller | None:
    """As whom the authorizer lets this key in; None when it does not."""
    from functions.authorize.handler import handler

    with deployment.function("rag_authorize"):
        try:
            return calling.caller(handler(presenting(("x-api-key", api_key)), Context())["context"])
        except Exception as refused:
            if str(refused) == "Unauthorized":
                return None
            raise


def administer(deployment: Deployment, statement: str, *values: Any) -> None:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        assert connection.execute(statement.encode(), values).rowcount >= 1


def in_seconds(told: str) -> float:
    return (datetime.fromisoformat(told) - datetime.now(UTC)).total_seconds()


def test_a_new_key_is_let_in_as_what_it_was_made_for(deployment: Deployment) -> None:
    key = made(
        deployment,
        name="  nightly import ",
        role="writer",
        collections=["manuals", "staff", "manuals"],
        groups=["finance"],
        expires_in_days=30,
    )
    assert key["api_key"].startswith(f"{key['prefix']}.")
    assert (key["name"], key["collections"]) == ("nightly import", ["manuals", "staff"])
    assert in_seconds(key["expires_at"]) == pytest.approx(30 * 86_400, abs=60)
    assert who(deployment, key["api_key"]) == Caller(
        deployment.tenant, f"key:{key['id']}", "writer", ("manuals", "staff"), ("finance",)
    )


def test_the_secret_is_in_one_answer_and_nowhere_else(
    deployment: Deployment, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    key = made(deployment, name="importer")
    shown = listed(deployment)
    assert shown[key["id"]] == {name: value for name, value in key.items() if name != "api_key"}
    assert shown[key["id"]]["created_by"] == f"key:{deployment.key[4:12]}"
    assert all("api_key" not in each for each in shown.values())
    secret = key["api_key"].partition(".")[2]
    logged = str([vars(record) for record in caplog.records]) + "".join(capsys.readouterr())
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        [(stored,)] = connection.execute("select string_agg(k::text, ' ') from api_keys k")
    assert key["id"] in stored
    assert secret not in str(stored) + str(shown) + logged


def test_a_request_that_names_itself_makes_one_key_and_shows_it_once(deployment: Deployment) -> None:
    for path in ("", f"/{deployment.key[4:12]}/rotate"):
        name = {"headers": {"idempotency-key": f"once {path}".replace(" ", "-"), "content-type": "application/json"}}
        body = {"name": "once"} if path == "" else {}
        first, again = (ask(deployment, "POST", path, body, **name, multiValueHeaders=None) for _ in range(2))
        secret = first.json["api_key"].partition(".")[2]
        assert (first.status, again.status) == (201, 409)
        with psycopg.connect(deployment.database.superuser_dsn()) as connection:
            [(kept,)] = connection.execute("select string_agg(t::text, ' ') from idempotent_requests t")
        assert secret not in again.raw["body"] + str(kept)
        assert secret.encode().hex() not in str(kept)
    assert len(listed(deployment)) == 3


def test_a_key_ends_when_it_was_said_to(deployment: Deployment) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    key = made(deployment, expires_at=ends.isoformat())
    assert who(deployment, key["api_key"])
    administer(deployment, "update api_keys set expires_at = now() where id = %s", key["id"])
    assert who(deployment, key["api_key"]) is None
    assert listed(deployment)[key["id"]]["status"] == "expired"


WRONG: list[dict[str, Any]] = [
    {"name": ""},
    {"name": " "},
    {"name": "a\nb"},
    {"name": "a\0b"},
    {"name": "\ud800"},
    {"name": "x" * 201},
    {"role": "owner"},
    {"collections": []},
    {"collections": ["Manuals"]},
    {"collections": ["../x"]},
    {"collections": [None]},
    {"collections": [f"c{n}" for n in range(51)]},
    {"groups": [""]},
    {"groups": ["a\0b"]},
    {"groups": None},
    {"groups": [f"g{n}" for n in range(21)]},
    {"expires_in_days": 0},
    {"expires_in_days": 10**9},
    {"expires_at": "2020-01-01T00:00:00Z"},
    {"expires_at": "9999-12-31T23:59:59Z"},
    {"expires_at": (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None).isoformat()},
    {"expires_in_days": 1, "expires_at": "2030-01-01T00:00:00Z"},
    {"tenant_id": str(uuid.uuid4())},
    {"digest": "x"},
]


@pytest.mark.parametrize("body", WRONG, ids=str)
def test_what_cannot_be_a_key_is_refused(deployment: Deployment, body: dict[str, Any]) -> None:
    assert ask(deployment, "POST", "", {"name": "a key"} | body).status == 422
    assert list(listed(deployment)) == [deployment.key[4:12]]


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_only_administrators_manage_keys(deployment: Deployment, role: str) -> None:
    own = f"/{deployment.key[4:12]}"
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", own), ("POST", f"{own}/rotate")):
        assert ask(deployment, method, path, {"name": "mine"}, role=role).status == 403
    assert len(listed(deployment)) == 1


def test_a_user_who_is_an_administrator_manages_keys_too(deployment: Deployment) -> None:
    user = {"principal": "user:6b1f0c7e"}
    key = ask(deployment, "POST", "", {"name": "by a user", "role": "admin"}, **user).json
    assert key["created_by"] == "user:6b1f0c7e"
    assert ask(deployment, "DELETE", f"/{key['id']}", **user).status == 200
    # Who is let in without a key can always make another one.
    assert ask(deployment, "DELETE", f"/{deployment.key[4:12]}", **user).json["status"] == "revoked"
    assert who(deployment, deployment.key) is None


def test_a_revoked_key_is_refused_at_once_and_stays_revoked(deployment: Deployment) -> None:
    key = made(deployment)
    assert who(deployment, key["api_key"])
    first = ask(deployment, "DELETE", f"/{key['id']}")
    assert (first.status, first.json["status"]) == (200, "revoked")
    assert who(deployment, key["api_key"]) is None
    assert ask(deployment, "DELETE", f"/{key['id']}").json == first.json


def test_the_last_admin_key_is_not_revoked_by_a_key(deployment: Deployment) -> None:
    own = deployment.key[4:12]
    made(deployment, role="writer")
    made(deployment, role="admin", collections=["manuals"])  # cannot manage the others
    refused = ask(deployment, "DELETE", f"/{own}")
    assert refused.status == 409
    assert "create another" in refused.json["detail"]
    assert who(deployment, deployment.key)
    second = made(deployment, role="admin")
    assert ask(deployment, "DELETE", f"/{own}").status == 200
    assert ask(deployment, "DELETE", f"/{second['id']}").status == 409


def test_two_who_revoke_each_other_leave_one(deployment: Deployment) -> None:
    from rag.errors import ConflictError
    from rag.store.database import Database
    from rag.store.keyring import Keyring

    pair = [deployment.key[4:12], made(deployment, role="admin")["id"]]
    database = Database(deployment.database.dsn("rag_query"), lambda: "")
    keyring = Keyring(database)

    def end(other: str) -> str:
        caller = Caller(deployment.tenant, f"key:{pair[1 - pair.index(other)]}", "admin")
        try:
            return keyring.revoke(caller, other).status
        except ConflictError:
            return "refused"

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(end, pair)) == ["refused", "revoked"]
    database.close()


def test_a_rotated_key_lives_beside_its_successor_until_it_ends(deployment: Deployment) -> None:
    old = made(deployment, role="writer", collections=["manuals"], groups=["finance"], expires_in_days=10)
    administer(deployment, "update api_keys set created_at = created_at - interval '5 days'")
    reply = ask(deployment, "POST", f"/{old['id']}/rotate")
    new = reply.json
    assert reply.status == 201
    same = ("name", "role", "collections", "groups")
    assert [new[name] for name in same] == [old[name] for name in same]
    assert in_seconds(new["expires_at"]) == pytest.approx(10 * 86_400, abs=60)
    both = [who(deployment, key["api_key"]) for key in (old, new)]
    assert [each and each.principal for each in both] == [f"key:{old['id']}", f"key:{new['id']}"]
    shown = listed(deployment)[old["id"]]
    assert (shown["status"], shown["replaced_by"]) == ("live", new["id"])
    assert in_seconds(shown["expires_at"]) == pytest.approx(86_400, abs=60)


OWN = {"id", "digest", "created_at", "created_by", "expires_at", "last_used_at", "revoked_at", "replaced_by"}


def test_whatever_limits_a_key_limits_its_successor(deployment: Deployment) -> None:
    old = made(deployment, role="writer", collections=["manuals"], groups=["finance"], expires_in_days=10)
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        described = connection.execute(
            "select attname from pg_attribute where attrelid = 'api_keys'::regclass and attnum > 0 and not attisdropped"
        )
        columns = {name for (name,) in described} - OWN
        limits = sorted(columns - {"tenant_id", "name", "role", "collections", "groups", "lifetime"})
        for number, name in enumerate(limits, 7):
            connection.execute(f"update api_keys set {name} = {number} where id = %s".encode(), [old["id"]])
    new = ask(deployment, "POST", f"/{old['id']}/rotate").json
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        both = [
            connection.execute(
                f"select {', '.join(sorted(columns))} from api_keys where id = %s".encode(), [each["id"]]
            )
            for each in (old, new)
        ]
        first, second = (rows.fetchone() for rows in both)
    assert limits
    assert first == second
    assert first is not None
    assert None not in first


def test_a_rotation_without_overlap_ends_the_old_key_at_once(deployment: Deployment) -> None:
    new = ask(deployment, "POST", f"/{deployment.key[4:12]}/rotate", {"overlap_hours": 0}).json
    assert who(deployment, deployment.key) is None
    assert who(deployment, new["api_key"]) == Caller(deployment.tenant, f"key:{new['id']}", "admin")
    assert new["expires_at"] is None


def test_an_overlap_never_prolongs_a_key(deployment: Deployment) -> None:
    old = made(deployment, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    ask(deployment, "POST", f"/{old['id']}/rotate", {"overlap_hours": 720})
    assert in_seconds(listed(deployment)[old["id"]]["expires_at"]) < 3601


def test_a_key_has_one_successor_at_a_time(deployment: Deployment) -> None:
    old = made(deployment)
    first = ask(deployment, "POST", f"/{old['id']}/rotate").json
    again = ask(deployment, "POST", f"/{old['id']}/rotate")
    assert again.status == 409
    assert first["id"] in again.json["detail"]
    assert ask(deployment, "DELETE", f"/{first['id']}").status == 200
    assert ask(deployment, "POST", f"/{old['id']}/rotate").status == 201


def test_a_rotated_key_is_no_reason_to_revoke_its_successor(deployment: Deployment) -> None:
    new = ask(deployment, "POST", f"/{deployment.key[4:12]}/rotate").json
    assert ask(deployment, "DELETE", f"/{new['id']}").status == 409
    assert ask(deployment, "DELETE", f"/{deployment.key[4:12]}").status == 200


def test_a_key_that_has_ended_is_not_rotated(deployment: Deployment) -> None:
    old = made(deployment)
    ask(deployment, "DELETE", f"/{old['id']}")
    refused = ask(deployment, "POST", f"/{old['id']}/rotate")
    assert (refused.status, "revoked" in refused.json["detail"]) == (409, True)


@pytest.mark.parametrize("hours", [-1, 721, 0.5, "x", None])
def test_an_overlap_is_hours_of_a_month(deployment: Deployment, hours: Any) -> None:
    reply = ask(deployment, "POST", f"/{deployment.key[4:12]}/rotate", {"overlap_hours": hours})
    assert reply.status == 422


def test_who_is_limited_to_collections_manages_and_gives_away_no_more(deployment: Deployment) -> None:
    limited = {"collections": '["manuals", "staff"]', "principal": "key:abcdefgh"}
    beyond = [deployment.key[4:12], made(deployment, collections=["manuals", "board"])["id"]]
    within = made(deployment, collections=["manuals"])["id"]
    assert list(listed(deployment, **limited)) == [within]
    for key_id in beyond:
        absent = ask(deployment, "DELETE", "/00000000", **limited).json["detail"]
        for method, path in (("DELETE", f"/{key_id}"), ("POST", f"/{key_id}/rotate")):
            reply = ask(deployment, method, path, **limited)
            assert (reply.status, reply.json["detail"]) == (404, absent.replace("00000000", key_id))
    refused = ask(deployment, "POST", "", {"name": "more", "collections": ["manuals", "board"]}, **limited)
    assert (refused.status, "board" in refused.json["detail"]) == (403, True)
    same = ask(deployment, "POST", "", {"name": "as much", "role": "admin"}, **limited).json
    assert same["collections"] == ["manuals", "staff"]
    assert ask(deployment, "POST", f"/{within}/rotate", **limited).status == 201


def test_the_database_gives_away_no_more_than_a_transaction_has(deployment: Deployment) -> None:
    limited, unlimited = made(deployment, collections=["manuals"])["id"], deployment.key[4:12]
    insert = "insert into api_keys (tenant_id, id, digest, role, collections) values (%s, %s, sha256(''), 'reader', %s)"
    with psycopg.connect(deployment.database.dsn("rag_query"), autocommit=True) as connection:
        for name, value in (("tenant", str(deployment.tenant)), ("identities", "*"), ("collections", "{manuals}")):
            connection.execute(f"select set_config('app.{name}', %s, false)", [value])
        for number, beyond in enumerate((None, ["staff"], ["manuals", "staff"])):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(insert.encode(), [deployment.tenant, f"beyond{number:02}", beyond])
        connection.execute(insert.encode(), [deployment.tenant, "within00", ["manuals"]])
        for key_id, changed in ((unlimited, 0), (limited, 1)):
            revoked = connection.execute("update api_keys set revoked_at = now() where id = %s", [key_id])
            assert revoked.rowcount == changed


def test_a_foreign_key_is_an_absent_one(deployment: Deployment) -> None:
    _, theirs = deployment.tenants.create("second")
    for method, end in (("DELETE", ""), ("POST", "/rotate")):
        foreign, absent = (ask(deployment, method, f"/{key_id}{end}") for key_id in (theirs[4:12], "00000000"))
        assert (foreign.status, absent.status) == (404, 404)
        assert foreign.json["detail"].replace(theirs[4:12], "00000000") == absent.json["detail"]
    assert who(deployment, theirs)
    assert theirs[4:12] not in listed(deployment)


def test_a_tenant_has_fifty_live_keys_and_those_that_are_rotated_out(deployment: Deployment) -> None:
    administer(
        deployment,
        "insert into api_keys (tenant_id, id, digest, role) "
        "select %s, lpad(n::text, 8, '0'), sha256(n::text::bytea), 'reader' from generate_series(1, 49) n",
        deployment.tenant,
    )
    refused = ask(deployment, "POST", "", {"name": "one more"})
    assert (refused.status, "50" in refused.json["detail"]) == (409, True)
    assert ask(deployment, "POST", "/00000001/rotate").status == 201
    assert ask(deployment, "POST", "", {"name": "one more"}).status == 409
    ask(deployment, "DELETE", "/00000002")
    assert ask(deployment, "POST", "", {"name": "one more"}).status == 201


def test_live_keys_stand_before_those_that_have_ended(deployment: Deployment) -> None:
    ended = made(deployment, name="ended")["id"]
    ask(deployment, "DELETE", f"/{ended}")
    live = made(deployment, name="live")["id"]
    assert list(listed(deployment)) == [live, deployment.key[4:12], ended]


def test_the_api_never_reads_what_a_secret_is_compared_with_nor_changes_what_a_key_may(deployment: Deployment) -> None:
    with psycopg.connect(deployment.database.dsn("rag_query"), autocommit=True) as connection:
        connection.execute("select set_config('app.tenant', %s, false)", [str(deployment.tenant)])
        assert connection.execute("select count(*) from (select id from api_keys) k").fetchone() == (1,)
        for statement in (
            "select digest from api_keys",
            "update api_keys set digest = sha256('')",
            "update api_keys set role = 'admin'",
            "update api_keys set collections = null",
            "update api_keys set requests_per_minute = 0",
            "update api_keys set tokens_per_day = 0",
            "delete from api_keys",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
