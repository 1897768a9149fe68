"""How often what costs by its number is tried; the kinds of attack are the same in each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Amount:
    """`fast` is what every run of the tests tries, `full` what is promised, `soak` what is tried before a release."""

    fast: int
    full: int
    soak: int


AMOUNTS: Mapping[str, Amount] = {
    "bits flipped in an entry of the cache": Amount(100, 500, 500),
    "documents that sidecars are forged for": Amount(4, 20, 40),
    "measured pairs of a foreign and an absent id": Amount(12, 40, 40),
    "pairs of callers with one question": Amount(60, 1_000, 1_000),
    "passages of a noisy neighbour": Amount(5_000, 20_000, 20_000),
    # All there are, or as many in turn: each parameter gets others, so that all of them are tried somewhere.
    "payloads of a parameter": Amount(10, 1_000, 1_000),
    "questions beside changes of permissions": Amount(300, 1_500, 1_500),
    "questions looked up in the audit log": Amount(40, 200, 200),
    # What a transaction says of the tenant: its own, and as many in turn of the other seven.
    "settings of the tenant": Amount(1, 7, 7),
    "requests made of the description of a route": Amount(10, 100, 1_000),
    "steps of any history": Amount(1_500, 10_000, 10_000),
    "switches of a pooled connection": Amount(1_500, 10_000, 10_000),
}
