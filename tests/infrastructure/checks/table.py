"""The table of promises: each row a function that names what breaks it, and how its own test breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.infrastructure.checks.estate import Estate

ALL = ("dev", "staging", "prod")
PROTECTED = ("staging", "prod")
PROD = ("prod",)

GONE = object()
Find = Callable[[Estate], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Spoil:
    """A fault to plant: in every resource of a type, the property at a path becomes `value`, or goes where it is GONE.

    A path that starts with a dot is of the resource itself (`.DeletionPolicy`).
    """

    kind: str
    path: str
    value: Any = GONE

    def planted(self, estate: Estate) -> Estate:
        """A copy of the estate with the fault; the estate itself where no resource has the place."""
        stacks = copy.deepcopy(estate.stacks)
        for template in stacks.values():
            for body in template["Resources"].values():
                if body["Type"] == f"AWS::{self.kind}":
                    self._put(body if self.path.startswith(".") else body.setdefault("Properties", {}))
        return Estate(estate.stage, stacks, estate.manifest)

    def _put(self, place: Any) -> None:
        *way, last = self.path.lstrip(".").split(".")
        for part in way:
            if isinstance(place, list) and len(place) <= int(part):
                return
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if isinstance(place, list):
            if self.value is GONE:
                place.clear()
            else:
                place[int(last)] = self.value
        elif self.value is GONE:
            place.pop(last, None)
        else:
            place[last] = self.value


@dataclass(frozen=True, slots=True)
class Check:
    """One row: where it holds, what it promises, and who looks."""

    area: str
    promise: str
    stages: tuple[str, ...]
    find: Find
    spoil: Spoil


CHECKS: list[Check] = []


def check(area: str, spoil: Spoil, *, stages: tuple[str, ...] = ALL) -> Callable[[Find], Find]:
    """Enter a function into the table; its docstring is the promise."""

    def enter(find: Find) -> Find:
        CHECKS.append(Check(area, (find.__doc__ or "").strip().rstrip("."), stages, find, spoil))
        return find

    return enter
