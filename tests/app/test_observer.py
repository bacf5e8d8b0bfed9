"""What is written down and counted of requests; and how a request ends that nobody waits for, or that is too many."""

import asyncio
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from app import logs
from app.admission import Admission
from app.answers import refuse_long
from app.batching import Queues
from app.calls import CALL, Call, stage
from app.errors import ServiceError
from app.main import create_app
from app.observer import PART, Observer
from app.settings import Settings
from model.bundle import Student
from model.tokens import Tokens
from tests.waiting import until

SECRET = "zanzibar"


@pytest.fixture
def served(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), raise_server_exceptions=False)


def queues_of(client: TestClient) -> Queues:
    return client.app.state.service.queues  # type: ignore[attr-defined]


def samples(client: TestClient) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name, and by labels' values in order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


# Ids and lines


def test_an_id_is_taken_over_if_sane_and_else_made(served: TestClient) -> None:
    assert served.get("/livez", headers={"X-Request-Id": "trace-1.a:b"}).headers["x-request-id"] == "trace-1.a:b"
    made = {
        served.get("/livez", headers={"X-Request-Id": bad}).headers["x-request-id"] for bad in ("", "a b", "x" * 129)
    }
    assert len(made) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in made)
    assert "x-request-id" in served.get("/nothing").headers


def test_a_line_a_request_without_its_texts(served: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served.post("/v1/search", json={"query": SECRET}, headers={"X-Request-Id": "one"})
    served.post("/v1/similarity", json={"pairs": [[SECRET, 5]]})
    served.get(f"/v1/documents/{SECRET}")
    served.get(f"/{SECRET}?q={SECRET}")
    served.get("/readyz")
    lines = [record for record in caplog.records if record.name == "dse.access"]
    formatted = [json.loads(logs.JsonLines().format(record)) for record in lines]
    seen = [(line["method"], line["route"], line["status"]) for line in formatted]
    assert seen == [
        ("POST", "/v1/search", 200),
        ("POST", "/v1/similarity", 422),
        ("GET", "/v1/documents/{id:rest}", 404),
        ("GET", "unknown", 404),
    ]
    assert formatted[0]["tokens"] == 2 + len(SECRET)
    assert 0 <= formatted[0]["batch_wait_ms"] < formatted[0]["ms"]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("dse")]
    assert SECRET not in json.dumps(formatted) + " ".join(ours)


def test_a_failure_is_logged_with_the_id_that_its_answer_carries(settings: Settings, capsys: Any) -> None:
    app = create_app(settings)

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("bang")

    before = logging.getLogger().handlers[:]
    try:
        logs.install("json")
        answer = TestClient(app, raise_server_exceptions=False).get("/boom", headers={"X-Request-Id": "mine"})
    finally:
        logging.basicConfig(handlers=before, force=True, level=logging.WARNING)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    failed = next(line for line in lines if "exception" in line)
    assert (failed["request_id"], failed["level"]) == ("mine", "error")
    assert "RuntimeError: bang" in failed["exception"]
    assert [line["status"] for line in lines if line["logger"] == "dse.access"] == [500]


def test_a_text_line_is_one_line_and_names_its_request() -> None:
    record = logging.LogRecord("dse", logging.INFO, "", 0, "a\nb %s", ("c\r",), None)
    record.facts = {"status": 200}
    assert logs.TextLines().format(record).endswith(r"INFO dse a\nb c\r status=200")
    CALL.set(Call("mine", timeout=9))
    line = logs.TextLines().format(record)
    CALL.set(None)
    assert line.endswith(r"INFO dse a\nb c\r status=200 request_id=mine")


