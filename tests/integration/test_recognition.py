"""Scanned pages through the parser: drawn in its child, read by Tesseract, or by Textract as it answers on the wire."""

from __future__ import annotations

import base64
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rag import tesseract
from rag.errors import UnavailableError
from rag.parser import Parser
from rag.recognition import Scans
from rag.tesseract import Tesseract
from rag.textract import Textract
from tests.integration.deployment import BUCKET, Deployment
from tests.reliability import hostile
from tests.reliability.workers import KILLED, Workers, working

pytestmark = pytest.mark.slow

_PNG = b"\x89PNG\r\n\x1a\n"
# As DetectDocumentText answers (Amazon Textract developer guide), shortened to what is not the same in every answer.
_ANSWER = {
    "DocumentMetadata": {"Pages": 1},
    "Blocks": [
        {"BlockType": "PAGE", "Id": "p", "Geometry": {"BoundingBox": {"Width": 1, "Height": 1, "Left": 0, "Top": 0}}},
        {"BlockType": "LINE", "Id": "l1", "Confidence": 99.1, "Text": "The bridge was opened in 1850."},
        {"BlockType": "LINE", "Id": "l2", "Confidence": 98.4, "Text": "It fell in 1879."},
        {"BlockType": "WORD", "Id": "w1", "Confidence": 99.3, "Text": "The", "TextType": "PRINTED"},
    ],
    "DetectDocumentTextModelVersion": "1.0",
}


def scan(*pages: str) -> bytes:
    """A PDF with a page for each text; one without a text is a drawing."""
    kids = b" ".join(b"%d 0 R" % (3 + 2 * page) for page in range(len(pages)))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, len(pages))]
    for page, text in enumerate(pages):
        font = b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"
        objects.append(b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents %d 0 R%b>>" % (4 + 2 * page, font))
        shown = b"BT /F 12 Tf 72 720 Td (%b) Tj ET" % text.encode() if text else b"100 100 200 200 re f"
        objects.append(hostile.stream(shown))
    return hostile.pdf(*objects)


class Recorded(http.server.BaseHTTPRequestHandler):
    """Answers as AWS does, and keeps what it was asked."""

    asked: list[tuple[str, dict[str, Any]]]
    answers: list[tuple[int, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.headers["X-Amz-Target"], body))
        status, answer = self.answers.pop(0) if self.answers else (200, _ANSWER)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Recorded]]:
    class Here(Recorded):
        asked: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012 (of this test)
        answers: list[tuple[int, dict[str, Any]]] = []  # noqa: RUF012

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        for name, value in {
            "AWS_ENDPOINT_URL_TEXTRACT": f"http://127.0.0.1:{server.server_port}",
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }.items():
            monkeypatch.setenv(name, value)
        # It keeps the credentials that it found first, for the tests after this one too.
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
        yield Here
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan.pdf"


def read(path: Path, scans: Scans) -> Any:
    parser = Parser(scans=scans)
    try:
        return parser.parse(path, path.name)
    finally:
        parser.close()


def test_textract_is_sent_the_pictures_of_pages_without_text_and_of_no_others(path: Path, wire: type[Recorded]) -> None:
    path.write_bytes(scan("First.", "", "Third.", ""))

    parsed = read(path, Scans(Textract()))

    said = "The bridge was opened in 1850.\nIt fell in 1879."
    assert [(section.page, section.text) for section in parsed.sections] == [
        (1, "First."), (2, said), (3, "Third."), (4, said),
    ]  # fmt: skip
    assert [target for target, _ in wire.asked] == ["Textract.DetectDocumentText"] * 2
    assert all(base64.b64decode(body["Document"]["Bytes"]).startswith(_PNG) for _, body in wire.asked)
    assert parsed.warnings == ()


def test_a_page_that_textract_cannot_read_is_named(path: Path, wire: type[Recorded]) -> None:
    path.write_bytes(scan("First.", ""))
    wire.answers.append((400, {"__type": "BadDocumentException", "message": "no"}))

    assert read(path, Scans(Textract())).warnings[0].startswith("page 2 has no text")


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnrecognizedClientException"])
def test_textract_that_refuses_is_unavailable_and_says_why(path: Path, wire: type[Recorded], code: str) -> None:
    path.write_bytes(scan("First.", ""))
    wire.answers.append((400, {"__type": code, "message": "no"}))

    with pytest.raises(UnavailableError, match=code):
        read(path, Scans(Textract()))


def test_textract_is_asked_again_where_the_rate_is_exceeded(path: Path, wire: type[Recorded]) -> None:
    path.write_bytes(scan(""))
    wire.answers.append((400, {"__type": "ProvisionedThroughputExceededException", "message": "slowly"}))

    assert "1850" in next(iter(read(path, Scans(Textract())).sections)).text
    assert len(wire.asked) == 2


