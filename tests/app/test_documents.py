"""Changes over HTTP: durable when answered, found by the next search, and a request sees one state throughout."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn
from fastapi.testclient import TestClient

from app.loading import identity, load
from app.main import create_app
from app.settings import Settings
from index.changes import ChangeLog
from index.live import LiveIndex
from index.manifest import EncoderIdentity
from index.rebuild import rebuild
from model.bundle import Student
from tests.conftest import WORDS, build_index
from tests.index.lettered import embed
from tests.waiting import until

NEW = {"id": "new", "text": "tonsil", "metadata": {"kind": "noun"}}


@pytest.fixture
def own(tmp_path: Path, settings: Settings, student: Student) -> Settings:
    """The settings of a service with an index of its own."""
    return settings.model_copy(update={"index": build_index(tmp_path / "index", student, WORDS), "teacher": None})


@pytest.fixture
def client(own: Settings) -> TestClient:
    return TestClient(create_app(own), raise_server_exceptions=False)


def put(client: TestClient, *documents: dict) -> list[dict]:
    answer = client.put("/v1/documents", json={"documents": documents})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def ids(client: TestClient, query: str, k: int = 20) -> list[str]:
    return [hit["id"] for hit in client.post("/v1/search", json={"query": query, "k": k}).json()["hits"]]


def facts(client: TestClient) -> tuple[str, int, int]:
    found = client.get("/v1/index").json()
    return found["generation"], found["documents"], found["changes_pending"]


def test_what_was_put_is_found_got_replaced_and_deleted(client: TestClient, own: Settings) -> None:
    replaced = {"id": "d0", "text": "a longer text"}
    assert put(client, NEW, replaced) == [
        {"id": "new", "status": "created", "truncated": False},
        {"id": "d0", "status": "updated", "truncated": False},
    ]
    assert facts(client) == ("000001", 11, 2)
    assert "new" in ids(client, "tonsil")
    assert client.get("/v1/documents/new").json() == NEW
    assert client.get("/v1/documents/d0").json() == replaced | {"metadata": {}}
    assert client.get("/v1/documents/d1").json() == {"id": "d1", "text": "silent", "metadata": {"length": 6}}
    # durable: a service that starts now has it too
    assert facts(TestClient(create_app(own))) == ("000001", 11, 2)
    deleted = client.delete("/v1/documents/new")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert "new" not in ids(client, "tonsil")
    for call in (client.get, client.delete):
        answer = call("/v1/documents/new")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "no document has the id 'new'"


def test_any_id_has_a_route(own: Settings) -> None:
    """Through a real server: the test client decodes a path twice, and so cannot say ``%``."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(own), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    connection = http.client.HTTPConnection(*listener.getsockname())

    def call(method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else {}

    try:
        for id_ in ["a/b/c", "/a", "ü/✓ ?#%25", "a b", "x/../y?z=1", "%2F", "trailing/", "a\nb", "a\n"]:
            document = {"id": id_, "text": "tonsil", "metadata": {}}
            assert call("PUT", "/v1/documents", {"documents": [document]})[0] == 200
            path = f"/v1/documents/{quote(id_, safe='')}"
            assert call("GET", path) == (200, document)
            assert call("DELETE", path) == (204, {})
            assert call("GET", path)[0] == 404
        assert call("GET", "/v1/index")[1]["documents"] == 10
    finally:
        server.should_exit = True
        connection.close()
        thread.join()


def test_an_id_that_ends_in_a_line_break_is_another(client: TestClient) -> None:
    put(client, NEW, NEW | {"id": "new\n"})
    assert client.delete("/v1/documents/new%0A").status_code == 204
    assert client.get("/v1/documents/new").json() == NEW
    assert client.delete("/v1/documents/new%0A").status_code == 404
    assert client.get("/v1/documents/new").status_code == 200


def test_compaction_keeps_every_answer(client: TestClient, own: Settings) -> None:
    put(client, NEW)
    client.delete("/v1/documents/d3")
    before = client.post("/v1/search", json={"query": "tonsil", "k": 20}).json()
    folded = client.post("/v1/index/compact").json()
    assert (folded["generation"], folded["documents"], folded["changes_pending"]) == ("000002", 10, 0)
    after = client.post("/v1/search", json={"query": "tonsil", "k": 20}).json()
    assert after == before | {"generation": "000002"}
    assert client.post("/v1/index/compact").json() == folded  # nothing to do


def test_reload_takes_up_what_another_process_built(client: TestClient, own: Settings, student: Student) -> None:
    put(client, NEW)
    assert own.index is not None
    build_index(own.index, student, ["stone"])
    assert client.post("/v1/index/reload").json()["generation"] == "000002"
    assert facts(client) == ("000002", 1, 0)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_service_whose_index_moved_to_another_encoder_says_so(own: Settings, read_only: bool, caplog) -> None:
    client = TestClient(create_app(own.model_copy(update={"read_only": read_only})))
    assert "stays_because" not in client.get("/readyz").json()
    assert own.index is not None
    rebuild(own.index, embed, 26, EncoderIdentity(name="other", digest="e" * 64))
    assert len(ids(client, "silent")) == len(WORDS)
    index, ready = client.get("/v1/index").json(), client.get("/readyz").json()
    assert (index["generation"], ready["generation"]) == ("000001", "000001")
    assert index["read_only"] is True
    for told in (index["stays_because"], ready["stays_because"], caplog.text):
        assert "was built with encoder other" in told
    assert client.put("/v1/documents", json={"documents": [NEW]}).status_code == 409


def test_a_log_that_vanishes_is_told_and_mended(client: TestClient, own: Settings, tmp_path: Path) -> None:
    put(client, NEW)
    assert own.index is not None
    log = own.index / "changes.sqlite"
    log.rename(tmp_path / "away")
    for answer in (
        client.post("/v1/search", json={"query": "tonsil"}),
        client.put("/v1/documents", json={"documents": [NEW]}),
    ):
        assert answer.status_code == 503
        assert "has been removed while it was open" in answer.json()["error"]["message"]
    (tmp_path / "away").rename(log)
    assert "new" in ids(client, "tonsil")


def test_a_long_text_is_cut_and_says_so_or_is_refused(client: TestClient) -> None:
    long = {"id": "long", "text": "listen " * 50}
    assert put(client, long)[0]["truncated"]
    body = {"documents": [long | {"id": "other"}], "truncate": False}
    refused = client.put("/v1/documents", json=body)
    assert refused.status_code == 422
    assert "longer than the 32 tokens" in refused.json()["error"]["message"]
    assert client.get("/v1/documents/other").status_code == 404


def test_the_time_that_tokenising_documents_takes_is_counted(client: TestClient) -> None:
    put(client, NEW)
    assert 'dse_stage_seconds_count{stage="tokenize"} 1.0' in client.get("/metrics").text


DEEP: dict = {"a": 1}
for _ in range(70):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("documents", "status", "param", "message"),
    [
        ([], 422, "documents", "at least 1 item"),
        ([{"id": "x"}], 422, "documents.0.text", "Field required"),
        ([NEW, {"id": 5, "text": "x"}], 422, "documents.1.id", "valid string"),
        ([{"id": " ", "text": "x"}], 422, "documents.0.id", "empty"),
        ([{"id": "x" * 4097, "text": "x"}], 422, "documents.0.id", "at most 4096"),
        ([{"id": "x", "text": "a\0b"}], 422, "documents.0.text", "NUL"),
        ([{"id": "x", "text": "x", "metadata": []}], 422, "documents.0.metadata", "valid dictionary"),
        ([{"id": "x", "text": "x", "metadata": DEEP}], 422, "documents.0.metadata", "more than 64 levels deep"),
        ([{"id": "x", "text": "x", "vector": [1]}], 422, "documents.0.vector", "Extra inputs"),
        ([{"id": "x", "text": "x"}] * 1025, 413, None, "the limit is 1024 (DSE_MAX_BATCH)"),
    ],
)
def test_bad_documents(client: TestClient, documents: list, status: int, param: str | None, message: str) -> None:
    answer = client.put("/v1/documents", json={"documents": documents})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.get("param") == param
    assert message in error["message"]
    assert facts(client) == ("000001", 10, 0)


