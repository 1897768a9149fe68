"""moto as a CloudFormation that takes every type: what is not kept for its behaviour is an opaque resource with a name.

    python -m tests.infrastructure.imitation PORT

It checks no property and makes nothing that works: it resolves references, keeps the order, exports and imports.
"""

from __future__ import annotations

import sys
from typing import Any

from moto.cloudformation import parsing
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

# What the CDK's command line itself talks to: its version and its bucket of assets.
REAL = {"AWS::SSM::Parameter", "AWS::S3::Bucket"}


class Opaque:
    """Any resource: its physical id is an ARN, an attribute is its id and the attribute's name."""

    def __init__(self, name: str, kind: str, account_id: str, region_name: str) -> None:
        self.name = name
        _, service, *_ = kind.split("::")
        # An alias's has a part more: `Fn::Split` takes it from there.
        qualifier = ":live" if kind == "AWS::Lambda::Alias" else ""
        self._arn = f"arn:aws:{service.lower()}:{region_name}:{account_id}:opaque:{name}{qualifier}"

    @property
    def physical_resource_id(self) -> str:
        return self._arn

    def is_created(self) -> bool:
        return True

    @classmethod
    def has_cfn_attr(cls, _attr: str) -> bool:
        return True

    def get_cfn_attribute(self, attribute_name: str) -> str:
        return self._arn if attribute_name.endswith("Arn") else f"{self.name}.{attribute_name}"

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "Opaque"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, _json: Any, account_id: str, region_name: str, **told: Any
    ) -> Opaque:
        return cls(resource_name, told["ResourceType"], account_id, region_name)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: Opaque, _name: str, _json: Any, _account: str, _region: str
    ) -> Opaque:
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(cls, _name: str, _json: Any, _account: str, _region: str) -> None:
        pass


_known = parsing.resource_class_from_type


def main() -> None:
    parsing.resource_class_from_type = lambda kind: _known(kind) if kind in REAL else Opaque
    application = DomainDispatcherApplication(create_backend_app)
    run_simple("localhost", int(sys.argv[1]), application, threaded=True)


if __name__ == "__main__":
    main()
