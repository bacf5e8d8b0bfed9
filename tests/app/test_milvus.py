"""The service over Milvus: the same routes, and what they say while Milvus is away."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.loading import identity, load
from app.main import create_app
from app.settings import Settings
from index.contract import Index
from index.documents import Document
from index.location import MilvusAddress
from index.manifest import EncoderIdentity, IndexFault
from index.places import build_at, rebuild_at
from index.sources import SourcedDocument
from model.bundle import Student
from tests.conftest import WORDS
from tests.standin import ACCESS, StandIn
from tests.waiting import until


@pytest.fixture(scope="module")
def own_milvus(milvus: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """One that may be killed, whoever uses the other."""
    server = StandIn(tmp_path_factory.mktemp("own"))
    yield server
    server.kill()


@pytest.fixture
def address(own_milvus: StandIn, student: Student, tmp_path: Path) -> MilvusAddress:
    place = own_milvus.address()
    documents = [
        SourcedDocument(Document(f"d{row}", text, {"length": len(text)}), f"{row}") for row, text in enumerate(WORDS)
    ]
    encoder = student.encoder
    build_at(
        place,
        ACCESS,
        tmp_path / "work",
        documents=documents,
        encode=encoder.encode,
        dims=encoder.dims,
        encoder=identity(student),
        recipe=None,
    )
    return place


@pytest.fixture
def served(settings: Settings, address: MilvusAddress) -> Settings:
    return Settings(**settings.model_dump() | {"index": str(address), "milvus_timeout": ACCESS.timeout, "timeout": 600})


@pytest.fixture
def client(served: Settings) -> Iterator[TestClient]:
    service = load(served)
    assert service.index is not None
    with service.index, TestClient(create_app(served, service), raise_server_exceptions=False) as client:
        yield client


def search(client: TestClient, query: str = "listen", **options: object):
    return client.post("/v1/search", json={"query": query, "k": 3} | options)


def test_every_route_answers_as_from_a_folder(client: TestClient, settings: Settings) -> None:
    folder = TestClient(create_app(settings), raise_server_exceptions=False)
    for body in (
        {"query": "silent", "k": 4},
        {"query": "banana", "k": 2, "rerank": "none"},
        {"query": "notes", "k": 3, "rerank": "teacher"},
        {"query": "stone", "k": 10, "filter": {"length": {"$lte": 5}}},
        {"query": "stone", "k": 10, "filter": {"length": {"$in": []}}},
    ):
        ours, theirs = client.post("/v1/search", json=body).json(), folder.post("/v1/search", json=body).json()
        for name in ("id", "text", "metadata"):
            assert [hit[name] for hit in ours["hits"]] == [hit[name] for hit in theirs["hits"]]
        for name in ("score", "similarity"):
            expected = [hit[name] for hit in theirs["hits"]]
            assert [hit[name] for hit in ours["hits"]] == (expected if None in expected else pytest.approx(expected))
        assert (ours["model"], ours["generation"]) == (theirs["model"], theirs["generation"])
    facts = client.get("/v1/index").json()
    assert (facts["documents"], facts["recipe"], facts["changes_pending"]) == (len(WORDS), "Flat", 0)
    assert client.get("/readyz").json()["generation"] == "000001"
    assert f"dse_index_documents {float(len(WORDS))}" in client.get("/metrics").text
    for path in ("/v1/index/reload", "/v1/index/compact"):
        assert client.post(path).json()["documents"] == len(WORDS)


def test_what_was_put_is_found_and_what_was_deleted_is_not(client: TestClient) -> None:
    document = {"id": "x'\"/\\", "text": "abacus", "metadata": {"a": [1, {"b": None}]}}
    put = client.put("/v1/documents", json={"documents": [document]}).json()
    assert [result["status"] for result in put["results"]] == ["created"]
    assert search(client, "abacus", rerank="none").json()["hits"][0]["id"] == document["id"]
    assert client.get("/v1/documents/x'%22/%5C").json() == document
    assert client.delete("/v1/documents/x'%22/%5C").status_code == 204
    assert client.delete("/v1/documents/x'%22/%5C").status_code == 404
    assert document["id"] not in [hit["id"] for hit in search(client, "abacus", k=20).json()["hits"]]


class Load:
    """Two who search, and one who writes, until it is over; what they are told is judged as it comes."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._expected = [hit["id"] for hit in search(client).json()["hits"]]
        self._over = threading.Event()
        self.statuses = Counter[int]()
        self.acknowledged: list[str] = []
        self.wrong: list[object] = []

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=target) for target in (self._search, self._search, self._write)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self, status: int) -> None:
        """Wait for some more answers of a status."""
        seen = self.statuses[status]
        until(lambda: self.statuses[status] > seen + 3)

    def _search(self) -> None:
        while not self._over.wait(0.01):
            answer = search(self._client)
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200 and [hit["id"] for hit in answer.json()["hits"]] != self._expected:
                self.wrong.append(answer.json())
            if answer.status_code == 503 and answer.headers.get("Retry-After") != "1":
                self.wrong.append(dict(answer.headers))

    def _write(self) -> None:
        number = 0
        while not self._over.wait(0.01):
            number += 1
            body = {"documents": [{"id": f"w{number}", "text": f"{'zyx'[number % 3]}q"}]}
            answer = self._client.put("/v1/documents", json=body)
            if answer.status_code == 200:
                self.acknowledged.append(f"w{number}")
            elif answer.status_code != 503:
                self.wrong.append(answer.json())