_installed = pytest.mark.skipif(tesseract.program() is None, reason="the program tesseract is not installed here")


@_installed
@pytest.mark.data
def test_tesseract_reads_a_scan_in_a_process_that_is_confined(shared_data: Path) -> None:
    program = tesseract.program()
    assert program

    parsed = read(shared_data / "documents" / "pdf" / "loremipsum-flat.pdf", Scans(Tesseract(program)))

    (section,) = parsed.sections
    assert (section.page, section.text[:26]) == (1, "Lorem ipsum dolor sit amet")


@_installed
def test_tesseract_without_the_language_says_what_to_install(path: Path) -> None:
    path.write_bytes(scan(""))
    program = tesseract.program()
    assert program

    with pytest.raises(UnavailableError, match="RAG_OCR_LANGUAGES"):
        read(path, Scans(Tesseract(program, "xyz")))


def test_whatever_a_recogniser_runs_opens_no_socket(path: Path, tmp_path: Path) -> None:
    """A program in Tesseract's place tries, and says how that went."""
    path.write_bytes(scan(""))
    program = tmp_path / "program"
    program.write_text(
        "#!/usr/bin/env python3\nimport socket, sys\ntry:\n    socket.socket()\n    print('opened')\n"
        "except PermissionError:\n    print('refused')\n"
    )
    program.chmod(0o755)

    (section,) = read(path, Scans(Tesseract(str(program)))).sections
    assert section.text == "refused"


def test_a_document_with_scanned_pages_is_ready_and_names_them(deployment: Deployment) -> None:
    deployment.put("scan.pdf", scan("The bridge was opened in 1850.", ""))

    reply = deployment.documents()["scan.pdf"]
    assert (reply["status"], reply["error"]) == ("ready", None)
    assert reply["warnings"][0].startswith("page 2 has no text and cannot be found")

    deployment.put("scan.pdf", scan("The bridge was opened in 1850."))
    reply = deployment.documents()["scan.pdf"]
    assert reply["warnings"] == []


@pytest.fixture
def workers(deployment: Deployment, wire: type[Recorded]) -> Iterator[Workers]:
    told = {
        "RAG_DATABASE_URL": deployment.database.dsn("rag_ingest"),
        "RAG_OCR": "textract",
        "AWS_ENDPOINT_URL_TEXTRACT": os.environ["AWS_ENDPOINT_URL_TEXTRACT"],
    }
    with working({**deployment.settings, **told}) as begun:
        yield begun


def upload(deployment: Deployment, content: bytes) -> str:
    key = f"{deployment.tenant}/default/scan.pdf"
    deployment.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    return key


def kept(deployment: Deployment) -> list[int]:
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        return [page for (page,) in connection.execute("select page from recognised_pages order by page")]


def test_a_worker_that_is_killed_when_all_is_recognised_has_paid_for_the_next_one_too(
    deployment: Deployment, workers: Workers, wire: type[Recorded]
) -> None:
    key = upload(deployment, scan("First.", "", "", ""))

    def killed(_handler: Any, _body: dict[str, Any]) -> None:
        delivery.kill()
        delivery.wait()

    deployment.model.script = [killed]
    delivery = workers.deliver(key)
    assert delivery.wait() == KILLED
    assert (len(wire.asked), kept(deployment)) == (3, [2, 3, 4])
    assert workers.deliver(key, receives=2).wait() == 0
    assert deployment.documents()["scan.pdf"]["status"] == "ready"
    assert (len(wire.asked), kept(deployment)) == (3, [])
    with psycopg.connect(deployment.database.superuser_dsn()) as connection:
        found = connection.execute("select page, content from chunks order by position").fetchall()
    said = "The bridge was opened in 1850.\nIt fell in 1879."
    assert found == [(1, "First."), (2, said), (3, said), (4, said)]


def test_pages_that_were_read_before_the_service_went_down_are_not_paid_again(
    deployment: Deployment, workers: Workers, wire: type[Recorded]
) -> None:
    key = upload(deployment, scan("", "", ""))
    wire.answers += [(200, _ANSWER), (200, {"Blocks": []}), (400, {"__type": "AccessDeniedException", "message": "no"})]
    assert workers.deliver(key).wait() == 1
    # One that has no text is not asked for again either.
    assert (len(wire.asked), len(kept(deployment))) == (3, 2)
    assert workers.deliver(key, receives=2).wait() == 0
    assert (len(wire.asked), kept(deployment)) == (4, [])
    # The same file as a new version is another document to pay for; this one is ready.
    upload(deployment, scan("", "", ""))
    assert workers.deliver(key, message="2").wait() == 0
    assert len(wire.asked) == 7
