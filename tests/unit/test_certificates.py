"""Whom the functions believe to be their database: who is in the files, and that it is only they."""

from __future__ import annotations

import re
import ssl
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

import rag

FOLDER = Path(rag.__file__).parent / "certificates"
PROXY = FOLDER / "proxy.pem"
REGIONS = sorted(set(FOLDER.glob("*.pem")) - {PROXY})
BODY = re.compile(r"-----BEGIN CERTIFICATE-----\n([\w+/=\n]+)-----END CERTIFICATE-----")
LITERALS = re.compile(r"\\n' \+\s+'")  # how a line of JavaScript goes on in the next
LIFE = timedelta(days=5 * 365)


def roots(file: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(file.read_bytes())


def named(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)]


@pytest.mark.parametrize("file", [*REGIONS, PROXY], ids=lambda file: file.stem)
def test_each_is_a_root_that_signed_itself_and_lives_for_years(file: Path) -> None:
    for certificate in roots(file):
        certificate.verify_directly_issued_by(certificate)
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate.not_valid_before_utc < datetime.now(UTC) < certificate.not_valid_after_utc - LIFE


@pytest.mark.parametrize("file", REGIONS, ids=lambda file: file.stem)
def test_the_file_of_a_region_holds_the_three_roots_of_rds_there(file: Path) -> None:
    names = [named(certificate, NameOID.COMMON_NAME) for certificate in roots(file)]
    kinds = ("ECC384", "RSA2048", "RSA4096")
    assert names == [[f"Amazon RDS {file.stem} Root CA {kind} G1"] for kind in kinds]
    assert all(named(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME) == ["Amazon RDS"] for certificate in roots(file))


def test_there_is_a_file_for_the_regions_that_most_use() -> None:
    assert {"us-east-1", "us-west-2", "eu-central-1", "eu-west-1", "ap-northeast-1"} <= {file.stem for file in REGIONS}


def test_those_of_the_proxy_are_amazons_that_every_browser_has() -> None:
    everybodys = ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)
    names = [named(certificate, NameOID.COMMON_NAME) for certificate in roots(PROXY)]
    assert names == [[f"Amazon Root CA {number}"] for number in (1, 2, 3, 4)]
    assert {certificate.public_bytes(Encoding.DER) for certificate in roots(PROXY)} <= set(everybodys)


@pytest.mark.slow
def test_each_is_in_the_package_that_is_named_as_their_source(tmp_path: Path) -> None:
    said = (FOLDER / "README.md").read_text()
    [(package, version, integrity)] = re.findall(
        r"package\n`(\S+)` (\S+) carries.*?`(sha512-[\w+/=]+)`", said, re.DOTALL
    )
    command = ["npm", "pack", "--json", f"{package}@{version}"]
    packed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("npm, or its registry, cannot be reached")
    assert integrity.encode() in packed.stdout
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    sources = [LITERALS.sub("\n", path.read_text()) for path in (tmp_path / "package").rglob("*.js")]
    published = {base64 for source in sources for base64 in BODY.findall(source)}
    ours = {base64 for file in [*REGIONS, PROXY] for base64 in BODY.findall(file.read_text())}
    assert len(ours) == 3 * len(REGIONS) + 4
    assert ours <= published
