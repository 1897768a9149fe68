from __future__ import annotations

from tests.infrastructure.conftest import Templates
from tests.infrastructure.reading import only, properties, text


def test_prod_records_who_did_what_in_every_region_and_who_opened_documents(templates: Templates) -> None:
    trail = only(templates["prod"]["data"], "AWS::CloudTrail::Trail")
    assert trail["IsMultiRegionTrail"] is True
    assert trail["EnableLogFileValidation"] is True
    assert "keyslogs" in text(trail["KMSKeyId"])
    watched = text(trail["EventSelectors"])
    assert "bucketsdocuments" in watched
    assert "bucketsbackups" in watched


def test_prod_records_changes_and_looks_for_attacks(templates: Templates) -> None:
    prod = templates["prod"]["data"]
    assert only(prod, "AWS::Config::ConfigurationRecorder")["RecordingGroup"]["AllSupported"] is True
    assert "bucketslogs" in text(only(prod, "AWS::Config::DeliveryChannel")["S3BucketName"])
    assert only(prod, "AWS::GuardDuty::Detector")["Enable"] is True
    assert only(prod, "AWS::SecurityHub::Hub")


def test_other_stages_leave_the_account_alone(templates: Templates) -> None:
    for stage in ("dev", "staging"):
        for kind in ("AWS::CloudTrail::Trail", "AWS::Config::ConfigurationRecorder", "AWS::GuardDuty::Detector"):
            assert not properties(templates[stage]["data"], kind)
