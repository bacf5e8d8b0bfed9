"""Cohere's, Jina's and infinity's reranking: exact shapes, and what is refused in their words."""

import pytest
from fastapi.testclient import TestClient

from model.bundle import Student
from model.similarity import score_pairs

LONG = "listen " * 50
DOCUMENTS = ["stone", "silent", "banana"]
BODY = {"query": "listen", "documents": DOCUMENTS}
TOKENS = sum(2 + len(text) for text in ("listen", *DOCUMENTS))  # each text is read once


@pytest.fixture(scope="module")
def ranked(student: Student) -> list[tuple[int, float]]:
    """The documents' rows and scores, the best first."""
    pairs = [("listen", document) for document in DOCUMENTS]
    scores = student.score(score_pairs(student.encoder, student.head, pairs).logits).tolist()
    return sorted(enumerate(scores), key=lambda row: -row[1])


def test_jina_and_cohere_v1(client: TestClient, ranked: list[tuple[int, float]]) -> None:
    answer = client.post("/v1/rerank", json=BODY | {"model": "default"}).json()
    assert len(answer.pop("id")) == 36
    assert answer == {
        "model": "tiny-student",
        "results": [
            {"index": row, "relevance_score": pytest.approx(score), "document": {"text": DOCUMENTS[row]}}
            for row, score in ranked
        ],
        "usage": {"prompt_tokens": TOKENS, "total_tokens": TOKENS},
        "meta": {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}},
    }


def test_without_documents_and_the_best_few(client: TestClient, ranked: list[tuple[int, float]]) -> None:
    answer = client.post("/v1/rerank", json=BODY | {"return_documents": False, "top_n": 2}).json()
    assert answer["results"] == [{"index": row, "relevance_score": pytest.approx(score)} for row, score in ranked[:2]]
    assert len(client.post("/v1/rerank", json=BODY | {"top_n": 99}).json()["results"]) == 3


def test_documents_that_are_objects(client: TestClient) -> None:
    objects = [{"text": document, "title": "t"} for document in DOCUMENTS]
    plain = client.post("/v1/rerank", json=BODY).json()["results"]
    assert client.post("/v1/rerank", json=BODY | {"documents": objects}).json()["results"] == plain
    fields = {"documents": objects, "rank_fields": ["text"]}
    assert client.post("/v1/rerank", json=BODY | fields).json()["results"] == plain


def test_cohere_v2(client: TestClient, ranked: list[tuple[int, float]]) -> None:
    answer = client.post("/v2/rerank", json=BODY | {"model": "default", "priority": 0, "max_tokens_per_doc": 4096})
    body = answer.json()
    assert len(body.pop("id")) == 36
    assert body == {
        "results": [{"index": row, "relevance_score": pytest.approx(score)} for row, score in ranked],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": TOKENS, "output_tokens": 0},
        },
    }
    many = client.post("/v2/rerank", json={"query": "a", "documents": ["b"] * 101}).json()
    assert many["meta"]["billed_units"] == {"search_units": 2}


def test_infinity(client: TestClient, ranked: list[tuple[int, float]]) -> None:
    answer = client.post("/rerank", json=BODY | {"return_documents": True, "top_n": 2}).json()
    assert answer.pop("id").startswith("infinity-")
    assert answer.pop("created") > 1_700_000_000
    assert answer == {
        "object": "rerank",
        "results": [
            {"relevance_score": pytest.approx(score), "index": row, "document": DOCUMENTS[row]}
            for row, score in ranked[:2]
        ],
        "model": "tiny-student",
        "usage": {"prompt_tokens": TOKENS, "total_tokens": TOKENS},
    }
    bare = client.post("/rerank", json=BODY).json()["results"]
    assert bare == [{"relevance_score": pytest.approx(score), "index": row} for row, score in ranked]


