"""DSE_LONG_TEXT=chunk: a service and its index read texts to their end."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from index.manifest import IndexFault
from model.bundle import load_student
from tests import tiny
from tests.conftest import WORDS, build_index

BEGINNING = "abcdefgh " * 8
LONG, OTHER = f"{BEGINNING}{'tonsil ' * 6}", f"{BEGINNING}{'google ' * 6}"


@pytest.fixture
def chunking(tmp_path: Path, settings: Settings) -> Settings:
    """The settings of a service that reads on, with an index that was built so."""
    bundle = tiny.write_student(tmp_path / "bundle", name="reads-on")
    student = load_student(bundle, threads=1, long_text="chunk")
    index = build_index(tmp_path / "index", student, WORDS)
    return settings.model_copy(update={"bundle": bundle, "index": index, "long_text": "chunk"})


def compared(client: TestClient, **options: object) -> dict:
    answer = client.post("/v1/similarity", json={"pairs": [[LONG, OTHER], ["ab", "ab"]]} | options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_texts_that_differ_at_their_end_are_told_apart(chunking: Settings) -> None:
    whole = compared(TestClient(create_app(chunking)), truncate=False)
    cut = compared(TestClient(create_app(chunking.model_copy(update={"long_text": "truncate", "index": None}))))
    assert [each["truncated"] for each in whole["results"]] == [False, False]
    assert [each["truncated"] for each in cut["results"]] == [True, False]
    assert whole["results"][0]["similarity"] < 0.999 < cut["results"][0]["similarity"]
    assert whole["results"][1] == cut["results"][1]


def test_what_stands_at_the_end_of_a_document_counts(chunking: Settings) -> None:
    client = TestClient(create_app(chunking))
    documents = [{"id": "long", "text": LONG}, {"id": "other", "text": OTHER}]
    answer = client.put("/v1/documents", json={"documents": documents, "truncate": False})
    assert [each["truncated"] for each in answer.json()["results"]] == [False, False]
    for asked, expected in ((LONG, "long"), (OTHER, "other")):
        found = client.post("/v1/search", json={"query": asked, "k": 20}).json()
        hits = [hit["id"] for hit in found["hits"] if hit["similarity"] > 0.99999]
        assert (hits, found["truncated"]) == ([expected], False)


def test_what_is_read_is_what_is_counted_and_promised(chunking: Settings) -> None:
    client = TestClient(create_app(chunking))
    read = client.get("/v1/models/reads-on").json()["max_model_len"]
    assert read == 64 * 32
    usage = client.post("/v1/embeddings", json={"input": [LONG, "ab"], "model": "reads-on"}).json()["usage"]
    letters = len(LONG.replace(" ", ""))  # a token each
    pieces = -(-letters // 30)  # each with two markers
    assert usage["total_tokens"] == letters + 2 * pieces + 4


@pytest.mark.parametrize(("built", "served"), [("chunk", "truncate"), ("truncate", "chunk")])
def test_an_index_is_searched_as_it_was_built(tmp_path: Path, settings: Settings, built: str, served: str) -> None:
    bundle = tiny.write_student(tmp_path / "bundle", name="reads-on")
    index = build_index(tmp_path / "index", load_student(bundle, 1, long_text=built), WORDS)
    told = rf"was built with --long-text {built}, not {served}: give --long-text {built}"
    with pytest.raises(IndexFault, match=told):
        create_app(settings.model_copy(update={"bundle": bundle, "index": index, "long_text": served}))
