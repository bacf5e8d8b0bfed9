"""The HTTP contract, through a real application over tiny models."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.retriever import Found, Query, Retriever
from app.settings import Settings
from model.bundle import Student, load_teacher
from model.tokens import PairTokenizer, PairTokens
from tests.conftest import WORDS
from tests.tiny import write_ensemble
from tests.waiting import until


@pytest.fixture(scope="session")
def alone(settings: Settings) -> TestClient:
    """A service with a student and nothing else."""
    return TestClient(create_app(settings.model_copy(update={"teacher": None, "index": None})))


def test_similarity_of_pairs_in_input_order(client: TestClient, student: Student) -> None:
    pairs = [["listen", "silent"], ["banana", "google"], ["stone", "stone"]]
    answer = client.post("/v1/similarity", json={"pairs": pairs}).json()
    left, right = (student.encoder.encode([pair[side] for pair in pairs]) for side in (0, 1))
    scores = student.score(student.head.logits(left, right))
    assert answer["model"] == "tiny-student"
    assert [row["index"] for row in answer["results"]] == [0, 1, 2]
    assert [row["score"] for row in answer["results"]] == pytest.approx(scores.tolist(), abs=1e-6)
    assert answer["results"][2]["similarity"] == pytest.approx(1)
    assert not any(row["truncated"] for row in answer["results"])


def test_a_query_against_candidates_is_the_same_as_pairs(client: TestClient) -> None:
    by_pairs = client.post("/v1/similarity", json={"pairs": [["a", "b"], ["a", "c"]]}).json()
    by_query = client.post("/v1/similarity", json={"query": "a", "candidates": ["b", "c"]}).json()
    assert by_query == by_pairs


def test_raw_scores_are_logits(client: TestClient) -> None:
    body = {"pairs": [["listen", "stone"]]}
    (plain,) = client.post("/v1/similarity", json=body).json()["results"]
    (raw,) = client.post("/v1/similarity", json=body | {"raw_scores": True}).json()["results"]
    assert plain["score"] == pytest.approx(1 / (1 + np.exp(-raw["score"])))


def test_the_teachers_similarity(client: TestClient, settings: Settings) -> None:
    answer = client.post("/v1/teacher/similarity", json={"pairs": [["ab", "c"]]}).json()
    assert settings.teacher is not None
    teacher = load_teacher(settings.teacher, threads=1)
    expected = teacher.score(teacher.scorer.score([("ab", "c")]).logits)[0]
    result = {"index": 0, "score": pytest.approx(expected), "similarity": None, "truncated": False}
    assert answer == {"model": "tiny-teacher", "results": [result]}


def test_an_ensemble_serves_as_the_teacher(settings: Settings, tmp_path: Path) -> None:
    folder = write_ensemble(tmp_path / "ensemble")
    ensemble = TestClient(create_app(settings.model_copy(update={"teacher": folder})))
    pairs = [["listen", "silent"], ["banana", "google"]]
    answer = ensemble.post("/v1/teacher/similarity", json={"pairs": pairs, "raw_scores": True}).json()
    expected = load_teacher(folder, threads=1).scorer.score([(left, right) for left, right in pairs]).logits
    assert answer["model"] == "tiny-ensemble"
    assert [row["score"] for row in answer["results"]] == pytest.approx(expected.tolist())
    long = {"pairs": [["ab " * 50, "c"]], "truncate": False}
    refused = ensemble.post("/v1/teacher/similarity", json=long)
    assert "longer than the 64 tokens that tiny-ensemble reads" in refused.json()["error"]["message"]


def test_search_answers_documents_best_first(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "listen", "k": 3}).json()
    assert (answer["model"], answer["generation"], answer["truncated"]) == ("tiny-student", "000001", False)
    assert len(answer["hits"]) == 3
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    for hit in answer["hits"]:
        assert hit["text"] == WORDS[int(hit["id"][1:])]
        assert hit["metadata"] == {"length": len(hit["text"])}


@pytest.mark.parametrize(
    ("rerank", "model"), [("head", "tiny-student"), ("none", "tiny-student"), ("teacher", "tiny-teacher")]
)
def test_who_ranks_is_named(client: TestClient, rerank: str, model: str) -> None:
    answer = client.post("/v1/search", json={"query": "stone", "rerank": rerank}).json()
    assert answer["model"] == model
    assert len(answer["hits"]) == 10


def test_without_reranking_hits_are_in_order_of_similarity(client: TestClient) -> None:
    hits = client.post("/v1/search", json={"query": "stone", "rerank": "none"}).json()["hits"]
    similarities = [hit["similarity"] for hit in hits]
    assert similarities == sorted(similarities, reverse=True)
    assert hits[0]["score"] == pytest.approx(1 / (1 + np.exp(2 - 4 * similarities[0])), abs=1e-6)


@pytest.mark.parametrize("rerank", ["head", "none", "teacher"])
def test_a_similarity_is_the_same_number_wherever_it_is_asked_for(client: TestClient, rerank: str) -> None:
    hits = client.post("/v1/search", json={"query": "stone", "rerank": rerank}).json()["hits"]
    pairs = {"query": "stone", "candidates": [hit["text"] for hit in hits]}
    compared = client.post("/v1/similarity", json=pairs).json()["results"]
    similarities = [hit["similarity"] for hit in hits]
    assert similarities == [round(similarity, 5) for similarity in similarities]
    assert similarities == pytest.approx([row["similarity"] for row in compared], abs=1.1e-5)


def test_a_batch_is_its_searches(client: TestClient) -> None:
    batch = client.post("/v1/search/batch", json={"queries": ["listen", "stone"], "k": 4}).json()
    single = [client.post("/v1/search", json={"query": q, "k": 4}).json() for q in ("listen", "stone")]
    assert batch["generation"] == "000001"
    for together, alone in zip(batch["results"], single, strict=True):
        assert [hit["id"] for hit in together["hits"]] == [hit["id"] for hit in alone["hits"]]
        assert [hit["score"] for hit in together["hits"]] == pytest.approx([hit["score"] for hit in alone["hits"]])


def test_batches_are_searched_one_after_the_other_and_a_query_alone_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many at a time as there are threads: of batches that share them, all would be late."""
    order: list[str] = []
    search = Retriever.search

    def noted(self: Retriever, query: Query, *options: Any) -> Found:
        order.append(query.text)
        time.sleep(0.01)
        return search(self, query, *options)

    monkeypatch.setattr(Retriever, "search", noted)
    client = TestClient(create_app(settings.model_copy(update={"threads": 1})))

    def batch(word: str) -> list[str]:
        answer = client.post("/v1/search/batch", json={"queries": [word] * 40, "k": 1, "rerank": "none"}).json()
        return [found["hits"][0]["text"] for found in answer["results"]]

    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(batch, "listen")]
        until(lambda: bool(order))
        asked += [threads.submit(batch, word) for word in ("stone", "notes")]
        until(lambda: order.count("listen") > 5)
        alone = client.post("/v1/search", json={"query": "google", "k": 1, "rerank": "none"}).json()
    assert [answer.result() for answer in asked] == [["listen"] * 40, ["stone"] * 40, ["notes"] * 40]
    assert alone["hits"][0]["text"] == "google"
    assert order.index("google") < 40
    order.remove("google")
    assert sum(word != before for word, before in pairwise(order)) == 2