def test_infinitys_raw_scores_are_logits(client: TestClient) -> None:
    raw = client.post("/rerank", json=BODY | {"raw_scores": True}).json()["results"]
    tei = client.post("/rerank", json={"query": "listen", "texts": DOCUMENTS, "raw_scores": True}).json()
    assert [(row["index"], row["relevance_score"]) for row in raw] == [(row["index"], row["score"]) for row in tei]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_the_teacher_is_asked_by_name(client: TestClient, path: str) -> None:
    pairs = {"query": "listen", "candidates": DOCUMENTS}
    read = [row["score"] for row in client.post("/v1/teacher/similarity", json=pairs).json()["results"]]
    results = client.post(path, json=BODY | {"model": "teacher"}).json()["results"]
    assert {row["index"]: row["relevance_score"] for row in results} == pytest.approx(dict(enumerate(read)))
    assert [row["relevance_score"] for row in results] == sorted(read, reverse=True)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_what_client_libraries_add_is_let_through(client: TestClient, path: str) -> None:
    assert client.post(path, json=BODY | {"max_chunks_per_doc": 10, "modality": "text"}).status_code == 200


REFUSALS = [
    ({"query": "a"}, 422, "documents: Field required"),
    ({"documents": ["a"]}, 422, "query: Field required"),
    ({"query": "a", "documents": []}, 422, "at least 1 item"),
    ({"query": "", "documents": ["a"]}, 422, "query: the text is empty"),
    ({"query": "a", "documents": ["b", ""]}, 422, "documents.1: the text is empty"),
    ({"query": "a", "documents": ["b", {"title": "c"}]}, 422, "documents.1: Input should be a valid string"),
    ({"query": "a", "documents": ["b", 5]}, 422, "documents.1: Input should be a valid string"),
    ({"query": "a", "documents": "b"}, 422, "documents: Input should be a valid list"),
    ({"query": "a", "documents": ["b"], "top_n": 0}, 422, "top_n: Input should be greater than or equal to 1"),
    ({"query": "a", "documents": ["b"], "model": "rerank-v3.5"}, 404, "no model is called 'rerank-v3.5'"),
    ({"query": "a", "documents": ["b"] * 1025}, 413, "DSE_MAX_BATCH"),
    ({"query": "a", "documents": ["b"] * 257, "model": "teacher"}, 413, "DSE_MAX_TEACHER_PAIRS"),
    ({"query": "a", "documents": [LONG], "truncate": False}, 422, "longer than the 32 tokens that tiny-student reads"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSALS)
def test_refusals_in_each_ones_words(client: TestClient, body: dict, status: int, message: str) -> None:
    v1, v2 = (client.post(path, json=body) for path in ("/v1/rerank", "/v2/rerank"))
    assert (v1.status_code, v2.status_code) == (status, status)
    assert set(v1.json()) == {"detail", "message"}
    assert set(v2.json()) == {"message"}
    assert v1.json()["detail"] == v1.json()["message"] == v2.json()["message"]
    assert message in v2.json()["message"]
    if "documents" in body:
        infinity = client.post("/rerank", json=body)
        assert infinity.status_code == status
        assert set(infinity.json()["error"]) == {"message", "type", "param", "code"}
        assert message in infinity.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "field", "message"),
    [
        ("/v2/rerank", {"rank_fields": ["text"]}, "rank_fields: Extra inputs are not permitted"),
        (
            "/v2/rerank",
            {"max_tokens_per_doc": 16},
            "tiny-student reads up to 32 tokens, and cannot be told to read fewer",
        ),
        ("/v2/rerank", {"relevant_spans": {"enabled": True}}, "relevant_spans: no model of this service can tell this"),
        ("/v1/rerank", {"rank_fields": ["title"]}, 'documents are ranked by their "text" alone'),
    ],
)
def test_wishes_that_cannot_be_granted_are_not_ignored(
    client: TestClient, path: str, field: dict, message: str
) -> None:
    answer = client.post(path, json=BODY | field)
    assert answer.status_code == 422
    assert message in answer.json()["message"]


def test_what_no_route_sees_is_refused_in_their_words_too(client: TestClient) -> None:
    for path, keys in [("/v1/rerank", {"detail", "message"}), ("/v2/rerank", {"message"})]:
        large = client.post(path, content=b"a" * 2**21)
        assert (large.status_code, set(large.json())) == (413, keys)
        assert set(client.get(path).json()) == keys
