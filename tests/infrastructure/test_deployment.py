"""The CDK's own command line, as pinned, on this application: without an account or a network."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from cdk.stages import STAGES
from cdk.templates import Templates, read
from local import aws
from tests.acceptance.platform_process import wait_for
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


@contextlib.contextmanager
def imitation(log: Path) -> Iterator[str]:
    """The URL of a moto whose CloudFormation takes every type."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.infrastructure.imitation", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port)):
                return True
            return False

        wait_for(answers, log.read_text, timeout_seconds=60)
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_the_dev_stacks_are_deployed_into_an_imitation(
    cdk_program: str, assembly: Path, templates: Templates, tmp_path: Path
) -> None:
    """`cdk bootstrap` and `cdk deploy "dev/*"` as the guide says, with credentials that open nothing.

    Proven: the order of stacks, that every reference, export and import is resolved, that assets are packed and
    published. Not proven: that AWS takes any property, that a role may do what it must, how long it takes, that
    anything works once it is there. Resources are opaque, no trigger is run, and layers are not built here.
    """
    with imitation(tmp_path / "imitation.log") as url:
        dummies = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": aws.REGION}
        variables = environment(tmp_path / "home") | dummies | {"AWS_ENDPOINT_URL": url, "NO_PROXY": "localhost"}

        def run(*command: str) -> None:
            ran = subprocess.run(
                [cdk_program, *command, "--app", str(assembly)],
                cwd=ROOT,
                env=variables,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr[-2000:] + (tmp_path / "imitation.log").read_text()[-2000:]

        with measured("cdk bootstrap and cdk deploy of dev into an imitation"):
            run("bootstrap", f"aws://{aws.ACCOUNT_ID}/{aws.REGION}")
            run("deploy", "dev/*", "--method", "direct", "--require-approval", "never")
        clients = boto3.Session(aws_access_key_id="none", aws_secret_access_key="none", region_name=aws.REGION)
        cloudformation: Any = clients.client("cloudformation", endpoint_url=url)
        stacks = {each["StackName"]: each for each in cloudformation.describe_stacks()["Stacks"]}
        assert set(stacks) == {"CDKToolkit", *(f"rag-dev-{name}" for name in templates["dev"])}
        assert {each["StackStatus"] for each in stacks.values()} == {"CREATE_COMPLETE"}
        times = [stacks[f"rag-dev-{name}"]["CreationTime"] for name in ("data", "service", "monitoring")]
        assert times == sorted(times)
        for name, template in templates["dev"].items():
            pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=f"rag-dev-{name}")
            made = {each["LogicalResourceId"] for page in pages for each in page["StackResourceSummaries"]}
            assert made == {logical for logical, each in template["Resources"].items() if "Condition" not in each}
        published = clients.client("s3", endpoint_url=url).list_objects_v2(
            Bucket=f"cdk-hnb659fds-assets-{aws.ACCOUNT_ID}-{aws.REGION}"
        )
        keys = {each["Key"] for each in published["Contents"]}
        code = {
            each["Properties"]["Code"]["S3Key"]
            for each in templates["dev"]["service"]["Resources"].values()
            if each["Type"] == "AWS::Lambda::Function"
        }
        assert code <= keys