def test_only_documents_that_a_filter_lets_through(client: TestClient) -> None:
    wanted = {"length": {"$in": [5, 7]}, "$not": {"length": {"$gt": 6}}}
    answer = client.post("/v1/search", json={"query": "silent", "filter": wanted}).json()
    assert sorted(hit["text"] for hit in answer["hits"]) == sorted(word for word in WORDS if len(word) == 5)
    batch = client.post("/v1/search/batch", json={"queries": ["silent"], "filter": wanted}).json()
    assert batch["results"][0]["hits"] == answer["hits"]
    nothing = client.post("/v1/search", json={"query": "silent", "filter": {"length": "5"}})
    assert (nothing.status_code, nothing.json()["hits"]) == (200, [])


def test_compare_given_candidates(client: TestClient) -> None:
    candidates = ["stone", "listen", "google"]
    answer = client.post("/v1/compare", json={"query": "notes", "candidates": candidates}).json()
    assert (answer["student"], answer["teacher"]) == ("tiny-student", "tiny-teacher")
    assert [row["student"]["rank"] for row in answer["results"]] == [1, 2, 3]
    assert sorted(row["teacher"]["rank"] for row in answer["results"]) == [1, 2, 3]
    assert [candidates[row["index"]] for row in answer["results"]] == [row["text"] for row in answer["results"]]
    pairs = {"query": "notes", "candidates": candidates}
    by_student = client.post("/v1/similarity", json=pairs).json()["results"]
    by_teacher = client.post("/v1/teacher/similarity", json=pairs).json()["results"]
    for row in answer["results"]:
        assert row["student"]["score"] == pytest.approx(by_student[row["index"]]["score"])
        assert row["teacher"]["score"] == pytest.approx(by_teacher[row["index"]]["score"])
    assert answer["milliseconds"]["teacher"] > 0


