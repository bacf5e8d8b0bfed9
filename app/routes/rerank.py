"""Reranking as Cohere, Jina and infinity speak it. TEI's is told from infinity's, on their common path, by the body."""

import math
import time
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from app import dialects
from app.answers import Scored, score
from app.errors import ServiceError
from app.registry import Models
from app.routes import tei
from app.routes.checks import within_reach
from app.routes.dependencies import ModelsDep, SettingsDep
from app.routes.fields import Documents, Readable, Spoken, any_of, json_response, parsed
from app.routes.openai import OpenAIError, Usage
from app.schemas import Closed
from app.settings import Settings
from model.bundle import Student, Teacher

DOCUMENTS_A_SEARCH_UNIT = 100
"""As Cohere bills them."""


def _only_text(fields: Any) -> Any:
    if fields not in (None, ["text"]):
        raise ValueError('documents are ranked by their "text" alone; put there what is to be read')
    return fields


def _unsupported(value: Any) -> Any:
    if value is not None:
        raise ValueError("no model of this service can tell this; leave it out")
    return value


TopN = Annotated[int, Field(ge=1, description="answer the best few only")] | None


class _Ranking(Spoken):
    query: Readable
    documents: Documents
    top_n: TopN = None


class InfinityRerankRequest(_Ranking):
    """infinity's: documents are texts, and are answered as such."""

    return_documents: bool = False
    raw_scores: bool = Field(False, description="answer the logit instead of the 0..1 score")


class RerankRequest(_Ranking):
    """Jina's, and Cohere's first version."""

    return_documents: bool | None = Field(None, description="answer the texts too, as Jina does unless told otherwise")
    rank_fields: Annotated[list[str] | None, BeforeValidator(_only_text)] = None


class RerankV2Request(_Ranking, Closed):
    """Cohere's second version; unknown fields are refused, as Cohere does."""

    return_documents: bool | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = Field(
        None, description="accepted where the model reads no more anyway"
    )
    relevant_spans: Annotated[None, BeforeValidator(_unsupported)] = None
    priority: int | None = Field(None, description="accepted, and not used")


class RankedDocument(BaseModel):
    """A text that was ranked."""

    text: str


class Ranked(BaseModel):
    """One document's place."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


class InfinityRanked(BaseModel):
    """One document's place."""

    index: int
    relevance_score: float
    document: str | None = None


class InfinityRerankResponse(BaseModel):
    """Documents, the best first."""

    object: Literal["rerank"]
    results: list[InfinityRanked]
    model: str
    usage: Usage
    id: str
    created: int


class RerankResponse(BaseModel):
    """Documents, the best first: Jina's answer, with Cohere's ``id`` and ``meta``."""

    id: str
    model: str
    results: list[Ranked]
    usage: Usage
    meta: dict[str, Any]


class RerankV2Response(BaseModel):
    """Documents, the best first."""

    id: str
    results: list[Ranked]
    meta: dict[str, Any]


class JinaError(BaseModel):
    """Every error of ``/v1/rerank``: Jina's ``detail`` and Cohere's ``message``, which are the same."""

    detail: str
    message: str


class CohereError(BaseModel):
    """Every error of ``/v2/rerank``."""

    message: str


def _errors(model: Any) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": model} for code in (404, 413, 422, 429, 503, 504)}


router = APIRouter(tags=["rerank"])


@router.post(
    "/rerank",
    responses=_errors(tei.TeiError | OpenAIError) | {200: {"model": list[tei.Rank] | InfinityRerankResponse}},
    openapi_extra=any_of(tei.RerankRequest, InfinityRerankRequest),
)
def rerank_by_body(body: dict[str, Any], request: Request, models: ModelsDep, settings: SettingsDep) -> Response:
    """Put texts in order: TEI's way where the body has ``texts``, infinity's where it has ``documents``."""
    if "documents" not in body:
        return tei.ranking(parsed(tei.RerankRequest, body), models, settings)
    dialects.tell(request.scope, dialects.openai)
    asked = parsed(InfinityRerankRequest, body)
    model, scored = _score(asked, models, settings)
    numbers = scored.logits if asked.raw_scores else scored.scores
    documents = asked.documents if asked.return_documents else None
    return json_response(
        {
            "object": "rerank",
            "results": [
                {"relevance_score": numbers[row], "index": row} | ({"document": documents[row]} if documents else {})
                for row in scored.ranked()[: asked.top_n].tolist()
            ],
            "model": model.name,
            "usage": _usage(scored),
            "id": f"infinity-{uuid.uuid4()}",
            "created": int(time.time()),
        }
    )


@router.post("/v1/rerank", responses=_errors(JinaError) | {200: {"model": RerankResponse}})
def rerank_v1(request: RerankRequest, models: ModelsDep, settings: SettingsDep) -> Response:
    """Put documents in order, as Jina and Cohere's first version answer."""
    model, scored = _score(request, models, settings)
    return json_response(
        {
            "id": str(uuid.uuid4()),
            "model": model.name,
            "results": _results(request, scored, request.return_documents is not False),
            "usage": _usage(scored),
            "meta": _meta("1", len(request.documents)),
        }
    )


@router.post("/v2/rerank", responses=_errors(CohereError) | {200: {"model": RerankV2Response}})
def rerank_v2(request: RerankV2Request, models: ModelsDep, settings: SettingsDep) -> Response:
    """Put documents in order, as Cohere's second version answers."""
    read = models.named(request.model)
    if request.max_tokens_per_doc is not None and request.max_tokens_per_doc < read.max_tokens:
        message = f"{read.name} reads up to {read.max_tokens} tokens, and cannot be told to read fewer; leave it out"
        raise ServiceError(422, message, "max_tokens_per_doc")
    _, scored = _score(request, models, settings)
    tokens = {"input_tokens": scored.work.tokens, "output_tokens": 0}
    return json_response(
        {
            "id": str(uuid.uuid4()),
            "results": _results(request, scored, request.return_documents is True),
            "meta": _meta("2", len(request.documents)) | {"tokens": tokens},
        }
    )


def _score(request: _Ranking, models: Models, settings: Settings) -> tuple[Student | Teacher, Scored]:
    model = models.named(request.model)
    within_reach(model, len(request.documents), "documents", settings)
    return model, score(model, [(request.query, document) for document in request.documents], request.may_cut)


def _results(request: _Ranking, scored: Scored, with_documents: bool) -> list[dict[str, Any]]:
    return [
        {"index": row, "relevance_score": scored.scores[row]}
        | ({"document": {"text": request.documents[row]}} if with_documents else {})
        for row in scored.ranked()[: request.top_n].tolist()
    ]


def _usage(scored: Scored) -> dict[str, int]:
    return {"prompt_tokens": scored.work.tokens, "total_tokens": scored.work.tokens}


def _meta(api_version: str, documents: int) -> dict[str, Any]:
    units = math.ceil(documents / DOCUMENTS_A_SEARCH_UNIT)
    return {"api_version": {"version": api_version}, "billed_units": {"search_units": units}}
