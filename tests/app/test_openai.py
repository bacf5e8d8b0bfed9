"""OpenAI's dialect: exact shapes, and what is refused in its words."""

import base64
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.batching import Queues
from app.main import create_app
from app.settings import Settings
from model.bundle import Student
from model.encoder import shortened
from tests.tiny import write_student

LONG = "listen " * 50


@pytest.fixture(scope="module")
def nested(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """A service whose student may be cut to 8 dimensions of 16, and that has an alias."""
    folder = write_student(tmp_path_factory.mktemp("nested") / "bundle", matryoshka=[8])
    aliases = {"text-embedding-3-small": "default"}
    return TestClient(create_app(settings.model_copy(update={"bundle": folder, "model_aliases": aliases})))


def error(answer) -> dict:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


def test_a_text(client: TestClient, student: Student) -> None:
    answer = client.post("/v1/embeddings", json={"input": "listen", "model": "tiny-student"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": student.encoder.encode(["listen"])[0].tolist()}],
        "model": "tiny-student",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},  # [CLS] l i s t e n [SEP]
    }


def test_texts_in_order_and_the_tokens_that_were_read(client: TestClient, student: Student) -> None:
    texts = ["silent", "a", LONG, " "]
    answer = client.post("/v1/embeddings", json={"input": texts}).json()
    assert [row["index"] for row in answer["data"]] == [0, 1, 2, 3]
    received = np.array([row["embedding"] for row in answer["data"]], np.float32)
    np.testing.assert_allclose(received, student.encoder.encode(texts), atol=1e-6)
    assert answer["usage"]["prompt_tokens"] == 8 + 3 + 32 + 2


def test_base64_is_the_same_numbers_little_endian(client: TestClient) -> None:
    body = {"input": ["listen", "stone"]}
    plain = client.post("/v1/embeddings", json=body | {"encoding_format": "float"}).json()
    packed = client.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    for row, numbers in zip(packed["data"], plain["data"], strict=True):
        assert np.frombuffer(base64.b64decode(row["embedding"]), "<f4").tolist() == numbers["embedding"]


def test_dimensions_that_the_manifest_names_are_honoured(nested: TestClient, student: Student) -> None:
    def asked(dims: int) -> np.ndarray:
        answer = nested.post("/v1/embeddings", json={"input": "listen", "dimensions": dims})
        return np.array(answer.json()["data"][0]["embedding"], np.float32)

    whole = student.encoder.encode(["listen"])
    np.testing.assert_allclose(asked(16), whole[0], atol=1e-7)
    np.testing.assert_allclose(asked(8), shortened(whole, 8)[0], atol=1e-7)
    assert np.linalg.norm(asked(8)) == pytest.approx(1, abs=1e-6)
    refused = nested.post("/v1/embeddings", json={"input": "listen", "dimensions": 7})
    assert refused.status_code == 422
    assert error(refused)["param"] == "dimensions"
    assert "this model gives 8, 16" in error(refused)["message"]


def test_fields_that_client_libraries_add_are_let_through(client: TestClient) -> None:
    body = {"input": "a", "user": "u", "encoding_format": None, "truncate_prompt_tokens": -1, "modality": "text"}
    assert client.post("/v1/embeddings", json=body).status_code == 200


def test_other_paths_of_the_same(client: TestClient) -> None:
    body = {"input": "listen"}
    assert client.post("/embeddings", json=body).json() == client.post("/v1/embeddings", json=body).json()
    assert client.get("/models").json() == client.get("/v1/models").json()


def test_models(client: TestClient) -> None:
    student, teacher = client.get("/v1/models").json()["data"]
    created = student.pop("created")
    assert created > 1_700_000_000
    assert student == {"id": "tiny-student", "object": "model", "owned_by": "dse", "max_model_len": 32}
    assert (teacher["id"], teacher["max_model_len"]) == ("tiny-teacher", 64)
    assert client.get("/v1/models").json()["object"] == "list"
    assert client.get("/v1/models/tiny-teacher").json() == teacher
    assert client.get("/v1/models/default").json()["id"] == "tiny-student"


def test_a_slash_at_the_end_names_no_model(client: TestClient) -> None:
    for path in ("/v1/models/", "/models/"):
        assert client.get(path, follow_redirects=False).status_code == 307
        assert client.get(path).json() == client.get("/v1/models").json()


def test_an_alias_answers_with_the_models_own_name(nested: TestClient) -> None:
    body = {"input": "a", "model": "text-embedding-3-small"}
    assert nested.post("/v1/embeddings", json=body).json()["model"] == "tiny-student"
    assert nested.get("/v1/models/text-embedding-3-small").json()["id"] == "tiny-student"


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({"input": [1, 2, 3]}, 422, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, 422, "input", "check_embedding_ctx_length=False"),
        ({"input": ["a", 1]}, 422, "input", "token ids were sent"),
        ({"input": ""}, 422, "input.0", "the text is empty"),
        ({"input": ["a", ""]}, 422, "input.1", "the text is empty"),
        ({"input": []}, 422, "input", "at least 1 item"),
        ({"input": None}, 422, "input", "valid list"),
        ({"input": {"a": 1}}, 422, "input", "valid list"),
        ({}, 422, "input", "Field required"),
        ({"input": ["a"] * 1025}, 413, None, "the limit is 1024 (DSE_MAX_BATCH)"),
        (
            {"input": "a", "model": "gpt"},
            404,
            "model",
            "this service has: tiny-student, tiny-teacher, default, teacher",
        ),
        ({"input": "a", "model": "teacher"}, 422, "model", "it scores pairs and embeds nothing"),
        ({"input": "a", "model": 5}, 422, "model", "valid string"),
        ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "dimensions": 8}, 422, "dimensions", "this model gives 16"),
        ({"input": "a", "dimensions": 0}, 422, "dimensions", "greater than or equal to 1"),
        ({"input": LONG, "truncate": False}, 422, "truncate", "longer than the 32 tokens that tiny-student reads"),
    ],
)
def test_refusals_in_openais_words(
    client: TestClient, body: dict, status: int, param: str | None, message: str
) -> None:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == status
    told = error(answer)
    assert (told["type"], told["param"]) == ("invalid_request_error", param)
    assert told["code"] == ("model_not_found" if status == 404 else None)
    assert message in told["message"]