def test_a_probe_is_written_down_when_it_fails(served: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served.get("/readyz")
    queues_of(served).all[0]._die()
    served.get("/readyz"), served.get("/livez"), served.get("/metrics")
    lines = [record.getMessage() for record in caplog.records if record.name == "dse.access"]
    assert lines == ["GET /readyz 503", "GET /livez 503"]


# Metrics


def test_requests_stages_batches_and_the_index_are_counted(served: TestClient) -> None:
    for query in ("listen", "stone"):
        served.post("/v1/search", json={"query": query})
    served.post("/v1/search", json={})
    found = samples(served)
    assert found["dse_requests_total"] == {("POST", "/v1/search", "200"): 2, ("POST", "/v1/search", "422"): 1}
    assert found["dse_request_seconds_count"] == {("/v1/search",): 3}
    stages = found["dse_stage_seconds_count"]
    assert stages == {(name,): 2 for name in ("tokenize", "queue", "inference", "candidates", "scores", "documents")}
    for counted, total in (("tokens", (6 + 2) + (5 + 2)), ("texts", 2)):
        assert found[f"dse_batch_{counted}_count"] == {("tiny-student",): 2, ("tiny-teacher",): 0}
        assert found[f"dse_batch_{counted}_sum"] == {("tiny-student",): total, ("tiny-teacher",): 0}
    assert found["dse_worker_up"] == {("tiny-student",): 1, ("tiny-teacher",): 1}
    assert found["dse_index_up"] == {(): 1}
    index = [found[f"dse_index_{fact}"] for fact in ("generation", "documents", "changes_pending")]
    assert index == [{(): 1}, {(): 10}, {(): 0}]
    assert found["process_resident_memory_bytes"][()] > 10**7


def test_seconds_are_those_that_pass(served: TestClient) -> None:
    began = time.monotonic()
    served.post("/v1/search", json={"query": "listen"})
    took, found = time.monotonic() - began, samples(served)
    assert 0 < sum(found["dse_stage_seconds_sum"].values()) <= found["dse_request_seconds_sum"][("/v1/search",)] <= took


def test_what_waits_is_counted_in_texts_and_in_tokens(served: TestClient) -> None:
    queue = queues_of(served).all[0]
    forward, entered, go_on = queue._forward, threading.Event(), threading.Event()

    def held(tokens: Tokens) -> NDArray[Any]:
        entered.set()
        assert go_on.wait(10)
        return forward(tokens)

    queue._forward = held
    with ThreadPoolExecutor(2) as pool:
        pool.submit(served.post, "/embed", json={"inputs": "a"})
        assert entered.wait(10)
        waits = pool.submit(served.post, "/embed", json={"inputs": ["listen", "stone"]})
        until(lambda: queue.waiting[0] > 0 or waits.done())
        found = samples(served)
        go_on.set()
    assert waits.result().status_code == 200
    assert found["dse_queue_texts"] == {("tiny-student",): 2, ("tiny-teacher",): 0}
    assert found["dse_queue_tokens"] == {("tiny-student",): (6 + 2) + (5 + 2), ("tiny-teacher",): 0}


def test_what_nobody_foresaw_has_one_label(served: TestClient) -> None:
    for number in range(50):
        served.get(f"/nothing/{number}")
        served.get(f"/v1/documents/{number}")
        served.request(f"WORD{number}", "/v1/search")
    served.get("/ui/page.js")
    labels = samples(served)["dse_requests_total"]
    assert labels[("GET", "unknown", "404")] == 50
    assert labels[("GET", "/v1/documents/{id:rest}", "404")] == 50
    assert labels[("unknown", "/v1/search", "405")] == 50
    assert len(labels) == 4, labels


def test_what_is_refused_before_its_route_is_counted_as_that_route(settings: Settings) -> None:
    changes = {"api_keys": SecretStr("caller-key-0123456789"), "max_body_bytes": 100}
    client = TestClient(create_app(settings.model_copy(update=changes)))
    key = {"Authorization": "Bearer caller-key-0123456789"}
    client.post("/v1/search", json={"query": SECRET})
    client.post("/v1/search", json={"query": SECRET * 20}, headers=key)
    client.delete("/v1/documents/a/b")
    client.headers.update(key)
    assert samples(client)["dse_requests_total"] == {
        ("POST", "/v1/search", "401"): 1,
        ("POST", "/v1/search", "413"): 1,
        ("DELETE", "/v1/documents/{id:rest}", "401"): 1,
    }


# Bodies that do not arrive


def ask_slowly(settings: Settings, then: Any) -> tuple[list[dict[str, Any]], TestClient]:
    """What is answered to a request whose body begins, and goes on as ``then`` does."""
    app = create_app(settings)
    parts = iter([{"type": "http.request", "body": b'{"query": ', "more_body": True}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(parts, None) or await then()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/search", "raw_path": b"/v1/search", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1), "server": ("local", 80),
        "scheme": "http", "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 10))
    return sent, TestClient(app)


def test_a_body_that_stalls_is_given_up_at_the_deadline(settings: Settings) -> None:
    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    sent, client = ask_slowly(settings.model_copy(update={"timeout": 0.2, "max_requests": 1}), never)
    assert sent[0]["status"] == 504
    assert (
        "the body had not arrived within 0.2 seconds (DSE_TIMEOUT)" in json.loads(sent[1]["body"])["error"]["message"]
    )
    assert client.post("/v1/similarity", json={"pairs": [["a", "b"]]}).status_code != 429  # its place is free


def test_a_client_that_hangs_up_within_its_body_is_counted_as_gone(settings: Settings) -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    _, client = ask_slowly(settings, gone)
    assert samples(client)["dse_requests_total"] == {("POST", "/v1/search", "499"): 1}


# Readiness


def test_a_dead_worker_is_neither_ready_nor_alive(served: TestClient) -> None:
    queues_of(served).all[0]._die()
    answer = served.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "not_ready")
    assert "the worker of tiny-student died" in answer.json()["error"]["message"]
    assert served.get("/livez").status_code == 503  # restarted, if that stays so
    refused = served.post("/v1/search", json={"query": "a"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    found = samples(served)
    assert found["dse_worker_restarts_total"] == {("tiny-student",): 1, ("tiny-teacher",): 0}
    assert found["dse_worker_up"] == {("tiny-student",): 0, ("tiny-teacher",): 1}


# Deadline, hanging up, too many


def test_past_the_deadline_nothing_more_is_done(settings: Settings) -> None:
    hurried = TestClient(create_app(settings.model_copy(update={"timeout": 1e-9})))
    answer = hurried.post("/v1/search", json={"query": "listen"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout")
    assert "(DSE_TIMEOUT)" in answer.json()["error"]["message"]


def test_a_stage_is_not_begun_for_a_client_who_left() -> None:
    CALL.set(Call("a", timeout=9, gone=True))
    with pytest.raises(ServiceError), stage("candidates"):
        pytest.fail("it began")
    CALL.set(None)
    with stage("candidates"):
        pass


def test_to_find_out_whether_a_text_would_be_cut_takes_time_too(student: Student) -> None:
    call = Call("a", timeout=9)
    CALL.set(call)
    refuse_long(student, ["listen"], truncate=False)
    CALL.set(None)
    assert call.seconds.keys() == {"tokenize"}


POST = {"type": "http", "method": "POST", "path": "/v1/search", "headers": []}


class Uncounted:
    """Metrics that nobody reads."""

    def answered(self, *facts: Any) -> None:
        self.facts = facts


def test_a_client_who_hangs_up_is_noticed_while_the_answer_is_made() -> None:
    hung_up = asyncio.Event()
    seen: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        call = CALL.get()
        assert call is not None
        seen.append(call.gone)
        hung_up.set()
        await asyncio.sleep(0.01)
        seen.append(call.gone)
        assert (await receive())["type"] == "http.disconnect"

    body = iter([True, True, False])

    async def receive() -> dict[str, Any]:
        if (more := next(body, None)) is not None:
            return {"type": "http.request", "body": b"x", "more_body": more}
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pytest.fail("nothing was answered")

    observer = Observer(application, Uncounted(), 9)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(observer(dict(POST), receive, send), 10))
    assert seen == [False, True]


@pytest.mark.parametrize("size", [0, PART, PART + 1, 3 * PART])
def test_a_long_answer_is_given_to_the_server_in_parts(size: int) -> None:
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(range(256)) * (size // 256) + b"x" * (size % 256)})

    async def send(message: Any) -> None:
        sent.append(message)

    observer = Observer(application, Uncounted(), 9)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(observer(dict(POST), None, send), 10))  # type: ignore[arg-type]
    parts = [message["body"] for message in sent[1:]]
    assert b"".join(parts) == bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert max(map(len, parts)) <= PART
    assert len(parts) == max(1, -(-size // PART))
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(parts) - 1) + [False]


def test_an_answer_that_is_not_read_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it waited for: a client has the deadline for every part."""
    monkeypatch.setattr("app.observer.SECONDS_A_PART", 0.01)
    metrics, sent = Uncounted(), list[int]()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 9 * PART})

    async def send(message: Any) -> None:
        if sum(sent) > 2 * PART:
            await asyncio.Event().wait()  # the client reads no further
        sent.append(len(message.get("body", b"")))

    observer = Observer(application, metrics, 0.05)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(observer(dict(POST), None, send), 10))  # type: ignore[arg-type]
    call, _, _, status, _ = metrics.facts
    assert (sum(sent), call.gone, status) == (3 * PART, True, 499)


def test_a_request_that_is_cut_off_is_told_so_and_nobody_waits_for_it() -> None:
    sent: list[dict[str, Any]] = []
    metrics = Uncounted()

    async def scenario() -> None:
        inside = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            inside.set()
            await asyncio.Event().wait()

        async def receive() -> Any:
            pytest.fail("nothing was read")

        async def send(message: Any) -> None:
            sent.append(message)

        observer = Observer(application, metrics, 9)  # type: ignore[arg-type]
        asked = asyncio.ensure_future(observer(dict(POST), receive, send))
        await inside.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(asyncio.wait_for(scenario(), 10))
    call, _, _, status, _ = metrics.facts
    assert (call.gone, status, sent[0]["status"]) == (True, 503, 503)
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"
    assert "the service is stopping" in json.loads(sent[1]["body"])["error"]["message"]


def test_whoever_fails_leaves_his_place(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_requests": 1}))

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("bang")

    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/boom").status_code == 500
    assert client.post("/v1/similarity", json={"pairs": [["a", "b"]]}).status_code == 200


def test_only_so_many_are_let_in_and_the_others_told_when_to_return() -> None:
    async def scenario() -> list[tuple[int, bytes]]:
        leave, inside = asyncio.Event(), 0
        answers: list[tuple[int, bytes]] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            nonlocal inside
            inside += 1
            await leave.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answers.append((message["status"], dict(message["headers"]).get(b"retry-after", b"")))

        async def receive() -> Any:
            pytest.fail("the body of what is refused was read")

        gate = Admission(application, 2, Queues())

        def ask(path: str) -> asyncio.Task[None]:
            return asyncio.ensure_future(gate(POST | {"path": path}, receive, send))  # type: ignore[arg-type]

        first = [ask("/v1/search") for _ in range(2)]
        await asyncio.sleep(0)
        await ask("/v1/search")
        probe = ask("/readyz")
        await asyncio.sleep(0)
        assert inside == 3
        leave.set()
        await asyncio.gather(*first, probe)
        await ask("/v1/search")
        return answers

    refused, *answered = asyncio.run(asyncio.wait_for(scenario(), 10))
    assert (refused, answered) == ((429, b"1"), [(200, b"")] * 4)


# Documentation


def test_every_metric_of_the_dashboard_is_there(served: TestClient) -> None:
    served.post("/v1/search", json={"query": "listen"})
    there = samples(served)
    root = Path(__file__).parents[2]
    dashboard = json.loads((root / "deploy/grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked = {name for query in queries for name in re.findall(r"\b(?:dse|process)_\w+", query)}
    assert len(asked) > 12
    assert asked - there.keys() == set()
    documented = set(re.findall(r"`((?:dse|process)_\w+)`", (root / "docs/operations.md").read_text()))
    assert documented - there.keys() - {name.removesuffix("_count") for name in there} == set()
    ours = {name for name in there if name.startswith("dse_") and not name.endswith(("_bucket", "_sum", "_created"))}
    assert {name.removesuffix("_count") for name in ours} - documented == set()
