"""The schema comes before the code that needs it, and a migration that fails ends the deployment."""

from __future__ import annotations

import pytest

from cdk.stages import STAGES
from cdk.templates import Templates
from functions.table import MIGRATE
from tests.infrastructure.reading import only, resources, starting, text

NAMES = [stage.name for stage in STAGES]


@pytest.mark.parametrize("stage", NAMES)
def test_a_new_version_of_migrate_is_run_and_waited_for(templates: Templates, stage: str) -> None:
    trigger = only(templates[stage]["service"], "Custom::Trigger")
    assert trigger["InvocationType"] == "RequestResponse"
    assert int(trigger["Timeout"]) == MIGRATE.timeout_seconds * 1000
    # Whose logical id holds the hash of its code, layers and settings.
    assert trigger["HandlerArn"]["Ref"].startswith("MigrateFunctionCurrentVersion")


@pytest.mark.parametrize("stage", NAMES)
def test_no_other_function_takes_its_new_version_before(templates: Templates, stage: str) -> None:
    template = templates[stage]["service"]
    [trigger] = resources(template, "Custom::Trigger")
    aliases = resources(template, "AWS::Lambda::Alias")
    waiting = {name for name, alias in aliases.items() if trigger in alias.get("DependsOn", [])}
    assert set(aliases) - waiting == {name for name in aliases if name.startswith("Migrate")}


@pytest.mark.parametrize("stage", NAMES)
def test_what_runs_it_may_run_nothing_else(templates: Templates, stage: str) -> None:
    template = templates[stage]["service"]
    role = starting(template, "AWS::IAM::Role", "AWSCDKTrigger")["Properties"]
    assert "Policies" not in role
    [policy] = role["ManagedPolicyArns"]
    [invoking] = [
        statement
        for statement in template["Resources"][policy["Ref"]]["Properties"]["PolicyDocument"]["Statement"]
        if statement["Action"] == "lambda:InvokeFunction"
    ]
    assert "MigrateFunction" in text(invoking["Resource"])
