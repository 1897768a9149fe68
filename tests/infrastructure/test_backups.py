from __future__ import annotations

import pytest

from cdk.stages import STAGES, Stage
from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import only, properties, text

protected = pytest.mark.parametrize("stage", [s for s in STAGES if s.protected], ids=lambda stage: stage.name)


def test_dev_has_no_backups_beside_its_own_recovery(templates: Templates) -> None:
    assert not properties(templates["dev"]["data"], "AWS::Backup::BackupPlan")


@protected
def test_the_database_is_copied_every_day_outside_its_own_windows(templates: Templates, stage: Stage) -> None:
    data = templates[stage.name]["data"]
    [rule] = only(data, "AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]
    assert rule["ScheduleExpression"] == "cron(0 6 * * ? *)"
    assert rule["Lifecycle"] == {"DeleteAfterDays": stage.recovery_days}
    selected = only(data, "AWS::Backup::BackupSelection")["BackupSelection"]["Resources"]
    assert ["databaseinstance" in text(resource) for resource in selected] == [True]


@protected
def test_the_vault_has_its_own_key_and_in_prod_a_lock(templates: Templates, stage: Stage) -> None:
    vault = only(templates[stage.name]["data"], "AWS::Backup::BackupVault")
    assert "keysbackup" in text(vault["EncryptionKeyArn"])
    expected = {"MinRetentionDays": stage.recovery_days} if stage.lock_backups else None
    assert vault.get("LockConfiguration") == expected