def test_the_agreement_is_that_of_the_ranks(client: TestClient) -> None:
    answer = client.post("/v1/compare", json={"query": "notes", "candidates": WORDS}).json()
    student, teacher = ([row[side]["score"] for row in answer["results"]] for side in ("student", "teacher"))
    assert len(set(student)) == len(set(teacher)) == len(WORDS)
    pulls = [
        np.sign((student[a] - student[b]) * (teacher[a] - teacher[b])) for a, b in combinations(range(len(WORDS)), 2)
    ]
    ranks = [np.argsort(np.argsort(scores)) for scores in (student, teacher)]
    kendall, spearman = np.mean(pulls), np.corrcoef(ranks)[0, 1]
    assert kendall != pytest.approx(spearman)
    assert answer["agreement"] == {"kendall": pytest.approx(kendall), "spearman": pytest.approx(spearman)}


def test_compare_the_hits_of_a_search(client: TestClient) -> None:
    answer = client.post("/v1/compare", json={"query": "notes", "k": 4}).json()
    hits = client.post("/v1/search", json={"query": "notes", "k": 4}).json()["hits"]
    assert [row["id"] for row in answer["results"]] == [hit["id"] for hit in hits]
    assert [row["student"]["score"] for row in answer["results"]] == pytest.approx([hit["score"] for hit in hits])


def test_compare_the_hits_that_a_filter_lets_through(client: TestClient) -> None:
    asked = {"query": "notes", "k": 4, "filter": {"length": 6}}
    answer = client.post("/v1/compare", json=asked).json()
    hits = client.post("/v1/search", json=asked).json()["hits"]
    assert hits
    assert {len(hit["text"]) for hit in hits} == {6}
    assert [row["id"] for row in answer["results"]] == [hit["id"] for hit in hits]


def test_compare_takes_a_filter_that_can_be_applied(client: TestClient) -> None:
    wrong = client.post("/v1/compare", json={"query": "notes", "filter": {"length": {"$above": 6}}})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "filter.length.$above")
    useless = client.post("/v1/compare", json={"query": "notes", "candidates": ["stone"], "filter": {"length": 6}})
    assert useless.status_code == 422
    assert "give either candidates or a filter" in useless.json()["error"]["message"]


def test_index_facts(client: TestClient, student: Student) -> None:
    facts = client.get("/v1/index").json()
    assert facts["created"]
    del facts["created"]
    assert facts == {
        "generation": "000001",
        "documents": len(WORDS),
        "dims": 16,
        "recipe": "Flat",
        "recall": {"target": 0.95, "k": 10, "recall": 1.0, "lower_bound": 1.0, "queries": len(WORDS)},
        "model": "tiny-student",
        "encoder_digest": student.encoder_digest,
        "changes_pending": 0,
        "read_only": False,
        "stays_because": None,
    }


def test_probes(client: TestClient) -> None:
    ready = {"status": "ready", "model": "tiny-student", "teacher": "tiny-teacher", "generation": "000001"}
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == client.get("/health").json() == ready


def test_the_page_and_its_assets(client: TestClient) -> None:
    page = client.get("/")
    for asset in ("/ui/page.js", "/ui/style.css", "/ui/icon.svg"):
        assert asset in page.text
        answer = client.get(asset)
        assert answer.status_code == 200
        # No script, style or host of anybody else; never framed; asked for again after an upgrade.
        for headers in (page.headers, answer.headers):
            assert headers["content-security-policy"].startswith("default-src 'self'; ")
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-cache"


def test_long_text_is_cut_and_says_so_or_is_refused(client: TestClient) -> None:
    body = {"query": "listen " * 50, "candidates": ["stone"]}
    assert client.post("/v1/similarity", json=body).json()["results"][0]["truncated"]
    assert client.post("/v1/search", json={"query": "listen " * 50}).json()["truncated"]
    refused = client.post("/v1/similarity", json=body | {"truncate": False})
    assert refused.status_code == 422
    assert "longer than the 32 tokens" in refused.json()["error"]["message"]


