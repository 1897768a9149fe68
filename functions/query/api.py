"""The HTTP API: each route translates a request, calls one thing and translates what it returns."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import TypeAdapter

from functions.query import answers, dependencies, idempotency, passages, reference, schemas
from functions.query.application import application
from functions.query.auditing import Audit
from functions.query.callers import Admin, Overseer, Reader, Writer
from functions.query.telemetry import logger
from rag import metadata, permissions, wiring
from rag.answer_headers import POLICY
from rag.errors import ConflictError, InvalidRequestError, TooLargeError, UnavailableError
from rag.types import Caller, Document, DocumentQuery, Erasure, Location, Scope, Status

# What administrators ask for, and who looks back: too much to be imported for each question's sandbox.
SELDOM = ("/v1/conversations", "/v1/usage", "/v1/keys", "/v1/audit", "/v1/export")


def _seldom() -> tuple[APIRouter, ...]:
    """What is behind these prefixes."""
    from functions.query import audit, conversations, export, keys, usage  # noqa: PLC0415

    return conversations.router, usage.router, keys.router, audit.router, export.router


app = application()
app.include_router(answers.router)
app.include_router(passages.router)
app.later(SELDOM, _seldom)

# Of one document's history.
MOST_ATTEMPTS = 20
# The collection and the key of the last document seen.
CURSOR = TypeAdapter(tuple[schemas.Text, schemas.Text])


@app.post("/v1/documents", status_code=201)
async def create_document(
    request: Request, body: schemas.UploadRequest, who: Writer, trail: Audit
) -> schemas.UploadResponse:
    """Return where and how to upload one file; indexing begins when it has arrived.

    A key `<key>.metadata.json` is of the sidecar of the document `<key>`, whose id is returned.
    """
    settings = wiring.settings()
    if body.size is not None and body.size > settings.max_document_bytes:
        msg = f"the limit is {settings.max_document_bytes:,} bytes"
        raise TooLargeError(msg)
    place = Location(who.tenant_id, body.collection, body.key)
    wiring.catalog().require_collection(Scope.of(who), body.collection, "english")
    described = metadata.described(body.key)
    identities = Scope.of(who).identities
    carried = {metadata.FIELD: body.carried} if body.carried else {}
    if described is not None and identities is not None:
        carried = {permissions.AUTHOR: permissions.as_author(identities)}
    upload = wiring.bucket().presign_upload(
        place.object_key,
        limit_bytes=settings.max_document_bytes if described is None else metadata.MOST_BYTES,
        valid_seconds=settings.upload_seconds,
        carried=carried,
    )
    idempotency.keep(request, seconds=settings.upload_seconds)
    document_id = place.document_id if described is None else replace(place, key=described).document_id
    trail.named(document_id)
    trail.told(collection=body.collection)
    return schemas.UploadResponse(
        id=document_id,
        key=body.key,
        collection=body.collection,
        upload=schemas.Upload.model_validate(upload),
        expires_in_seconds=settings.upload_seconds,
        visible=identities is None or permissions.may_see(identities, body.allowed_principals),
    )


@app.get("/v1/documents")
async def list_documents(
    who: Reader,
    trail: Audit,
    collection: schemas.CollectionName | None = None,
    status: Status | None = None,
    prefix: schemas.Text | None = None,
    key: schemas.Text | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: schemas.Text | None = None,
) -> schemas.DocumentPage:
    """List documents by collection and key, a page at a time."""
    wanted = DocumentQuery(collection, status, key, prefix, _after(cursor), limit)
    found = wiring.catalog().documents(Scope.of(who), wanted)
    last = found[-1] if len(found) == limit else None
    trail.told(count=len(found), **({"collection": collection} if collection else {}))
    return schemas.DocumentPage(
        documents=[schemas.DocumentBody.of(document) for document in found],
        next_cursor=_cursor(last.collection, last.key) if last else None,
    )


@app.get("/v1/documents/{document_id}")
async def get_document(document_id: uuid.UUID, who: Reader) -> schemas.DocumentDetails:
    """Tell the state of one document, and what was done for it: its latest attempts, the newest first."""
    found = wiring.catalog().document(Scope.of(who), document_id)
    attempts = wiring.catalog().attempts(Scope.of(who), document_id, most=MOST_ATTEMPTS)
    return schemas.DocumentDetails.told(found, attempts)


@app.delete("/v1/documents/{document_id}", status_code=202)
async def delete_document(document_id: uuid.UUID, who: Writer) -> schemas.ErasureBody:
    """Erase a document for good: its passages, every version of its file and sidecar, the answers in the cache."""
    found = wiring.catalog().document(Scope.of(who), document_id)
    location = Location(who.tenant_id, found.collection, found.key)
    now = wiring.bucket().head(location.object_key)
    return _begun(
        who,
        wiring.erasure_requests().request(
            Scope.of(who),
            "document",
            who.principal,
            location=location,
            last_version=now.version_id if now else None,
        ),
    )


@app.post("/v1/documents/{document_id}/retry", status_code=202)
async def retry_document(document_id: uuid.UUID, who: Writer) -> schemas.RetryResponse:
    """Have a document that failed ingested again; 409 when it has not failed."""

    def send(document: Document) -> None:
        place = Location(who.tenant_id, document.collection, document.key)
        wiring.retry_queue().send_object(wiring.settings().bucket, place.object_key)

    wiring.catalog().retry(Scope.of(who), document_id, send)
    return schemas.RetryResponse(id=document_id)


@app.get("/v1/collections")
async def list_collections(who: Reader) -> schemas.CollectionList:
    """List the collections and how much they hold."""
    found = wiring.catalog().collections(Scope.of(who))
    return schemas.CollectionList(collections=[schemas.CollectionBody.of(item) for item in found])


@app.post("/v1/collections", status_code=201, responses={200: {"model": schemas.CollectionBody}})
async def create_collection(
    body: schemas.CollectionRequest, who: Writer, trail: Audit, response: Response
) -> schemas.CollectionBody:
    """Make a collection; the same request again changes nothing and answers 200."""
    trail.told(name=body.name)
    collection, new = wiring.catalog().create_collection(Scope.of(who), body.name, body.language)
    if collection.language != body.language:
        msg = f"the collection {body.name!r} exists, in {collection.language}"
        raise ConflictError(msg)
    response.status_code = 201 if new else 200
    return schemas.CollectionBody.of(collection)


@app.delete("/v1/collections/{name}", status_code=202)
async def delete_collection(name: schemas.CollectionName, who: Admin) -> schemas.ErasureBody:
    """Erase a collection for good, with all its documents, in the background."""
    wiring.catalog().collection(Scope.of(who), name)
    return _begun(who, wiring.erasure_requests().request(Scope.of(who), "collection", who.principal, collection=name))


@app.delete("/v1/users/{principal}/data", status_code=202)
async def erase_user(principal: schemas.Principal, who: Overseer) -> schemas.ErasureBody:
    """Erase what a user or a key has left: its conversations, its feedback, and cached answers.

    Rows of the audit log stay for as long as they must; whether there was anything is told by the receipt alone.
    """
    return _begun(
        who, wiring.erasure_requests().request(Scope.of(who), "principal", who.principal, principal=principal)
    )


@app.get("/v1/erasures")
async def list_erasures(who: Writer) -> schemas.ErasureList:
    """List the latest receipts of what was erased."""
    found = wiring.erasure_requests().receipts(Scope.of(who))
    return schemas.ErasureList(erasures=[_receipt(each) for each in found])


@app.get("/v1/erasures/{erasure_id}")
async def get_erasure(erasure_id: uuid.UUID, who: Writer) -> schemas.ErasureBody:
    """Tell what an erasure has removed, and when the last copy of it is gone."""
    return _receipt(wiring.erasure_requests().receipt(Scope.of(who), erasure_id))


@app.get("/health", responses={503: {"model": schemas.Health}})
async def health(response: Response) -> schemas.Health:
    """Tell whether the service and what it stands on answer."""
    return _health(response, model=True)


@app.get("/ready", responses={503: {"model": schemas.Health}})
async def ready(response: Response) -> schemas.Health:
    """Tell whether requests can be served: like /health, without the model."""
    return _health(response, model=False)


@app.head("/health", include_in_schema=False)
@app.head("/ready", include_in_schema=False)
async def probe() -> Response:
    """Tell it by the status alone."""
    answer = Response()
    _health(answer, model=False)
    return answer


@app.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """Show the API as a page that needs nothing from elsewhere."""
    return HTMLResponse(reference.page(app.openapi()), headers={POLICY: reference.policy()})


def _begun(who: Caller, erasure: Erasure) -> schemas.ErasureBody:
    """The receipt, with somebody at work on it: by this message, or when the schedule finds it unfinished."""
    message = {"tenant_id": str(who.tenant_id), "erasure_id": str(erasure.id)}
    try:
        wiring.erasure_queue().send(json.dumps(message))
    except UnavailableError as error:
        logger.warning("erase not woken", exc_info=error)
    return _receipt(erasure)


def _receipt(erasure: Erasure) -> schemas.ErasureBody:
    settings = wiring.settings()
    return schemas.ErasureBody.of(erasure, cache_seconds=settings.cache_ttl_seconds, backup_days=settings.backup_days)


def _health(response: Response, *, model: bool) -> schemas.Health:
    found = dependencies.health(model=model)
    response.status_code = 503 if found.status == "down" else 200
    return found


def _cursor(collection: str, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([collection, key]).encode()).decode()


def _after(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    try:
        return CURSOR.validate_json(base64.urlsafe_b64decode(cursor))
    except ValueError:
        msg = "the cursor is not one that this API gave"
        raise InvalidRequestError(msg) from None
