"""Whom the functions believe to be their database: who is in the file, and that it is only they."""

from __future__ import annotations

import re
import ssl
import subprocess
import tarfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

import rag

FILE = Path(rag.__file__).parent / "certificates" / "database.pem"
RDS = re.compile(r"Amazon RDS ([a-z]+-[a-z]+-[0-9]) Root CA (RSA2048|RSA4096|ECC384) G1")
AMAZON = {f"Amazon Root CA {number}" for number in (1, 2, 3, 4)}
BODY = re.compile(r"-----BEGIN CERTIFICATE-----\n([\w+/=\n]+)-----END CERTIFICATE-----")
LITERALS = re.compile(r"\\n' \+\s+'")  # how a line of JavaScript goes on in the next
LIFE = timedelta(days=5 * 365)


def roots() -> dict[str, x509.Certificate]:
    found = x509.load_pem_x509_certificates(FILE.read_bytes())
    named = {name(certificate): certificate for certificate in found}
    assert len(named) == len(found)
    return named


def name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_each_is_a_root_that_signed_itself_and_lives_for_years() -> None:
    for certificate in roots().values():
        certificate.verify_directly_issued_by(certificate)
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate.not_valid_before_utc < datetime.now(UTC) < certificate.not_valid_after_utc - LIFE


def test_they_are_the_roots_of_rds_by_region_and_those_of_the_proxy() -> None:
    others = roots().keys() - AMAZON
    assert roots().keys() >= AMAZON
    matched = [RDS.fullmatch(other) for other in others]
    assert all(matched)
    regions = Counter(match[1] for match in matched if match)
    assert set(regions.values()) == {3}
    assert {"us-east-1", "us-west-2", "eu-central-1", "eu-west-1", "ap-northeast-1"} <= regions.keys()


def test_those_of_rds_say_so_themselves() -> None:
    for common_name, certificate in roots().items():
        if common_name not in AMAZON:
            units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
            assert [unit.value for unit in units] == ["Amazon RDS"]


def test_those_of_the_proxy_are_the_ones_that_every_browser_has() -> None:
    context = ssl.create_default_context(cafile=certifi.where())
    everybodys = set(context.get_ca_certs(binary_form=True))
    amazons = {certificate for common_name, certificate in roots().items() if common_name in AMAZON}
    assert {certificate.public_bytes(Encoding.DER) for certificate in amazons} <= everybodys


def test_the_comment_above_each_names_it() -> None:
    commented = re.findall(r"^# (.+)\n-----BEGIN", FILE.read_text(), re.MULTILINE)
    assert commented == sorted(roots())


@pytest.mark.slow
def test_each_is_in_the_package_that_the_file_names_as_its_source(tmp_path: Path) -> None:
    package, version, integrity = re.findall(
        r"npm package (\S+) (\S+) carries.*?(sha512-[\w+/=]+)", FILE.read_text(), re.DOTALL
    )[0]
    packed = subprocess.run(
        ["npm", "pack", "--json", f"{package}@{version}"], cwd=tmp_path, capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip("npm, or its registry, cannot be reached")
    assert integrity.encode() in packed.stdout
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    sources = [LITERALS.sub("\n", path.read_text()) for path in (tmp_path / "package").rglob("*.js")]
    published = {base64 for source in sources for base64 in BODY.findall(source)}
    assert set(BODY.findall(FILE.read_text())) <= published
