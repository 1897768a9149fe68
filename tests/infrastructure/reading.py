"""What the tests of templates read them with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdk.stages import Stage

Template = dict[str, Any]
Resource = dict[str, Any]


def template_of(stage: Stage, stack: str) -> Template:
    """The template of one stack of a stage that is not one of ours."""
    from aws_cdk.assertions import Template as Synthesised

    return dict(Synthesised.from_stack(stack_of(stage, stack)).to_json())


def stack_of(stage: Stage, stack: str) -> Any:
    """One stack of a stage, not yet synthesised."""
    from cdk.platform import app

    options = {"tree_metadata": False, "builtin_cloud_formation_validation": False}
    platforms = app([stage], context={"aws:cdk:bundling-stacks": []}, **options)
    return platforms.node.find_child(stage.name).node.find_child(stack)


def resources(template: Template, kind: str) -> dict[str, Resource]:
    return {name: found for name, found in template.get("Resources", {}).items() if found["Type"] == kind}


def properties(template: Template, kind: str) -> list[dict[str, Any]]:
    return [found.get("Properties", {}) for found in resources(template, kind).values()]


def only(template: Template, kind: str) -> dict[str, Any]:
    [found] = properties(template, kind)
    return found


def starting(template: Template, kind: str, prefix: str) -> Resource:
    [found] = [each for name, each in resources(template, kind).items() if name.startswith(prefix)]
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text(value: Any) -> str:
    """A value with its references, as one string to look for words in."""
    return json.dumps(value, sort_keys=True)


def granted(template: Template) -> Iterator[tuple[str, dict[str, Any]]]:
    """(logical id, statement) of every policy that a role is given."""
    for name, found in template.get("Resources", {}).items():
        own = found.get("Properties", {})
        documents = [own["PolicyDocument"]] if found["Type"] in {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"} else []
        if found["Type"] == "AWS::IAM::Role":
            documents += [policy["PolicyDocument"] for policy in own.get("Policies", [])]
        for document in documents:
            for statement in as_list(document["Statement"]):
                yield name, statement
