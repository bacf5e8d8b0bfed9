"""The dialect of text-embeddings-inference: embeddings, similarities, pair scores, reranking, and what is served."""

import time
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from app.answers import Work, embed, score
from app.registry import Models
from app.routes.checks import within, within_reach
from app.routes.dependencies import ModelsDep, SettingsDep
from app.routes.fields import Readable, Spoken, Texts, any_of, json_response, parsed
from app.settings import Settings
from model.bundle import Teacher

LABEL = "similarity"


class TeiError(BaseModel):
    """Every error of these routes."""

    error: str
    error_type: str


def _right(direction: Any) -> Any:
    """``Right``, in any case: the one end that texts are cut at."""
    if isinstance(direction, str) and direction.lower() == "left":
        raise ValueError("texts are cut at their end, the right; this cannot be changed")
    return direction.lower() if isinstance(direction, str) else direction


def _no_prompt(name: Any) -> Any:
    if name is not None:
        raise ValueError("the models of this service have no prompts; leave it out")
    return name


Direction = Annotated[
    Literal["right"] | None, BeforeValidator(_right), WithJsonSchema({"enum": ["right", "Right", None]})
]
NoPrompt = Annotated[None, BeforeValidator(_no_prompt)]


class EmbedRequest(Spoken):
    """Texts to embed."""

    inputs: Texts = Field(description="a text, or several; token ids are refused")
    truncation_direction: Direction = None
    prompt_name: NoPrompt = None
    normalize: bool | None = Field(
        None, description="accepted: the models end in a normalisation, so embeddings are of unit length either way"
    )
    dimensions: Annotated[int, Field(ge=1, le=65536)] | None = None


class SimilarityInputs(BaseModel):
    """A sentence, and those it is compared with."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    source_sentence: Readable
    sentences: list[Readable] = Field(min_length=1, fail_fast=True)


class SimilarityParameters(BaseModel):
    """How texts are read."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    truncate: bool | None = None
    truncation_direction: Direction = None
    prompt_name: NoPrompt = None


class SimilarityRequest(Spoken):
    """A sentence against others."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None

    @property
    def may_cut(self) -> bool:
        """Long texts are cut, unless this was forbidden, here or in the parameters."""
        return super().may_cut and not (self.parameters and self.parameters.truncate is False)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


_READABLES: TypeAdapter[list[str]] = TypeAdapter(list[Readable])
_READABLE_PAIRS: TypeAdapter[list[list[str]]] = TypeAdapter(Annotated[list[list[Readable]], Field(fail_fast=True)])


def _pairs(value: Any) -> list[str] | list[list[str]]:
    """A pair, or pairs, of readable texts; pydantic names the place of one that is not."""
    if _is_pair(value):
        return _READABLES.validate_python(value)
    if not isinstance(value, list) or not value or not all(map(_is_pair, value)):
        raise ValueError('models of this service score pairs: give ["text", "text"], or a list of such pairs')
    return _READABLE_PAIRS.validate_python(value)


_PAIR = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 2, "maxItems": 2}


class PredictRequest(Spoken):
    """A pair to score, or several."""

    inputs: Annotated[
        list[str] | list[list[str]],
        BeforeValidator(_pairs),
        WithJsonSchema({"anyOf": [_PAIR, {"type": "array", "items": _PAIR, "minItems": 1}]}),
    ]
    truncation_direction: Direction = None
    raw_scores: bool = False


class RerankRequest(Spoken):
    """A query and the texts to put in order."""

    query: Readable
    texts: list[Readable] = Field(min_length=1, fail_fast=True)
    truncation_direction: Direction = None
    raw_scores: bool = Field(False, description="answer the logit instead of the 0..1 score")
    return_text: bool = False
    top_n: Annotated[int, Field(ge=1)] | None = Field(
        None, description="answer the best few only; TEI has no such wish"
    )


class Prediction(BaseModel):
    """A pair's score, and what it is of."""

    score: float
    label: str


class Rank(BaseModel):
    """One text's place."""

    index: int
    score: float
    text: str | None = None


Predictions = list[Prediction] | list[list[Prediction]]
Embeddings = list[list[float]]

_ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": TeiError} for code in (404, 413, 422, 429, 503, 504)}

router = APIRouter(tags=["TEI"], responses=_ERRORS)


@router.post("/embed", responses={200: {"model": Embeddings}})
def embed_texts(request: EmbedRequest, models: ModelsDep, settings: SettingsDep) -> Response:
    """Embeddings of texts, of unit length."""
    return embeddings(request, models, settings)


@router.post("/similarity", responses={200: {"model": list[float]}})
def similarity(request: SimilarityRequest, models: ModelsDep, settings: SettingsDep) -> Response:
    """Cosines of a sentence with others, in input order."""
    return cosines(request, models, settings)


