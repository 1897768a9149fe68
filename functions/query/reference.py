"""The API's reference as one HTML page: made from the OpenAPI document, with nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

from rag.answer_headers import policy_of_page

JSON = dict[str, Any]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5dbe3; font-size: 1.1rem }
h2 b { color: #0b5cad; display: inline-block; min-width: 5rem }
code, h2 { font-family: ui-monospace, monospace }
table { border-collapse: collapse; width: 100% }
th:first-child { width: 14rem }
pre { overflow-x: auto }
td, th { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #eef1f5 }
@media (prefers-color-scheme: dark) {
  body { background: #12161c; color: #dfe6ee }
  h2 b { color: #7cb8ff }
  td, th, h2 { border-color: #2b333d }
}
"""


def policy() -> str:
    """Return the page's Content-Security-Policy."""
    return policy_of_page(style_hash=base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode())


def page(openapi: JSON) -> str:
    """Return the page for an OpenAPI 3.1 document."""
    schemas: JSON = openapi.get("components", {}).get("schemas", {})
    routes = [
        _route(method, path, operation, schemas)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f"<p>{escape(openapi['info'].get('summary', ''))} {_marked(openapi['info'].get('description', ''))} "
        f'The machine-readable form is <a href="openapi.json">openapi.json</a>.</p>{"".join(routes)}</body></html>'
    )


def _route(method: str, path: str, operation: JSON, schemas: JSON) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    success = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
    response = success.get("content", {}).get("application/json", {}).get("schema", {})
    parameters = {item["name"]: item["schema"] for item in operation.get("parameters", [])}
    return (
        f"<h2><b>{escape(method.upper())}</b> {escape(path)}</h2><p>{_marked(operation.get('description', ''))}</p>"
        + _table("Parameter", parameters, schemas)
        + _table("Request", _properties(body, schemas), schemas)
        + _table("Response", _properties(response, schemas), schemas)
        + _example("Request", operation.get("requestBody", {}))
        + _example("Response", success)
        + _errors(operation)
    )


def _marked(text: str) -> str:
    """Paragraphs, and code between backquotes, as descriptions have them."""
    parts = escape(text).replace("\n\n", "</p><p>").split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _example(heading: str, said: JSON) -> str:
    content = said.get("content", {}).get("application/json", {})
    if "example" not in content:
        return ""
    shown = escape(json.dumps(content["example"], indent=1, ensure_ascii=False))
    return f"<details><summary>{heading}, for example</summary><pre>{shown}</pre></details>"


def _errors(operation: JSON) -> str:
    statuses = [status for status in operation["responses"] if status >= "4"]
    return f"<p>Errors: {', '.join(statuses)}</p>" if statuses else ""


def _properties(schema: JSON, schemas: JSON) -> JSON:
    properties: JSON = _resolved(schema, schemas).get("properties", {})
    return properties


def _table(heading: str, properties: JSON, schemas: JSON) -> str:
    if not properties:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(schema, schemas))}</td></tr>"
        for name, schema in properties.items()
    )
    return f"<table><tr><th>{heading}</th><th></th></tr>{rows}</table>"


def _kind(schema: JSON, schemas: JSON) -> str:
    """What a value may be, in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(option, schemas) for option in schema["anyOf"])
    if "$ref" in schema:
        fields = ", ".join(_properties(schema, schemas))
        return f"{{{fields}}}"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), schemas)}"
    kind = str(schema.get("format") or schema.get("type", "any"))
    return f"{kind}, default {schema['default']}" if schema.get("default") not in (None, {}) else kind


def _resolved(schema: JSON, schemas: JSON) -> JSON:
    name = schema.get("$ref", "").rpartition("/")[2]
    resolved: JSON = schemas[name] if name else schema
    return resolved
