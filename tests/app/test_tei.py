"""The dialect of text-embeddings-inference: exact shapes, headers, and what is refused in its words."""

import time
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.answers import Work
from app.batching import Queues
from app.main import create_app
from app.routes.tei import timings
from app.settings import Settings
from model.bundle import Student, load_teacher
from model.similarity import score_pairs

LONG = "listen " * 50
TEXTS = ["stone", "silent", "banana"]


def error(answer) -> dict:
    body = answer.json()
    assert set(body) == {"error", "error_type"}
    assert isinstance(body["error"], str)
    return body


def scores(student: Student, pairs: list[tuple[str, str]]) -> list[float]:
    return student.score(score_pairs(student.encoder, student.head, pairs).logits).tolist()


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_embed(client: TestClient, student: Student, path: str) -> None:
    answer = client.post(path, json={"inputs": "listen"})
    np.testing.assert_allclose(answer.json(), student.encoder.encode(["listen"]), atol=1e-7)
    several = client.post(path, json={"inputs": ["silent", LONG], "truncate": None, "normalize": True})
    np.testing.assert_allclose(several.json(), student.encoder.encode(["silent", LONG]), atol=1e-6)
    as_it_is = client.post(path, json={"inputs": ["silent", LONG], "normalize": False})
    assert as_it_is.json() == several.json()  # the graph ends in a normalisation


@pytest.mark.parametrize(
    ("path", "body", "characters", "tokens"),
    [
        ("/embed", {"inputs": ["listen", LONG]}, 6 + 350, 8 + 32),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["bc"]}}, 3, 3 + 4),
        ("/predict", {"inputs": ["a", "bc"]}, 3, 3 + 4),
        ("/rerank", {"query": "a", "texts": ["bc"]}, 3, 3 + 4),
        ("/", {"query": "a", "texts": ["bc"]}, 3, 3 + 4),
    ],
)
def test_the_cost_of_an_answer_is_in_its_headers(
    client: TestClient, path: str, body: dict, characters: int, tokens: int
) -> None:
    began = time.perf_counter()
    headers = client.post(path, json=body).headers
    most = 1000 * (time.perf_counter() - began) + 1
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == str(characters)
    assert headers["x-compute-tokens"] == str(tokens)
    assert headers["x-compute-time"] == headers["x-total-time"]
    parts = [int(headers[f"x-{part}-time"]) for part in ("tokenization", "queue", "inference")]
    assert all(part >= 0 for part in parts)
    assert sum(parts) - 2 <= int(headers["x-total-time"]) <= most  # each is rounded


def test_costs_are_in_whole_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.routes.tei.time", SimpleNamespace(perf_counter=lambda: 12.5))
    work = Work(40, 356, tokenization_seconds=0.0036, inference_seconds=0.0805, queue_seconds=0.0204)
    assert timings(work, started=12.375) == {
        "x-compute-type": "cpu",
        "x-compute-time": "125",
        "x-compute-characters": "356",
        "x-compute-tokens": "40",
        "x-total-time": "125",
        "x-tokenization-time": "4",
        "x-queue-time": "20",
        "x-inference-time": "60",
    }


@pytest.mark.parametrize("path", ["/similarity", "/"])
def test_similarity_is_the_cosine_in_input_order(client: TestClient, student: Student, path: str) -> None:
    body = {"inputs": {"source_sentence": "listen", "sentences": TEXTS}, "parameters": {"truncate": True}}
    expected = student.encoder.encode(TEXTS) @ student.encoder.encode(["listen"])[0]
    assert client.post(path, json=body).json() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("path", ["/rerank", "/"])
def test_rerank(client: TestClient, student: Student, path: str) -> None:
    expected = scores(student, [("listen", text) for text in TEXTS])
    best_first = sorted(range(3), key=lambda row: -expected[row])
    body = {"query": "listen", "texts": TEXTS}
    assert client.post(path, json=body).json() == [
        {"index": row, "score": pytest.approx(expected[row])} for row in best_first
    ]
    with_texts = client.post(path, json=body | {"return_text": True, "top_n": 2}).json()
    assert with_texts == [
        {"index": row, "score": pytest.approx(expected[row]), "text": TEXTS[row]} for row in best_first[:2]
    ]