LONG = "listen " * 50  # 32 tokens are read by the student, 64 by the teacher


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/v1/similarity", {"pairs": [["stone", LONG]]}, "32 tokens that tiny-student"),
        ("/v1/teacher/similarity", {"pairs": [["stone", LONG]]}, "64 tokens that tiny-teacher"),
        ("/v1/search", {"query": LONG}, "32 tokens that tiny-student"),
        ("/v1/search/batch", {"queries": ["stone", LONG]}, "32 tokens that tiny-student"),
        ("/v1/compare", {"query": LONG}, "32 tokens that tiny-student"),
        ("/v1/compare", {"query": "stone", "candidates": [LONG]}, "32 tokens that tiny-student"),
    ],
)
def test_truncate_false_refuses_on_every_route(client: TestClient, path: str, body: dict, model: str) -> None:
    assert "true" in client.post(path, json=body).text
    refused = client.post(path, json=body | {"truncate": False})
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == "truncate"
    assert model in refused.json()["error"]["message"]


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/teacher/similarity", {"pairs": [["listen", "stone"]]}),
        ("/v1/search", {"query": "listen", "rerank": "teacher"}),
        ("/v1/compare", {"query": "listen", "candidates": ["stone"]}),
    ],
)
def test_what_the_teacher_reads_is_tokenised_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict, truncate: bool
) -> None:
    tokenised, tokenize = [], PairTokenizer.tokenize

    def noted(tokenizer: PairTokenizer, pairs: list[tuple[str, str]]) -> PairTokens:
        tokenised.append(pairs)
        return tokenize(tokenizer, pairs)

    monkeypatch.setattr(PairTokenizer, "tokenize", noted)
    assert client.post(path, json=body | {"truncate": truncate}).status_code == 200
    assert len(tokenised) == 1


def test_what_only_the_teacher_cannot_read_to_its_end(tmp_path, settings: Settings) -> None:
    from tests.tiny import write_teacher

    brief = write_teacher(tmp_path / "brief", name="brief", max_tokens=12)
    client = TestClient(create_app(settings.model_copy(update={"teacher": brief})))
    for path, extra in (("/v1/search", {"rerank": "teacher"}), ("/v1/compare", {})):
        body = {"query": "listen silent"} | extra
        assert client.post(path, json=body).json()["truncated"]
        refused = client.post(path, json=body | {"truncate": False})
        assert refused.status_code == 422
        assert "12 tokens that brief" in refused.json()["error"]["message"]


def test_comparing_goes_no_deeper_than_a_search(settings: Settings) -> None:
    client = TestClient(create_app(settings.model_copy(update={"depth": 5, "max_depth": 5})))
    for path in ("/v1/search", "/v1/compare"):
        assert client.post(path, json={"query": "a", "k": 5}).status_code == 200
        refused = client.post(path, json={"query": "a", "k": 6})
        assert refused.status_code == 413
        assert "the limit is 5 (DSE_MAX_DEPTH)" in refused.json()["error"]["message"]


def test_a_batch_of_the_teachers_is_its_searches_or_refused(client: TestClient) -> None:
    body = {"queries": ["listen", "stone"], "k": 3, "rerank": "teacher"}
    batch = client.post("/v1/search/batch", json=body).json()["results"]
    for query, found in zip(body["queries"], batch, strict=True):
        alone = client.post("/v1/search", json={"query": query, "k": 3, "rerank": "teacher"}).json()
        assert found["hits"] == alone["hits"]
    refused = client.post("/v1/search/batch", json=body | {"queries": ["a", "b", "c"]})
    assert refused.status_code == 413
    assert "300 candidates to score in one request; the limit is 256" in refused.json()["error"]["message"]


def test_by_default_the_teacher_is_given_as_many_as_it_may_read(settings: Settings) -> None:
    client = TestClient(create_app(settings.model_copy(update={"max_teacher_pairs": 5})))
    answer = client.post("/v1/search", json={"query": "a", "k": 4, "rerank": "teacher"})
    assert (answer.status_code, len(answer.json()["hits"])) == (200, 4)


