"""Where a function's code lies: the repository, or packages that a file lists."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from functions.table import FUNCTIONS, QUERY
from local import code, environment
from local.aws import Credentials
from local.environment import Addresses, Model
from local.service import ServiceError

ROOT = Path(__file__).resolve().parents[2]
LISTED = {row.name: {"task_root": f"/t/{row.name}", "layers": ["/opt/python"]} for row in FUNCTIONS}


def listing(folder: Path, said: object) -> Path:
    path = folder / "packages.json"
    path.write_text(json.dumps(said))
    return path


def test_the_repository_is_run_by_this_python() -> None:
    ours = code.of_repository()
    assert (ours.task_root, ours.python) == (ROOT, Path(sys.executable))
    variables = ours.environment
    assert variables["PYTHONPATH"].split(":") == [str(ROOT), str(ROOT / "layers" / "rag" / "python")]
    assert variables["AWS_EXECUTION_ENV"] == f"AWS_Lambda_python3.{sys.version_info.minor}"
    assert "PYTHONDONTWRITEBYTECODE" not in variables


def test_packages_are_run_by_the_python_that_their_file_names_and_never_written_to(tmp_path: Path) -> None:
    packaged = code.of_packages(listing(tmp_path, {"python": "/p/bin/python", "version": "3.13", "functions": LISTED}))
    credentials = Credentials("id", "secret")
    addresses = Addresses("http://aws", "http://queue", "http://maintenance", "http://erase", 1, 2, credentials)
    model = Model("http://model/v1", "embedder", 384, "chatter")
    variables = environment.environment_of(QUERY, addresses, model, code=packaged["query"])
    assert variables["PYTHONPATH"] == "/t/query:/opt/python"
    assert variables["LAMBDA_TASK_ROOT"] == "/t/query"
    assert variables["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.13"
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"
    assert variables["PATH"].startswith("/p/bin:")
    assert str(ROOT) not in str(variables)


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"python": "/p", "version": "3.13"},
        {"python": "/p", "version": "3.13", "functions": {}},
        {"python": "/p", "version": "3.13", "functions": {n: {"task_root": "/t"} for n in LISTED}},
        {"python": "/p", "version": "3.13", "functions": {n: {**one, "layers": "/opt"} for n, one in LISTED.items()}},
    ],
)
def test_a_file_that_does_not_list_every_function_is_said_so(said: object, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="does not say where the packaged functions are"):
        code.of_packages(listing(tmp_path, said))


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="nowhere"):
        code.of_packages(tmp_path / "nowhere.json")
