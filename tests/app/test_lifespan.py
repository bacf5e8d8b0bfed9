"""What begins and ends with the application: threads for all it lets in, an index that is followed, open queues."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from index.live import LiveIndex


def test_whoever_is_let_in_has_a_thread(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_requests": 60}))
    together = threading.Barrier(60, timeout=20)  # of its own accord, anyio has 40 threads

    @app.get("/meet")
    def meet() -> None:
        together.wait()

    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(client.get, ["/meet"] * 60))
    assert [answer.status_code for answer in answers] == [200] * 60


def test_generations_are_opened_beside_the_requests(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[LiveIndex] = []
    monkeypatch.setattr(LiveIndex, "open_beside", lambda index: opened.append(index))
    app = create_app(settings)
    with TestClient(app):
        assert opened == [app.state.service.index]


def test_once_it_has_ended_nothing_is_taken(settings: Settings) -> None:
    app, body = create_app(settings), {"pairs": [["a", "b"]]}
    with TestClient(app) as client:
        assert client.post("/v1/similarity", json=body).status_code == 200
    refused = TestClient(app).post("/v1/similarity", json=body)
    message = "the service is stopping; try again"
    assert (refused.status_code, refused.json()["error"]) == (503, {"type": "not_ready", "message": message})
    assert refused.headers["retry-after"] == "1"
