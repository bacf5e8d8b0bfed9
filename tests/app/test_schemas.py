"""What a faulty body costs: of its faults one is told, so few are looked for."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from app import schemas
from app.routes import openai, rerank, tei

MANY = 1000
UNKNOWN = {f"unknown {number}": 1 for number in range(MANY)}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (schemas.SimilarityRequest, {"query": "a", "candidates": [1] * MANY}),
        (schemas.SimilarityRequest, {"pairs": [["a"]] * MANY}),
        (schemas.SimilarityRequest, {"pairs": [[1] * MANY]}),
        (schemas.SimilarityRequest, {"pairs": [["a", "b"]]} | UNKNOWN),
        (schemas.BatchSearchRequest, {"queries": [""] * MANY}),
        (schemas.SearchRequest, {"query": "a"} | UNKNOWN),
        (schemas.CompareRequest, {"query": "a", "candidates": [[]] * MANY}),
        (schemas.PutDocumentsRequest, {"documents": [{}] * MANY}),
        (schemas.PutDocumentsRequest, {"documents": [{"id": "a", "text": "a"} | UNKNOWN]}),
        (openai.EmbeddingsRequest, {"input": [None] * MANY}),
        (tei.EmbedRequest, {"inputs": [""] * MANY}),
        (tei.SimilarityRequest, {"inputs": {"source_sentence": "a", "sentences": [1] * MANY}}),
        (tei.PredictRequest, {"inputs": [["a", ""]] * MANY}),
        (tei.RerankRequest, {"query": "a", "texts": [1] * MANY}),
        (rerank.InfinityRerankRequest, {"query": "a", "documents": [{}] * MANY}),
        (rerank.RerankRequest, {"query": "a", "documents": [1] * MANY}),
        (rerank.RerankV2Request, {"query": "a", "documents": ["b"]} | UNKNOWN),
    ],
)
def test_of_a_thousand_faults_a_few_are_noted(kind: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(body)
    assert refused.value.error_count() < 3


def test_the_unknown_field_that_is_told_is_the_first() -> None:
    with pytest.raises(ValidationError) as refused:
        schemas.SearchRequest.model_validate({"query": "a", "deep": 9, "top": 3})
    (fault,) = refused.value.errors()
    assert fault["loc"] == ("deep",)
