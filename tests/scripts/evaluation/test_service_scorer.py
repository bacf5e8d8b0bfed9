import io
import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from model.bundle import Student
from model.similarity import score_pairs
from scripts.console import BadInput
from scripts.evaluation import service

ROWS = [("listen", "silent"), ("google", "banana"), ("listen", "stone")]
Open = Callable[..., io.BytesIO]


def wired_to(client: TestClient) -> Open:
    """urlopen, but to a service in this process."""

    def urlopen(request: Request, timeout: float) -> io.BytesIO:
        answer = client.request(
            request.get_method(), request.full_url, content=request.data, headers=dict(request.header_items())
        )
        if answer.status_code >= 400:
            raise HTTPError(request.full_url, answer.status_code, "", answer.headers, io.BytesIO(answer.content))  # type: ignore[arg-type]
        return io.BytesIO(answer.content)

    return urlopen


def test_a_service_answers_with_its_students_and_its_teachers_scores(
    client: TestClient, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "urlopen", wired_to(client))
    monkeypatch.setattr(service, "PAIRS_PER_REQUEST", 2)
    model = service.of_service("http://testserver/")
    assert (model.facts.name, model.facts.kind, model.encode) == ("http://testserver", "service", None)
    assert model.teaches == ("teacher",)
    found, expected = model.score(ROWS), score_pairs(student.encoder, student.head, ROWS)
    assert list(found) == ["score", "similarity", "teacher"]
    np.testing.assert_allclose(found["score"], student.score(expected.logits), atol=1e-5)
    np.testing.assert_allclose(found["similarity"], expected.similarities, atol=1e-5)
    assert found["teacher"].shape == (3,)
    assert model.timed is not None
    assert [answer["score"] for answer in model.timed(ROWS)] == found["score"].tolist()  # of its student alone


def test_what_a_service_refuses_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "urlopen", wired_to(client))
    model = service.of_service("http://testserver")
    with pytest.raises(BadInput, match=r"http://testserver/v1/similarity answered 422: .*error"):
        model.score([("", "b")])


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"status": "ready"}'])
def test_what_is_no_such_service_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(service, "urlopen", lambda *_, **__: io.BytesIO(answer))
    with pytest.raises(BadInput, match="does not answer as this service does"):
        service.of_service("http://example.invalid")


@given(lengths=st.lists(st.integers(0, 50_000), min_size=1, max_size=30))
def test_requests_hold_every_pair_in_order_within_their_limits(lengths: list[int]) -> None:
    rows = [("\N{GRINNING FACE}" * (length // 2), str(number)) for number, length in enumerate(lengths)]
    parts = list(service._requests(rows))
    assert [row for part in parts for row in part] == rows
    for part in parts:
        assert len(part) <= service.PAIRS_PER_REQUEST
        body: dict[str, Any] = {"pairs": part}
        assert len(json.dumps(body)) < 2**20 or len(part) == 1