def test_metadata_that_is_hardly_json(client: TestClient) -> None:
    content = b'{"documents": [{"id": "x", "text": "x", "metadata": {"a": NaN}}]}'
    answer = client.put("/v1/documents", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "metadata is not JSON: 'a'" in answer.json()["error"]["message"]


def writes(client: TestClient) -> list:
    return [
        client.put("/v1/documents", json={"documents": [NEW]}),
        client.delete("/v1/documents/d0"),
        client.post("/v1/index/compact"),
    ]


def test_a_read_only_service_answers_writes_with_409_and_reads_on(own: Settings) -> None:
    client = TestClient(create_app(own.model_copy(update={"read_only": True})))
    for answer in writes(client):
        assert answer.status_code == 409
        assert answer.json()["error"]["type"] == "conflict"
        assert "DSE_READ_ONLY" in answer.json()["error"]["message"]
    assert client.get("/v1/index").json()["read_only"]
    assert client.post("/v1/index/reload").status_code == 200
    assert len(ids(client, "listen")) == 10
    assert own.index is not None
    assert sorted(path.name for path in own.index.iterdir()) == ["CURRENT", "generations"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become a user who may not write")
@pytest.mark.parametrize("changed", [False, True])
def test_a_folder_that_cannot_be_written(own: Settings, student: Student, changed: bool) -> None:
    """In a process of a user to whom the folder is read-only; root may write anywhere."""
    assert own.index is not None
    place = Path("/tmp") / f"dse-read-only-{os.getpid()}-{changed}"
    shutil.copytree(own.index, place)
    try:
        if changed:
            with LiveIndex.open(place, identity(student), writable=True) as live:
                live.delete(["d9"])
        for path in (place, *place.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        code = f"""
import os
from pathlib import Path
from index.documents import Document
from index.live import LiveIndex
from index.manifest import EncoderIdentity
from index.rebuild import rebuild
from index.manifest import ReadOnlyFault
import numpy as np
LiveIndex.open(Path({str(own.index)!r}), None).view()  # so that everything is imported while it can be
os.setgid(65534), os.setuid(65534)
live = LiveIndex.open(Path({str(place)!r}), None, writable=True)
for write in (
    lambda: live.upsert([Document("x", "x")], np.ones((1, 16), np.float32)), lambda: live.delete(["d0"]), live.compact
):
    try:
        write()
    except ReadOnlyFault as fault:
        print(len(live.view()), "cannot be written" in str(fault))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.splitlines() == [f"{10 - changed} True"] * 3, done.stderr
    finally:
        shutil.rmtree(place)


def test_a_disk_that_fills_up_is_told_and_nothing_is_half_written(client: TestClient, monkeypatch) -> None:
    import sqlite3

    def full(log: ChangeLog, *_: object) -> None:
        with log._faults():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(ChangeLog, "append", full)
        answer = client.put("/v1/documents", json={"documents": [NEW]})
    assert answer.status_code == 503
    assert "free space" in answer.json()["error"]["message"]
    assert facts(client) == ("000001", 10, 0)


def test_a_waiting_writer_is_told_to_come_again(own: Settings, student: Student) -> None:
    service = load(own)
    assert own.index is not None
    index = LiveIndex.open(own.index, identity(student), writable=True, busy_seconds=0.05)
    client = TestClient(create_app(own, replace(service, index=index)))
    with LiveIndex.open(own.index, None, writable=True) as other, other._writer().transaction():
        answer = client.put("/v1/documents", json={"documents": [NEW]})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert put(client, NEW)[0]["status"] == "created"


def test_changes_are_folded_in_by_themselves(own: Settings) -> None:
    with TestClient(create_app(own.model_copy(update={"compact_after": 3}))) as client:
        put(client, NEW, NEW | {"id": "other"})
        time.sleep(1.5)
        assert facts(client) == ("000001", 12, 2)
        put(client, NEW | {"id": "third"})
        until(lambda: facts(client)[0] == "000002")
        assert facts(client) == ("000002", 13, 0)


def test_a_search_sees_one_state_while_others_write_and_compact(client: TestClient) -> None:
    """Two documents change their texts together; no answer has one old and one new."""
    stop = threading.Event()
    put(client, {"id": "x", "text": "onset 0"}, {"id": "y", "text": "onset 0"})

    def write() -> int:
        count = 0
        while not stop.is_set():
            count += 1
            put(client, *({"id": id_, "text": f"onset {count % 10}"} for id_ in "xy"))
            if count % 5 == 0:
                assert client.post("/v1/index/compact").status_code == 200
        return count

    def search() -> int:
        count = 0
        while not stop.is_set():
            hits = client.post("/v1/search", json={"query": "onset", "k": 20}).json()["hits"]
            texts = {hit["id"]: hit["text"] for hit in hits}
            assert len(hits) == len(texts) == 12
            assert texts["x"] == texts["y"]
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(write), *(pool.submit(search) for _ in range(3))]
        time.sleep(2)
        stop.set()
        assert all(job.result() for job in jobs)
