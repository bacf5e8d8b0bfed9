"""Change the index while it is searched, and say what it holds."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from app.answers import refuse_cut
from app.auth import AdminOnly
from app.calls import stage
from app.errors import ServiceError
from app.routes.checks import within
from app.routes.dependencies import LiveDep, ServiceDep, SettingsDep, WritableDep
from app.routes.paths import ID
from app.schemas import (
    DocumentBody,
    DocumentStatus,
    ErrorBody,
    IndexResponse,
    ProvenRecall,
    PutDocumentsRequest,
    PutDocumentsResponse,
)
from app.upkeep import abandonable
from index.contract import Index, IndexView
from index.documents import Document

_ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in (401, 404, 422, 429, 503, 504)}
_WRITE_ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in (403, 409)}

Id = Annotated[str, Path(description="the id, percent-encoded where it must be; it may hold slashes")]

router = APIRouter(prefix="/v1", responses=_ERRORS)


@router.put(
    "/documents", tags=["documents"], dependencies=[AdminOnly], responses=_WRITE_ERRORS | {413: {"model": ErrorBody}}
)
def put_documents(
    request: PutDocumentsRequest, service: ServiceDep, index: WritableDep, settings: SettingsDep
) -> PutDocumentsResponse:
    """Add documents, or replace them by id; all or, after an error, none."""
    within(len(request.documents), settings.max_batch, "documents", "DSE_MAX_BATCH")
    encoder = service.searching.encoder
    with stage("tokenize"):
        tokens = encoder.tokenize([document.text for document in request.documents])
    refuse_cut(tokens.truncated, request.truncate, service.searching)
    documents = [Document(document.id, document.text, document.metadata) for document in request.documents]
    statuses = index.upsert(documents, encoder.embed(tokens))
    answers = zip(documents, statuses, tokens.truncated.tolist(), strict=True)
    return PutDocumentsResponse(
        results=[DocumentStatus(id=document.id, status=status, truncated=cut) for document, status, cut in answers]
    )


@router.get(f"/documents/{ID}", tags=["documents"])
def get_document(id: Id, live: LiveDep) -> DocumentBody:
    """A document, by its id."""
    found = live.view().get(id)
    if found is None:
        raise _unknown(id)
    return DocumentBody(id=found.id, text=found.text, metadata=found.metadata)


@router.delete(
    f"/documents/{ID}", tags=["documents"], status_code=204, dependencies=[AdminOnly], responses=_WRITE_ERRORS
)
def delete_document(id: Id, index: WritableDep) -> None:
    """Remove a document; the next search does not find it."""
    if not index.delete([id]):
        raise _unknown(id)


@router.get("/index", tags=["index"])
def index_facts(live: LiveDep) -> IndexResponse:
    """What is being searched."""
    return _facts(live.view(), live)


@router.post("/index/reload", tags=["index"], dependencies=[AdminOnly], responses=_WRITE_ERRORS)
async def reload(live: LiveDep) -> IndexResponse:
    """Take up the generation that is live now; requests under way end with the one they began with."""
    return await abandonable(lambda: _facts(live.reload(), live))


@router.post("/index/compact", tags=["index"], dependencies=[AdminOnly], responses=_WRITE_ERRORS)
async def compact(index: WritableDep) -> IndexResponse:
    """Fold the changes into a new generation. Searches and writes go on meanwhile."""
    return await abandonable(lambda: _facts(index.compact(), index))


def _facts(index: IndexView, live: Index) -> IndexResponse:
    facts = index.manifest
    return IndexResponse(
        generation=index.name,
        documents=len(index),
        dims=facts.dims,
        recipe=facts.recipe,
        model=facts.encoder.name,
        encoder_digest=facts.encoder.digest,
        created=facts.measured.get("created"),
        recall=ProvenRecall.model_validate(facts.proof.model_dump()) if facts.proof else None,
        changes_pending=index.pending,
        read_only=not live.writable or live.stays_because is not None,
        stays_because=live.stays_because,
    )


def _unknown(id_: str) -> ServiceError:
    return ServiceError(404, f"no document has the id {id_[:100]!r}", "id")
