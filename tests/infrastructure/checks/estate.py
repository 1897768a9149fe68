"""Everything of one stage as CloudFormation would see it: resources over all stacks, and what their values refer to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cdk.stages import STAGES, Stage
from cdk.templates import Template


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource; `body` is what stands in the template under its logical id."""

    stack: str
    name: str
    body: dict[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        return str(self.body["Type"])

    @property
    def properties(self) -> dict[str, Any]:
        """Empty where the template has none."""
        found: dict[str, Any] = self.body.get("Properties", {})
        return found

    def get(self, path: str, default: Any = None) -> Any:
        """The property at `A.B.C`; a number is a place in a list."""
        value: Any = self.properties
        for part in path.split("."):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, TypeError):
                return default
        return value

    def __str__(self) -> str:
        return f"{self.stack}/{self.name}"


@dataclass
class Estate:
    """The stacks of one stage, with the row of the table that they were made from."""

    stage: Stage
    stacks: dict[str, Template]
    manifest: dict[str, dict[str, Any]]

    @classmethod
    def of_stage(cls, name: str, stacks: dict[str, Template], manifest: dict[str, dict[str, Any]]) -> Estate:
        """`manifest`: stack → the properties of its artifact (tags, protection)."""
        [row] = [row for row in STAGES if row.name == name]
        return cls(row, stacks, manifest)

    @cached_property
    def resources(self) -> list[Resource]:
        return [
            Resource(stack, name, body)
            for stack, template in self.stacks.items()
            for name, body in template["Resources"].items()
        ]

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Resource]:
        return {(each.stack, each.name): each for each in self.resources}

    @cached_property
    def _exports(self) -> dict[str, tuple[str, Any]]:
        return {
            output["Export"]["Name"]: (stack, output["Value"])
            for stack, template in self.stacks.items()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }

    def of(self, *kinds: str) -> list[Resource]:
        """All of these types; `AWS::` may be left out."""
        wanted = {kind if kind.startswith(("AWS::", "Custom::")) else f"AWS::{kind}" for kind in kinds}
        return [each for each in self.resources if each.kind in wanted]

    def targets(self, stack: str, value: Any) -> list[Resource]:
        """Every resource that a value names, in whatever intrinsic functions it is wrapped."""
        return [found for name in self._references(stack, value) if (found := self._by_name.get(name))]

    def refers(self, source: Resource, value: Any, target: Resource) -> bool:
        """Whether a value in `source` names `target`."""
        return target in self.targets(source.stack, value)

    def _references(self, stack: str, value: Any) -> Iterator[tuple[str, str]]:
        match value:
            case {"Ref": str(name)}:
                yield stack, name
            case {"Fn::GetAtt": [str(name), *_]}:
                yield stack, name
            case {"Fn::ImportValue": str(name)} if name in self._exports:
                yield from self._references(*self._exports[name])
            case {"Fn::Sub": str(text)}:
                yield from ((stack, part.split("}")[0].split(".")[0]) for part in text.split("${")[1:])
            case dict():
                for each in value.values():
                    yield from self._references(stack, each)
            case list():
                for each in value:
                    yield from self._references(stack, each)


def listed(value: Any) -> list[Any]:
    """A policy's element, which may stand alone or in a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def statements(document: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The statements of a policy document."""
    return listed((document or {}).get("Statement"))


def text(value: Any) -> str:
    """A value with its intrinsic functions flattened: literals in order, `<Name.Attribute>` for references."""
    match value:
        case {"Fn::Join": [str(separator), list(parts)]}:
            return separator.join(text(part) for part in parts)
        case {"Ref": name} | {"Fn::ImportValue": name}:
            return f"<{text(name)}>"
        case {"Fn::GetAtt": [*parts]}:
            return f"<{'.'.join(map(str, parts))}>"
        case {"Fn::Sub": sub}:
            return text(sub if isinstance(sub, str) else sub[0])
        case _:
            return str(value)