def test_raw_scores_are_logits(client: TestClient) -> None:
    body = {"query": "listen", "texts": TEXTS}
    plain = {row["index"]: row["score"] for row in client.post("/rerank", json=body).json()}
    raw = {row["index"]: row["score"] for row in client.post("/rerank", json=body | {"raw_scores": True}).json()}
    for index, logit in raw.items():
        assert plain[index] == pytest.approx(1 / (1 + np.exp(-logit)))
    predicted = client.post("/predict", json={"inputs": ["listen", TEXTS[0]], "raw_scores": True}).json()
    assert predicted == [{"score": pytest.approx(raw[0]), "label": "similarity"}]


def test_the_teacher_is_asked_by_name(client: TestClient, settings: Settings) -> None:
    assert settings.teacher is not None
    teacher = load_teacher(settings.teacher, threads=1)
    read = teacher.score(teacher.scorer.score([("listen", text) for text in TEXTS]).logits).tolist()
    answer = client.post("/rerank", json={"query": "listen", "texts": TEXTS, "model": "teacher"})
    assert {row["index"]: row["score"] for row in answer.json()} == pytest.approx(dict(enumerate(read)))
    assert answer.headers["x-compute-tokens"] == str(sum(3 + len("listen") + len(text) for text in TEXTS))
    predicted = client.post("/predict", json={"inputs": ["listen", "stone"], "model": "tiny-teacher"}).json()
    assert predicted == [{"score": pytest.approx(read[0]), "label": "similarity"}]


def test_predict_a_pair_or_pairs(client: TestClient, student: Student) -> None:
    first, second = scores(student, [("listen", "stone"), ("a", "b")])
    one = client.post("/predict", json={"inputs": ["listen", "stone"]}).json()
    assert one == [{"score": pytest.approx(first), "label": "similarity"}]
    two = client.post("/predict", json={"inputs": [["listen", "stone"], ["a", "b"]]}).json()
    assert two == [one, [{"score": pytest.approx(second), "label": "similarity"}]]


def test_equal_scores_stay_in_input_order(client: TestClient) -> None:
    """Two hundred: few enough, and any sort would keep their order."""
    ranked = client.post("/rerank", json={"query": "a", "texts": ["stone", "b"] * 100}).json()
    rows = [row["index"] for row in ranked]
    stones, others = [*range(0, 200, 2)], [*range(1, 200, 2)]
    assert rows in (stones + others, others + stones)


def test_info(client: TestClient, student: Student) -> None:
    facts = {
        "model_id": "tiny-student",
        "model_sha": student.encoder_digest,
        "model_dtype": "int8",
        "served_model_name": "tiny-student",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": 128,
        "max_input_length": 32,
        "max_batch_tokens": 512,
        "max_batch_requests": None,
        "max_client_batch_size": 1024,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": version("dse"),
        "sha": None,
        "docker_label": None,
    }
    assert client.get("/info").json() == facts
    teacher = client.get("/info", params={"model": "teacher"}).json()
    labels = {"id2label": {"0": "similarity"}, "label2id": {"similarity": 0}}
    assert teacher["model_type"] == {"reranker": labels}
    assert (teacher["model_id"], teacher["max_input_length"], teacher["max_client_batch_size"]) == (
        "tiny-teacher",
        64,
        256,
    )


