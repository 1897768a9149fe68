"""What may be said of who may see a document, and what holds of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from rag import metadata, permissions
from rag.errors import MetadataError
from rag.types import Beside, Description, Principals

ANN, BEN, FINANCE = "user:ann@example.com", "key:aB3dE5gH", "group:finance"


def test_users_groups_and_keys_may_be_named_each_once() -> None:
    assert permissions.check([ANN, BEN, FINANCE, ANN]) == (ANN, BEN, FINANCE)
    assert permissions.check(["group:Board of Directors", "group:é"]) == ("group:Board of Directors", "group:é")
    mixed = ["user:Ann@Example.com", ANN, "user:Sub", "user:saml|Ann@Example.com", "group:Ann@Example.com"]
    assert permissions.check(mixed) == (ANN, "user:Sub", "user:saml|Ann@Example.com", "group:Ann@Example.com")
    assert permissions.check([f"user:{number}" for number in range(100)])[99] == "user:99"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, "must be a list of 1 to 100"),
        ("group:a", "must be a list of 1 to 100"),
        ([], "must be a list of 1 to 100"),
        ({"group:a": 1}, "must be a list of 1 to 100"),
        ([f"user:{number}" for number in range(101)], "must be a list of 1 to 100"),
        (["ann"], "'ann' is none of user:…, group:… and key:…"),
        (["group:"], "is none of"),
        (["group: a"], "is none of"),
        (["group:a "], "is none of"),
        (["group:a\n"], "is none of"),
        (["group:a\nb"], "is none of"),
        (["group:a\0"], "is none of"),
        (["group:\ud800"], "is none of"),
        (["role:admin"], "is none of"),
        (["*"], "is none of"),
        ([1], "is none of"),
        ([["group:a"]], "is none of"),
        ([None], "is none of"),
        (["user:" + "x" * 316], "has more than 320 characters"),
    ],
)
def test_who_is_nobody_is_refused_by_name(given: Any, reason: str) -> None:
    with pytest.raises(MetadataError) as error:
        permissions.check(given)
    assert str(error.value).startswith("allowed_principals: ")
    assert reason in str(error.value)


def test_permissions_are_no_metadata_and_travel_beside_it() -> None:
    with pytest.raises(MetadataError, match="stands beside"):
        metadata.check({"allowed_principals": [ANN]})
    field = metadata.as_field({"year": 2020}, (ANN, FINANCE))
    assert (field.isascii(), metadata.said(field)) == (True, metadata.Said({"year": 2020}, (ANN, FINANCE)))
    with pytest.raises(MetadataError, match=r"<key>\.metadata\.json"):
        metadata.as_field({}, tuple(f"user:{number}{'x' * 40}" for number in range(50)))


@pytest.mark.parametrize(
    ("upload", "sidecar", "said"),
    [
        (None, None, ({}, None)),
        ('{"a": 1, "allowed_principals": ["group:a"]}', None, ({"a": 1}, ("group:a",))),
        ('{"a": 1, "allowed_principals": ["group:a"]}', b"{}", ({}, ("group:a",))),
        ('{"a": 1, "allowed_principals": ["group:a"]}', b'{"b": 2}', ({"b": 2}, ("group:a",))),
        ('{"a": 1}', b'{"allowed_principals": ["group:b"]}', ({"a": 1}, ("group:b",))),
        (
            '{"allowed_principals": ["group:a"]}',
            b'{"b": 2, "allowed_principals": ["group:b"]}',
            ({"b": 2}, ("group:b",)),
        ),
    ],
)
def test_of_metadata_and_permissions_each_is_the_sidecars_if_it_says_it(
    upload: str | None, sidecar: bytes | None, said: tuple[Any, Any]
) -> None:
    found = metadata.describe(upload, None if sidecar is None else Beside(sidecar))
    assert (found.metadata, found.allowed, found.error, found.unread) == (*said, None, False)


@pytest.mark.parametrize(
    ("upload", "sidecar", "error"),
    [
        ("{", None, "the upload: is not JSON"),
        ('{"allowed_principals": []}', None, "the upload: allowed_principals: must be a list"),
        ('{"allowed_principals": null}', b"{}", "the upload: allowed_principals: must be a list"),
        ("{}", b"{", "the sidecar: is not JSON"),
        ("{}", b"\xff", "the sidecar: is not JSON"),
        ("{}", b"[]", "the sidecar: must be a JSON object"),
        (
            "{}",
            b'{"allowed_principals": ["group:a"], "allowed_principals": ["group:b"]}',
            "the sidecar: has a name twice",
        ),
        ("{}", b'{"allowed_principals": ["ann"]}', "the sidecar: allowed_principals: 'ann' is none"),
        ("{}", b'{"a": "' + b"x" * 20_000 + b'"}', "the sidecar: has more than"),
    ],
)
def test_what_may_hide_a_limit_is_never_taken_for_none(upload: str, sidecar: bytes | None, error: str) -> None:
    found = metadata.describe(upload, None if sidecar is None else Beside(sidecar))
    assert (found.unread, str(found.error).startswith(error)) == (True, True)
    # A new document is nobody's but the admins', one that is there stays as it was.
    assert permissions.judged(found, None, published=True).allowed == ()
    for current in (None, (ANN,), ()):
        assert permissions.judged(found, current, published=False).allowed == current
    assert permissions.judged(found, (ANN,), published=True).allowed == (ANN,)


def test_a_sidecar_outweighs_an_upload_that_cannot_be_read() -> None:
    found = metadata.describe("{", Beside(b'{"a": 1, "allowed_principals": ["group:a"]}'))
    assert (found.allowed, found.unread, found.error) == (("group:a",), False, None)


CHOICES: list[Principals | None] = [None, (), (ANN,), (BEN,), (ANN, BEN)]


def test_nobody_lets_himself_in_by_a_sidecar_whatever_holds_and_was_uploaded() -> None:
    for current, uploaded, beside, unread, published in itertools.product(
        CHOICES, [one for one in CHOICES if one != ()], [*CHOICES, (BEN, FINANCE)], (True, False), (True, False)
    ):
        said = Description(beside=beside, uploaded=uploaded, author=(BEN,), unread=unread)
        allowed = permissions.judged(said, current, published=published).allowed
        case = f"{said} of {current}, {published=}: {allowed}"
        if permissions.may_see([BEN], allowed):
            # Nobody but who uploaded that version could have let him in.
            assert permissions.may_see([BEN], current) or (published and BEN in (uploaded or ())), case
            assert permissions.may_see([BEN], uploaded) or not published, case


@pytest.mark.parametrize(
    ("current", "uploaded", "beside", "published", "allowed"),
    [
        # His own document, for others, with the sidecar that said so from the beginning, and once more.
        (None, None, (FINANCE,), True, (FINANCE,)),
        ((FINANCE,), None, (FINANCE,), False, (FINANCE,)),
        # Others' documents.
        ((FINANCE,), None, (BEN,), False, (FINANCE,)),
        ((FINANCE,), None, None, False, (FINANCE,)),
        ((FINANCE,), None, None, True, (FINANCE,)),
        ((FINANCE, ANN), None, (ANN,), False, (ANN,)),
        # A sidecar that was there before the document of somebody else.
        (None, (FINANCE,), (BEN,), True, (FINANCE,)),
        # One whom all limits know may change them.
        ((BEN,), None, (BEN, ANN), False, (BEN, ANN)),
        ((BEN,), (BEN, ANN), (FINANCE,), False, (FINANCE,)),
        # The upload is for fewer than the document was.
        ((BEN, FINANCE), (FINANCE,), (BEN, FINANCE), True, (FINANCE,)),
        ((BEN,), (FINANCE,), (BEN,), True, (FINANCE,)),
    ],
)
def test_a_sidecar_of_a_writer_counts_as_far_as_he_may_see_the_document(
    current: Principals | None,
    uploaded: Principals | None,
    beside: Principals | None,
    published: bool,  # noqa: FBT001
    allowed: Principals | None,
) -> None:
    said = Description(beside=beside, uploaded=uploaded, author=(BEN,))
    assert permissions.judged(said, current, published=published).allowed == allowed


def test_a_sidecar_without_an_author_was_put_by_who_may_see_everything() -> None:
    for current in CHOICES:
        assert permissions.judged(Description(beside=(ANN,)), current, published=False).allowed == (ANN,)
        assert permissions.judged(Description(), current, published=False).allowed is None


def test_whoever_wrote_a_sidecar_that_cannot_be_read_sees_what_is_wrong_with_it() -> None:
    torn = metadata.describe(None, Beside(b"{", permissions.as_author([BEN, FINANCE])))
    assert permissions.judged(torn, None, published=True).allowed == (BEN,)
    mended = metadata.describe(None, Beside(b"{}", permissions.as_author([BEN, FINANCE])))
    assert permissions.judged(mended, (BEN,), published=False).allowed is None


def test_an_author_comes_back_from_a_form_as_far_as_it_has_room() -> None:
    assert permissions.author(permissions.as_author([BEN, "group:é"])) == (BEN, "group:é")
    many = [BEN, *(f"group:{number:0100}" for number in range(50))]
    text = permissions.as_author(many)
    assert (len(text) <= 2_000, text.isascii(), set(json.loads(text)) < set(many)) == (True, True, True)
    assert permissions.author(None) is None
    for forged in ("", "{", "1", "null", "[" * 5_000):
        assert permissions.author(forged) == ()
