"""`poe lint-templates`: cfn-lint and checkov over the templates, offline, from an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cdk.templates import synthesised

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-lint"
CHECKOV = "--framework", "cloudformation", "--skip-download", "--compact", "--quiet"


def environment() -> Path:
    """Bring the linters' own virtual environment to what the lock says; raises CalledProcessError with uv's words."""
    command = ["uv", "sync", "--quiet", "--frozen", "--only-group", "lint"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT)}, check=True)
    return ENVIRONMENT


def templates_of(assembly: Path) -> list[str]:
    """Every template of an assembly."""
    return sorted(str(path) for path in assembly.glob("assembly-*/*.template.json"))


def cfn_lint(assembly: Path) -> list[str]:
    """What cfn-lint finds, warnings too: one line each."""
    config = ["--config-file", str(ROOT / "cdk" / "cfnlint.yaml"), "--format", "parseable"]
    ran = _run("cfn-lint", *config, "--", *templates_of(assembly))
    if not ran.stdout and ran.returncode:
        raise RuntimeError(ran.stderr)
    return ran.stdout.splitlines()


@dataclass(frozen=True, slots=True)
class Finding:
    """One failed check of checkov, at one resource (`Type.LogicalId`) of one stage."""

    rule: str
    stage: str
    resource: str
    words: str

    def __str__(self) -> str:
        return f"{self.rule} {self.stage} {self.resource}: {self.words}"

    def accepted_by(self, row: dict[str, Any]) -> bool:
        """Whether a row of accepted.toml is about this."""
        at_its_place = self.rule == row["rule"] and self.stage in row["stages"]
        return at_its_place and any(fnmatchcase(self.resource, pattern) for pattern in row["resources"])


def accepted() -> list[dict[str, Any]]:
    """The rows of accepted.toml."""
    rows: list[dict[str, Any]] = tomllib.loads((ROOT / "cdk" / "accepted.toml").read_text())["accepted"]
    return rows


def checkov(assembly: Path) -> tuple[list[Finding], int]:
    """What checkov finds, accepted or not, and how many checks passed."""
    ran = _run("checkov", *CHECKOV, "--output", "json", "--directory", str(assembly))
    if not ran.stdout:
        raise RuntimeError(ran.stderr)
    report = json.loads(ran.stdout)
    if not report.get("results"):
        raise RuntimeError(f"checkov looked at nothing: {ran.stdout}")
    return [_finding(check) for check in report["results"]["failed_checks"]], report["summary"]["passed"]


def unaccepted(findings: list[Finding]) -> list[str]:
    """Findings that no row excuses."""
    rows = accepted()
    return sorted(str(found) for found in findings if not any(found.accepted_by(row) for row in rows))


def _finding(check: dict[str, Any]) -> Finding:
    stage = Path(check["file_path"]).parent.name.removeprefix("assembly-")
    return Finding(check["check_id"], stage, check["resource"], check["check_name"])


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Nothing of the caller's account or proxy is theirs to use, and neither asks the network for anything.
    calm = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", ""), "LANG": "C.UTF-8", "NO_COLOR": "1"}
    command = [str(ENVIRONMENT / "bin" / program), *arguments]
    return subprocess.run(command, cwd=ROOT, env=calm, capture_output=True, text=True, check=False)


def write_sarif(assembly: Path, folder: Path) -> None:
    """Write what checkov finds, without the rules that are accepted somewhere, for code scanning to show."""
    folder.mkdir(parents=True, exist_ok=True)
    skipped = ",".join(sorted({row["rule"] for row in accepted()}))
    output = ["--output", "sarif", "--output-file-path", str(folder), "--skip-check", skipped]
    _run("checkov", *CHECKOV, *output, "--directory", str(assembly))


def main(arguments: list[str]) -> int:
    """Print every finding; 1 when there is one. `--sarif DIR` writes checkov's there too."""
    environment()
    with TemporaryDirectory() as folder:
        synthesised(Path(folder))
        findings, passed = checkov(Path(folder))
        found = unaccepted(findings) + cfn_lint(Path(folder))
        if arguments[:1] == ["--sarif"]:
            write_sarif(Path(folder), Path(arguments[1]))
    print("\n".join([*found, f"{len(found)} findings; checkov: {passed} checks passed"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
