"""OpenAI's dialect: embeddings, and the list of models."""

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from app.answers import embed
from app.registry import Models
from app.routes.checks import within
from app.routes.dependencies import ModelsDep, SettingsDep
from app.routes.fields import Spoken, Texts, json_response
from app.routes.paths import MODEL
from model.bundle import Student, Teacher


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """Every error of these routes."""

    error: OpenAIErrorDetail


class EmbeddingsRequest(Spoken):
    """Texts to embed."""

    input: Texts = Field(description="a text, or several; token ids are refused")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: float32 numbers, little-endian; null: float"
    )
    dimensions: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        None, description="cut embeddings to this many numbers; one of those that the model was trained for"
    )
    user: str | None = Field(None, description="accepted, and not used")


class Embedding(BaseModel):
    """One text's embedding."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """What was read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Embeddings in input order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelFacts(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when it was loaded, in seconds since 1970")
    owned_by: Literal["dse"] = "dse"
    max_model_len: int = Field(description="tokens that it reads; texts are cut after them")


class ModelList(BaseModel):
    """The models that are served, the default first."""

    object: Literal["list"] = "list"
    data: list[ModelFacts]


_ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": OpenAIError} for code in (404, 413, 422, 429, 503, 504)}
_OK: dict[int | str, dict[str, Any]] = {200: {"model": EmbeddingsResponse}}

router = APIRouter(tags=["OpenAI"], responses=_ERRORS)


@router.post("/embeddings", include_in_schema=False)
@router.post("/v1/embeddings", responses=_OK)
def embeddings(request: EmbeddingsRequest, models: ModelsDep, settings: SettingsDep) -> Response:
    """Embeddings of texts, of unit length."""
    within(len(request.input), settings.max_batch, "texts", "DSE_MAX_BATCH")
    student = models.student(request.model)
    embedded = embed(student, request.input, request.dimensions, request.may_cut)
    rows: list[Any]
    if request.encoding_format == "base64":
        rows = [base64.b64encode(row).decode() for row in embedded.embeddings.astype("<f4")]
    else:
        rows = embedded.embeddings.tolist()
    return json_response(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
            "model": student.name,
            "usage": {"prompt_tokens": embedded.work.tokens, "total_tokens": embedded.work.tokens},
        }
    )


@router.get("/models", include_in_schema=False)
@router.get("/v1/models")
def model_list(models: ModelsDep) -> ModelList:
    """Who can be asked."""
    return ModelList(data=[_facts(model, models) for model in models.all])


@router.get(f"/models/{MODEL}", include_in_schema=False)
@router.get(f"/v1/models/{MODEL}")
def model_facts(model: Annotated[str, Path(description="a name, or an alias")], models: ModelsDep) -> ModelFacts:
    """One model, by its name or an alias."""
    return _facts(models.named(model), models)


def _facts(model: Student | Teacher, models: Models) -> ModelFacts:
    return ModelFacts(id=model.name, created=models.created, max_model_len=model.max_tokens)