def test_it_is_away_and_comes_back(client: TestClient, own_milvus: StandIn, record_property) -> None:
    """Under load: no wrong answer, no other error than 503, and what was acknowledged is there."""
    assert client.get("/readyz").status_code == 200
    with Load(client) as load:
        load.more(200)
        until(lambda: len(load.acknowledged) > 1)
        for _ in range(2):
            own_milvus.kill()
            record_property("seconds until red", until(lambda: client.get("/readyz").status_code == 503))
            load.more(503)
            refused = client.get("/readyz")
            assert "cannot be reached" in refused.text or "does not answer" in refused.text
            assert refused.headers["Retry-After"] == "1"
            similar = client.post("/v1/similarity", json={"pairs": [["listen", "silent"]]})
            embedded = client.post("/v1/embeddings", json={"input": "listen", "model": "default"})
            ranked = client.post("/v1/rerank", json={"query": "listen", "documents": ["silent", "stone"]})
            alive = client.get("/livez")
            assert [answer.status_code for answer in (similar, embedded, ranked, alive)] == [200] * 4
            assert client.get("/v1/index").status_code == 503
            assert "dse_index_up 0.0" in client.get("/metrics").text
            own_milvus.start()
            record_property("seconds until ready", until(lambda: client.get("/readyz").status_code == 200))
            load.more(200)
    assert load.wrong == []
    assert load.statuses.keys() == {200, 503}
    for id_ in load.acknowledged:
        assert client.get(f"/v1/documents/{id_}").status_code == 200, id_


def test_an_alias_switch_under_load_mixes_no_answers(
    served: Settings, address: MilvusAddress, student: Student, tmp_path: Path
) -> None:
    """Another encoder's generation becomes live: who embeds with the one before goes on with what it knows."""
    other = EncoderIdentity(name="reversed", digest="f" * 64)
    service = load(served)
    assert service.index is not None
    with service.index as index, TestClient(create_app(served, service), raise_server_exceptions=False) as client:
        expected = search(client).json()
        stop, answers = threading.Event(), list[object]()

        def searching() -> None:
            while not stop.is_set():
                answers.append(search(client).json())

        thread = threading.Thread(target=searching)
        thread.start()
        try:
            encoder = student.encoder
            rebuild_at(
                address,
                ACCESS,
                tmp_path / "work",
                lambda texts: encoder.encode([text[::-1] for text in texts]),
                encoder.dims,
                other,
                None,
                lambda done, total: None,
            )
            until(lambda: stays(index) is not None)
            seen = len(answers)
            until(lambda: len(answers) > seen + 2)
        finally:
            stop.set()
            thread.join()
        assert all(answer == expected for answer in answers)
        assert "stays_because" in client.get("/readyz").json()
        put = client.put("/v1/documents", json={"documents": [{"id": "z", "text": "z"}]})
        assert put.status_code == 409
    with pytest.raises(IndexFault, match="built with encoder reversed"):
        load(served)


def stays(index: Index) -> str | None:
    return index.stays_because


def test_a_token_is_told_to_nobody(served: Settings, own_milvus: StandIn, caplog) -> None:
    secret = "root:do-not-tell"
    settings = Settings(**served.model_dump() | {"milvus_token": secret, "index": str(served.index)})
    assert "do-not-tell" not in repr(settings) + repr(settings.milvus_access())
    service = load(settings)  # the stand-in asks nobody who they are
    assert service.index is not None
    with service.index as index:
        own_milvus.kill()
        try:
            until(lambda: index.away is not None)
            with pytest.raises(IndexFault) as refused:
                len(index.view())
            with pytest.raises(IndexFault) as unreachable:
                load(settings)
        finally:
            own_milvus.start()
        until(lambda: index.away is None)
    assert "do-not-tell" not in caplog.text + str(refused.value) + str(unreachable.value)
    with pytest.raises(ValueError, match="an address names nobody") as written:
        Settings(index=f"milvus://{secret}@127.0.0.1:1/name")
    assert "is it up" in str(unreachable.value)
    assert "do-not-tell" not in str(written.value)