def test_what_client_libraries_add_is_let_through(client: TestClient) -> None:
    rerank = {"query": "a", "texts": ["b"], "truncate": True, "truncation_direction": "Right", "top_k": 3}
    assert client.post("/rerank", json=rerank).status_code == 200
    assert client.post("/embed", json={"inputs": "a", "prompt_name": None, "parameters": {}}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/embed", {"inputs": [[1, 2]]}, 422, "token ids were sent"),
        ("/embed", {"inputs": ""}, 422, "inputs.0: the text is empty"),
        ("/embed", {"inputs": []}, 422, "at least 1 item"),
        ("/embed", {}, 422, "inputs: Field required"),
        ("/embed", {"inputs": "a", "dimensions": 8}, 422, "this model gives 16"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "have no prompts"),
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}, 422, "texts are cut at their end"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "truncation_direction"),
        ("/embed", {"inputs": "a", "model": "gpt"}, 404, "no model is called 'gpt'"),
        ("/embed", {"inputs": "a", "model": "teacher"}, 422, "embeds nothing"),
        ("/embed", {"inputs": ["a"] * 1025}, 413, "DSE_MAX_BATCH"),
        ("/embed", {"inputs": LONG, "truncate": False}, 422, "longer than the 32 tokens"),
        ("/", {"inputs": ["a"] * 1025}, 413, "DSE_MAX_BATCH"),
        ("/", {}, 422, "inputs: Field required"),
        ("/", {"inputs": {"source_sentence": "a"}}, 422, "inputs.sentences: Field required"),
        ("/", {"texts": ["a"]}, 422, "query: Field required"),
        ("/", [], 422, "send a JSON object"),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["a"]}}, 422, "source_sentence: the text is"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 422, "at least 1 item"),
        (
            "/similarity",
            {"inputs": {"source_sentence": LONG, "sentences": ["a"]}, "parameters": {"truncate": False}},
            422,
            "longer than",
        ),
        ("/predict", {"inputs": "a"}, 422, "models of this service score pairs"),
        ("/predict", {"inputs": ["a"]}, 422, "models of this service score pairs"),
        ("/predict", {"inputs": [["a"], ["a", "b"]]}, 422, "models of this service score pairs"),
        ("/predict", {"inputs": []}, 422, "models of this service score pairs"),
        ("/predict", {"inputs": ["a", ""]}, 422, "inputs.1: the text is empty"),
        ("/predict", {"inputs": [["a", "b"], ["", "b"]]}, 422, "inputs.1.0: the text is empty"),
        ("/predict", {"inputs": [["a", "b"]] * 257, "model": "teacher"}, 413, "DSE_MAX_TEACHER_PAIRS"),
        ("/rerank", {"query": "a"}, 422, "texts: Field required"),
        ("/rerank", {"query": "a", "texts": ["b"] * 1025}, 413, "DSE_MAX_BATCH"),
        ("/rerank", {"query": "a", "texts": ["b"], "top_n": 0}, 422, "greater than or equal to 1"),
        ("/rerank", {"query": "a", "texts": ["b"], "raw_scores": "yes"}, 422, "raw_scores"),
    ],
)
def test_refusals_in_teis_words(client: TestClient, path: str, body, status: int, message: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert error(answer)["error_type"] == "Validation"
    assert message in error(answer)["error"]


def test_what_no_route_sees_is_refused_in_teis_words_too(client: TestClient) -> None:
    assert error(client.post("/embed", content=b"a" * 2**21))["error"].startswith("the body is larger than")
    assert error(client.get("/embed"))["error_type"] == "Validation"
    assert client.get("/embed").status_code == 405
    unread = client.post("/rerank", content=b"{", headers={"Content-Type": "application/json"})
    assert "not JSON" in error(unread)["error"]


def test_a_failure_inside_is_told_in_teis_words(settings: Settings) -> None:
    nothing = SimpleNamespace(queues=Queues(), index=None)
    app = create_app(settings, service=nothing)  # type: ignore[arg-type]
    broken = TestClient(app, raise_server_exceptions=False)
    answer = broken.post("/embed", json={"inputs": "a"})
    assert answer.status_code == 500
    assert error(answer) == {"error": "the service failed; its log says why", "error_type": "Backend"}


def test_the_page_is_still_there(client: TestClient) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
