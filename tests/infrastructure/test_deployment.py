"""The CDK's own command line, as pinned, on this application: synthesis without an account or a network."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cdk.stages import STAGES
from cdk.templates import read
from tests.infrastructure.measuring import measured

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cdk_program() -> str:
    """`cdk` of package.json; installed from the lock where that has not happened yet."""
    program = ROOT / "node_modules" / ".bin" / "cdk"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.fail("npm is not installed: the CDK's command line needs Node.js (https://nodejs.org)")
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=ROOT, check=True, capture_output=True)
    return str(program)


def environment(home: Path) -> dict[str, str]:
    """Without credentials, without a region, and with proxies that lead nowhere."""
    home.mkdir(exist_ok=True)
    # Unpacked by this process already: the engine and its half a gigabyte.
    cache = os.environ.get(
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT", str(Path.home() / ".cache" / "aws" / "jsii" / "package-cache")
    )
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return nowhere | {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": cache,
        "CI": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
    }


@pytest.mark.slow
def test_every_stage_is_synthesised_without_an_account_or_a_network(cdk_program: str, tmp_path: Path) -> None:
    app = f"{shlex.quote(sys.executable)} app.py"
    command = [
        cdk_program,
        "synth",
        "--quiet",
        "--no-lookups",
        "--no-validation",
        "--app",
        app,
        "--output",
        str(tmp_path / "out"),
    ]
    # All stages are synthesised whichever are asked for; layers are built only of what is asked for.
    asked = [f"{stage.name}/data" for stage in STAGES]
    with measured("cdk synth of three stages"):
        ran = subprocess.run(
            [*command, "--exclusively", *asked],
            cwd=ROOT,
            env=environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr[-4000:]
    found = read(tmp_path / "out")
    assert set(found) == {stage.name for stage in STAGES}
    assert {stack for stacks in found.values() for stack in stacks} == {"data", "service", "monitoring", "delivery"}
    assert not json.loads((tmp_path / "out" / "manifest.json").read_text()).get("missing")