def test_a_request_without_its_content_type_is_told_of_it(client: TestClient) -> None:
    answer = client.post("/v1/search", content=b'{"query": "a"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert "Content-Type: application/json" in error(answer)["message"]


def test_an_error_does_not_echo_a_huge_key(client: TestClient) -> None:
    assert len(client.post("/v1/search", json={"query": "a", "x" * 100_000: 1}).text) < 1000


def error(answer) -> dict:
    body = answer.json()
    assert set(body) == {"error"}
    assert "Traceback" not in answer.text
    return body["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "message"),
    [
        ("/v1/search", {}, 422, "query", "Field required"),
        ("/v1/search", [], 422, None, "Content-Type: application/json"),
        ("/v1/search", {"query": 5}, 422, "query", "valid string"),
        ("/v1/search", {"query": "a", "k": 0}, 422, "k", "greater than or equal to 1"),
        ("/v1/search", {"query": "a", "k": "ten"}, 422, "k", "valid integer"),
        ("/v1/search", {"query": "a", "k": True}, 422, "k", "valid integer"),
        ("/v1/search", {"query": "a", "k": 10**9}, 413, None, "the limit is 10000 (DSE_MAX_DEPTH)"),
        ("/v1/search", {"query": "a", "depth": 0}, 422, "depth", "greater than or equal to 1"),
        ("/v1/search", {"query": "a", "rerank": "best"}, 422, "rerank", "'head', 'none' or 'teacher'"),
        ("/v1/search", {"query": "a", "rerank": "teacher", "depth": 999}, 413, None, "DSE_MAX_TEACHER_PAIRS"),
        ("/v1/search", {"query": "a", "k": 10**400}, 422, "k", "less than or equal to"),
        ("/v1/search/batch", {"queries": ["a"] * 30, "depth": 9000}, 413, None, "DSE_MAX_CANDIDATES"),
        ("/v1/search", {"query": "a", "top": 3}, 422, "top", "Extra inputs"),
        ("/v1/search", {"query": " "}, 422, "query", "the text is empty"),
        ("/v1/search", {"query": "a\0b"}, 422, "query", "NUL"),
        ("/v1/search", {"query": "a", "filter": ["x"]}, 422, "filter", "valid dictionary"),
        ("/v1/search", {"query": "a", "filter": {"$or": [{"n": {"$gt": []}}]}}, 422, "filter.$or.0.n.$gt", "is a list"),
        ("/v1/search", {"query": "a", "filter": {"n": {"$near": 1}}}, 422, "filter.n.$near", "no such operator"),
        ("/v1/search/batch", {"queries": ["a"], "filter": {"$and": 1}}, 422, "filter.$and", "give a list"),
        ("/v1/search/batch", {"queries": []}, 422, "queries", "at least 1 item"),
        ("/v1/search/batch", {"queries": ["a"] * 1025}, 413, None, "the limit is 1024 (DSE_MAX_BATCH)"),
        ("/v1/similarity", {}, 422, None, "either pairs, or query and candidates"),
        ("/v1/similarity", {"query": "a"}, 422, None, "either pairs, or query and candidates"),
        ("/v1/similarity", {"pairs": [["a", "b"]], "query": "a"}, 422, None, "either pairs"),
        ("/v1/similarity", {"pairs": [["a"]]}, 422, "pairs.0", "at least 2 items"),
        ("/v1/similarity", {"pairs": [["a", "b", "c"]]}, 422, "pairs.0", "at most 2 items"),
        ("/v1/similarity", {"pairs": [["a", None]]}, 422, "pairs.0.1", "valid string"),
        ("/v1/similarity", {"query": "a", "candidates": []}, 422, "candidates", "at least 1 item"),
        ("/v1/similarity", {"pairs": [["a", "b"]] * 1025}, 413, None, "the limit is 1024 (DSE_MAX_BATCH)"),
        ("/v1/teacher/similarity", {"pairs": [["a", "b"]] * 257}, 413, None, "the limit is 256"),
        ("/v1/compare", {"query": "a", "candidates": ["b"] * 257}, 413, None, "the limit is 256"),
        ("/v1/compare", {"query": "a", "k": 257}, 413, None, "the limit is 256"),
    ],
)  # fmt: skip
def test_bad_requests(client: TestClient, path: str, body, status: int, param: str | None, message: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    found = error(answer)
    assert found["type"] == {413: "too_large", 422: "invalid"}[status]
    assert found.get("param") == param
    assert message in found["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Field required"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"query": "\\ud800"}', "half of a surrogate pair"),
        (b'{"query": "a", "\\ud800": 1}', "valid string"),
        (b'{"query": "a", "k": NaN}', "k"),
        (b"[" * 100_000, "not JSON"),
        (b'{"query": "a", "filter": {"n": NaN}}', "filter: n: is no number that JSON knows"),
        (b'{"query": "a", "filter": {"n": 1e999}}', "filter: n: is no number that JSON knows"),
        (b'{"query": "a", "filter": {"\\ud800": []}}', "filter"),
        (b'{"query": "a", "filter": ' + b'{"$not": ' * 100 + b"{}" + b"}" * 101, "nested more than 16 levels deep"),
    ],
)
def test_bodies_that_are_hardly_json(client: TestClient, content: bytes, message: str) -> None:
    answer = client.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert message in error(answer)["message"]


