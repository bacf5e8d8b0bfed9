"""The service's own routes under /v1: each translates a request into one call, and its result into the answer."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Response

from app.answers import UncutReader, refuse_long, score
from app.comparison import compare as compare_views
from app.comparison import ranks, view_of_candidates, view_of_index
from app.errors import ServiceError
from app.loading import Service
from app.retriever import CosineScorer, Found, HeadScorer, Retriever, Scorer, TeacherScorer
from app.routes.checks import within, within_reach
from app.routes.dependencies import LiveDep, ServiceDep, SettingsDep, TeacherDep, teacher_of
from app.routes.fields import json_response
from app.schemas import (
    Agreement,
    BatchSearchRequest,
    BatchSearchResponse,
    ComparedCandidate,
    CompareRequest,
    CompareResponse,
    ErrorBody,
    HitBody,
    Hits,
    Milliseconds,
    PairScore,
    SearchRequest,
    SearchResponse,
    SimilarityRequest,
    SimilarityResponse,
    Standing,
)
from app.settings import Settings
from index.contract import IndexView
from index.filters import parse_filter
from model.bundle import Student, Teacher

SECONDS_A_QUERY = 0.002
"""About what a search takes: by it, a batch of a few queries goes before one of many."""

_ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in (401, 404, 413, 422, 429, 503, 504)}

# Handlers are not async: inference is CPU work, so it belongs in a worker thread, off the event loop. What takes most
# requests makes its JSON there too: FastAPI would check the answer once more and change threads to write it.
router = APIRouter(prefix="/v1", responses=_ERRORS)


@router.post("/similarity", tags=["similarity"], response_model=SimilarityResponse)
def similarity(request: SimilarityRequest, service: ServiceDep, settings: SettingsDep) -> Response:
    """How similar are these sentences, by the student?"""
    return _similarity(service.student, request, settings)


@router.post("/teacher/similarity", tags=["similarity"], response_model=SimilarityResponse)
def teacher_similarity(request: SimilarityRequest, teacher: TeacherDep, settings: SettingsDep) -> Response:
    """How similar are these sentences, by the teacher, who reads both together?"""
    return _similarity(teacher, request, settings)


@router.post("/search", tags=["search"], response_model=SearchResponse)
def search(request: SearchRequest, service: ServiceDep, live: LiveDep, settings: SettingsDep) -> Response:
    """Documents that pair best with a text."""
    index = live.view()
    model, (found,) = _search_all([request.query], request, service, index, settings)
    return json_response(SearchResponse(hits=found.hits, truncated=found.truncated, model=model, generation=index.name))


@router.post("/search/batch", tags=["search"], response_model=BatchSearchResponse)
def search_batch(request: BatchSearchRequest, service: ServiceDep, live: LiveDep, settings: SettingsDep) -> Response:
    """Documents that pair best with each of several texts."""
    index = live.view()
    within(len(request.queries), settings.max_batch, "queries", "DSE_MAX_BATCH")
    model, answers = _search_all(request.queries, request, service, index, settings)
    return json_response(BatchSearchResponse(results=answers, model=model, generation=index.name))


@router.post("/compare", tags=["search"])
def compare(
    request: CompareRequest, service: ServiceDep, teacher: TeacherDep, settings: SettingsDep
) -> CompareResponse:
    """Student and teacher side by side: given candidates, or the best hits of the index."""
    student, query = service.searching if request.candidates is None else service.student, request.query
    asked = request.k if request.candidates is None else len(request.candidates)
    within(asked, settings.max_teacher_pairs, "candidates to compare", "DSE_MAX_TEACHER_PAIRS")
    if request.candidates is not None:
        view = partial(view_of_candidates, student, query, request.candidates, request.truncate)
    elif service.index is not None:
        wanted = None if request.filter is None else parse_filter(request.filter)
        index = service.index.view()
        depth = settings.depth_for(index.manifest.depth)
        within(max(request.k, depth), settings.max_depth, "candidates a query", "DSE_MAX_DEPTH")
        refuse_long(student, [query], request.truncate)
        view = partial(view_of_index, student, index, query, request.k, depth, wanted)
    else:
        raise ServiceError(404, "no index is loaded: give candidates, or start dse serve with --index DIR")
    found = compare_views(query, view, teacher.scorer if request.truncate else UncutReader(teacher))
    seen, student_ranks, teacher_ranks = found.student, ranks(found.student.logits), ranks(found.teacher_logits)
    student_scores, teacher_scores = student.score(seen.logits), teacher.score(found.teacher_logits)
    return CompareResponse(
        student=student.name,
        teacher=teacher.name,
        results=[
            ComparedCandidate(
                index=row,
                id=seen.ids[row],
                text=seen.texts[row],
                student=Standing(score=student_scores[row], rank=student_ranks[row]),
                teacher=Standing(score=teacher_scores[row], rank=teacher_ranks[row]),
            )
            for row in np.argsort(student_ranks)
        ],
        agreement=Agreement(spearman=found.agreement.spearman, kendall=found.agreement.kendall),
        milliseconds=Milliseconds(student=found.student_milliseconds, teacher=found.teacher_milliseconds),
        truncated=found.student.truncated or found.teacher_cut,
    )


def _similarity(model: Student | Teacher, request: SimilarityRequest, settings: Settings) -> Response:
    pairs = request.as_pairs()
    within_reach(model, len(pairs), "pairs", settings)
    scored = score(model, pairs, request.truncate)
    scores = scored.logits if request.raw_scores else scored.scores
    similarities = [None] * len(pairs) if scored.similarities is None else scored.similarities
    results = [
        PairScore(index=row, score=number, similarity=cosine, truncated=cut)
        for row, (number, cosine, cut) in enumerate(zip(scores, similarities, scored.truncated, strict=True))
    ]
    return json_response(SimilarityResponse(model=model.name, results=results))


def _search_all(
    texts: list[str],
    request: SearchRequest | BatchSearchRequest,
    service: Service,
    index: IndexView,
    settings: Settings,
) -> tuple[str, list[Hits]]:
    """Who scored, and the hits of each text."""
    wanted = None if request.filter is None else parse_filter(request.filter)
    model, scorer, most, setting = _scorer(request, service, settings)
    depth = max(request.k, request.depth or min(settings.depth_for(index.manifest.depth), most))
    within(depth, settings.max_depth, "candidates a query", "DSE_MAX_DEPTH")
    within(depth * len(texts), most, "candidates to score", setting)
    refuse_long(service.searching, texts, request.truncate)
    retriever = Retriever(service.searching.encoder, index)
    queries, found = retriever.queries(texts), []
    # A query alone waits for nobody; the teacher's queue has turns of its own.
    in_turns = len(queries) > 1 and request.rerank != "teacher"
    with service.batches.joined(SECONDS_A_QUERY * len(texts)) if in_turns else nullcontext(nullcontext) as turn:
        for query in queries:
            with turn():
                found.append(retriever.search(query, request.k, depth, scorer, wanted))
    return model, [_hits(answer) for answer in found]


def _hits(found: Found) -> Hits:
    bodies = [
        HitBody(
            id=hit.document.id,
            text=hit.document.text,
            score=hit.score,
            similarity=hit.similarity,
            metadata=hit.document.metadata,
        )
        for hit in found.hits
    ]
    return Hits(hits=bodies, truncated=found.truncated)


def _scorer(
    request: SearchRequest | BatchSearchRequest, service: Service, settings: Settings
) -> tuple[str, Scorer, int, str]:
    """Who scores: the model's name, the scorer, the most candidates it takes in a request, and the setting of that."""
    student = service.searching
    if request.rerank == "teacher":
        teacher = teacher_of(service, "rerank")
        reader = teacher.scorer if request.truncate else UncutReader(teacher)
        return teacher.name, TeacherScorer(reader, teacher.score), settings.max_teacher_pairs, "DSE_MAX_TEACHER_PAIRS"
    scorer = HeadScorer(student.head, student.score) if request.rerank == "head" else CosineScorer(student.similarity)
    return student.name, scorer, settings.max_candidates, "DSE_MAX_CANDIDATES"