@router.post("/predict", responses={200: {"model": Predictions}})
def predict(request: PredictRequest, models: ModelsDep, settings: SettingsDep) -> Response:
    """Scores of pairs, in input order."""
    started, model = time.perf_counter(), models.named(request.model)
    single = _is_pair(request.inputs)
    pairs: Any = [request.inputs] if single else request.inputs
    within_reach(model, len(pairs), "pairs", settings)
    scored = score(model, [(left, right) for left, right in pairs], request.may_cut)
    numbers = scored.logits if request.raw_scores else scored.scores
    predictions = [[{"score": number, "label": LABEL}] for number in numbers.tolist()]
    return json_response(predictions[0] if single else predictions, timings(scored.work, started))


@router.post(
    "/",
    responses={200: {"model": Embeddings | list[float] | list[Rank]}},
    openapi_extra=any_of(EmbedRequest, SimilarityRequest, RerankRequest),
)
def by_body(body: dict[str, Any], models: ModelsDep, settings: SettingsDep) -> Response:
    """What the body asks for: embeddings, similarities or a ranking. The route of huggingface_hub's client."""
    if isinstance(body.get("inputs"), dict):
        return cosines(parsed(SimilarityRequest, body), models, settings)
    if "texts" in body:
        return ranking(parsed(RerankRequest, body), models, settings)
    return embeddings(parsed(EmbedRequest, body), models, settings)


@router.get("/info")
def info(
    models: ModelsDep,
    settings: SettingsDep,
    model: Annotated[str | None, Query(description="whom to tell of; by default the default student")] = None,
) -> dict[str, Any]:
    """What is served, and within which limits."""
    told = models.named(model)
    labels = {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}
    teacher = isinstance(told, Teacher)
    return {
        "model_id": told.name,
        "model_sha": None if isinstance(told, Teacher) else told.encoder_digest,
        "model_dtype": None if isinstance(told, Teacher) else {"int8": "int8", "fp32": "float32"}[told.graph],
        "served_model_name": told.name,
        "model_type": {"reranker": labels} if teacher else {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": settings.max_requests,
        "max_input_length": told.max_tokens,
        "max_batch_tokens": settings.tokens_of_a_batch,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_teacher_pairs if teacher else settings.max_batch,
        "auto_truncate": True,
        "tokenization_workers": settings.threads,
        "version": version("dse"),
        "sha": None,
        "docker_label": None,
    }


def embeddings(request: EmbedRequest, models: Models, settings: Settings) -> Response:
    """``[[number, ...], ...]``."""
    started, student = time.perf_counter(), models.student(request.model)
    within(len(request.inputs), settings.max_batch, "inputs", "DSE_MAX_BATCH")
    embedded = embed(student, request.inputs, request.dimensions, request.may_cut)
    return json_response(embedded.embeddings.tolist(), timings(embedded.work, started))


def cosines(request: SimilarityRequest, models: Models, settings: Settings) -> Response:
    """``[number, ...]``."""
    started, student, inputs = time.perf_counter(), models.student(request.model), request.inputs
    within(len(inputs.sentences), settings.max_batch, "sentences", "DSE_MAX_BATCH")
    scored = score(student, [(inputs.source_sentence, sentence) for sentence in inputs.sentences], request.may_cut)
    assert scored.similarities is not None  # a student has them
    return json_response(scored.similarities.tolist(), timings(scored.work, started))


def ranking(request: RerankRequest, models: Models, settings: Settings) -> Response:
    """``[{"index", "score", "text"?}, ...]``, the best first."""
    started, model = time.perf_counter(), models.named(request.model)
    within_reach(model, len(request.texts), "texts", settings)
    scored = score(model, [(request.query, text) for text in request.texts], request.may_cut)
    numbers = scored.logits if request.raw_scores else scored.scores
    ranked = [
        {"index": row, "score": numbers[row]} | ({"text": request.texts[row]} if request.return_text else {})
        for row in scored.ranked()[: request.top_n].tolist()
    ]
    return json_response(ranked, timings(scored.work, started))


def timings(work: Work, started: float) -> dict[str, str]:
    """TEI's headers: what an answer cost, in whole milliseconds."""

    def milliseconds(seconds: float) -> str:
        return str(round(1000 * seconds))

    total = milliseconds(time.perf_counter() - started)
    return {
        "x-compute-type": "cpu",
        "x-compute-time": total,
        "x-compute-characters": str(work.characters),
        "x-compute-tokens": str(work.tokens),
        "x-total-time": total,
        "x-tokenization-time": milliseconds(work.tokenization_seconds),
        "x-queue-time": milliseconds(work.queue_seconds),
        "x-inference-time": milliseconds(work.inference_seconds - work.queue_seconds),
    }