def test_a_body_beyond_the_limit(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "a" * 2**20})
    assert answer.status_code == 413
    assert "1048576 bytes (DSE_MAX_BODY_BYTES)" in error(answer)["message"]


def test_a_body_beyond_the_limit_that_does_not_say_so(client: TestClient) -> None:
    chunks = (b"a" * 65_536 for _ in range(20))
    answer = client.post("/v1/search", content=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_may_be_just_as_large_as_the_limit(settings: Settings, declared: bool) -> None:
    client = TestClient(create_app(settings.model_copy(update={"max_body_bytes": 1024})))
    body = b'{"pairs": [["a", "b"]]}'.ljust(1024)

    def status(content: bytes) -> int:
        sent = content if declared else iter([content])
        return client.post("/v1/similarity", content=sent, headers={"Content-Type": "application/json"}).status_code

    assert (status(body), status(body + b" ")) == (200, 413)


def test_a_megabyte_of_text_is_cut_like_any_other(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "word " * 200_000})
    assert answer.status_code == 200
    assert answer.json()["truncated"]


def test_what_is_not_loaded_is_a_404_that_says_how_to_load_it(alone: TestClient) -> None:
    for path, body in [
        ("/v1/search", {"query": "a"}),
        ("/v1/search/batch", {"queries": ["a"]}),
    ]:
        answer = alone.post(path, json=body)
        assert (answer.status_code, error(answer)["type"]) == (404, "not_found")
        assert "--index DIR" in error(answer)["message"]
    assert "--index DIR" in error(alone.get("/v1/index"))["message"]
    assert "--teacher DIR" in error(alone.post("/v1/teacher/similarity", json={"pairs": [["a", "b"]]}))["message"]
    assert "--teacher DIR" in error(alone.post("/v1/compare", json={"query": "a", "candidates": ["b"]}))["message"]
    assert alone.post("/v1/similarity", json={"pairs": [["a", "b"]]}).status_code == 200
    assert alone.get("/readyz").json() == {
        "status": "ready", "model": "tiny-student", "teacher": None, "generation": None
    }  # fmt: skip


def test_a_missing_part_of_a_request_is_named(settings: Settings) -> None:
    no_teacher = TestClient(create_app(settings.model_copy(update={"teacher": None})))
    answer = no_teacher.post("/v1/search", json={"query": "a", "rerank": "teacher"})
    assert answer.status_code == 404
    assert error(answer)["param"] == "rerank"
    no_index = TestClient(create_app(settings.model_copy(update={"index": None})))
    answer = no_index.post("/v1/compare", json={"query": "a"})
    assert answer.status_code == 404
    assert "give candidates" in error(answer)["message"]


def test_unknown_routes_and_methods(client: TestClient) -> None:
    assert error(client.get("/v1/nothing"))["type"] == "not_found"
    answer = client.get("/v1/search")
    assert (answer.status_code, error(answer)["type"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_a_failure_inside_shows_no_stack_trace(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(settings)

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("secret")

    answer = TestClient(app, raise_server_exceptions=False).get("/boom")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert error(answer)["type"] == "internal"
    assert "secret" in caplog.text


def test_64_clients_each_receive_their_own_answer(client: TestClient) -> None:
    queries = [f"{word} {letter}" for letter in "abcdefg" for word in WORDS][:64]
    alone = [client.post("/v1/search", json={"query": query, "k": 5}).json() for query in queries]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda q: client.post("/v1/search", json={"query": q, "k": 5}).json(), queries))
    for answer, expected in zip(together, alone, strict=True):  # in company, sums differ in the seventh decimal
        hits, expected_hits = answer["hits"], expected["hits"]
        assert [hit["id"] for hit in hits] == [hit["id"] for hit in expected_hits]
        for name in ("score", "similarity"):
            assert [hit[name] for hit in hits] == pytest.approx([hit[name] for hit in expected_hits], abs=1e-5)
    assert len({str(answer) for answer in alone}) > 32  # the answers do differ