def test_what_no_route_sees_is_refused_in_openais_words_too(client: TestClient, settings: Settings) -> None:
    assert error(client.post("/v1/embeddings", content=b"a" * 2**21))["message"].startswith("the body is larger than")
    assert (
        "not JSON"
        in error(client.post("/v1/embeddings", content=b"{", headers={"Content-Type": "application/json"}))["message"]
    )
    assert client.get("/v1/embeddings").status_code == 405
    assert error(client.get("/v1/embeddings"))["type"] == "invalid_request_error"
    unknown = client.get("/v1/models/org/none")
    assert (unknown.status_code, error(unknown)["code"]) == (404, "model_not_found")
    half = client.post("/v1/embeddings", content=b'{"input": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert "surrogate" in error(half)["message"]


class _Broken:
    """A service that nobody can use."""

    queues, index = Queues(), None


def test_a_failure_inside_is_told_in_openais_words_without_its_reason(settings: Settings) -> None:
    broken = create_app(settings, service=_Broken())  # type: ignore[arg-type]
    answer = TestClient(broken, raise_server_exceptions=False).post("/v1/embeddings", json={"input": "a"})
    assert (answer.status_code, error(answer)["type"]) == (500, "server_error")
    assert "_Broken" not in json.dumps(answer.json())


def test_nothing_is_read_where_it_may_not_be_cut(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]

    def embed(*_: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(service.student.encoder, "embed", embed)
    monkeypatch.setattr(service.teacher.scorer, "read", embed)
    for path, body in [
        ("/v1/embeddings", {"input": LONG}),
        ("/embed", {"inputs": LONG}),
        ("/similarity", {"inputs": {"source_sentence": LONG, "sentences": ["a"]}}),
        ("/predict", {"inputs": [LONG, "a"]}),
        ("/predict", {"inputs": [LONG, "a"], "model": "teacher"}),
        ("/rerank", {"query": "a", "texts": [LONG]}),
        ("/v1/rerank", {"query": "a", "documents": [LONG]}),
        ("/v1/similarity", {"pairs": [[LONG, "a"]]}),
        ("/v1/teacher/similarity", {"pairs": [[LONG, "a"]]}),
        ("/v1/search", {"query": LONG}),
        ("/v1/search/batch", {"queries": ["a", LONG]}),
        ("/v1/compare", {"query": LONG}),
        ("/v1/compare", {"query": "a", "candidates": [LONG]}),
    ]:
        answer = client.post(path, json=body | {"truncate": False})
        assert answer.status_code == 422, (path, body)
        assert "longer than the" in answer.text
