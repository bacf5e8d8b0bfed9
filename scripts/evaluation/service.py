"""What does a running service say of pairs? What is served is what is measured."""

import json
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from scripts.console import BadInput
from scripts.evaluation.scorers import Model, ModelFacts, Rows, Scores

PAIRS_PER_REQUEST = 256
CHARACTERS_PER_REQUEST = 1 << 16  # at most 12 bytes each, escaped: within the 1 MiB that a body may have
TIMEOUT_SECONDS = 120.0


def of_service(url: str) -> Model:
    """What a running service answers, its teacher's score among it where it has one.

    Raises:
        BadInput: not an address, or what is there does not answer as this service does.
    """
    base = url.rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise BadInput(f"{url}: give the address of a running service, http://HOST:PORT")
    has_teacher = _field(f"{base}/readyz", "teacher") is not None

    def student_of(rows: Rows) -> list[dict[str, float]]:
        return _ask(f"{base}/v1/similarity", rows)

    def score(rows: Rows) -> Scores:
        student = student_of(rows)
        found = {name: np.array([row[name] for row in student]) for name in ("score", "similarity")}
        if has_teacher:
            found["teacher"] = np.array([row["score"] for row in _ask(f"{base}/v1/teacher/similarity", rows)])
        return found

    teaches = ("teacher",) if has_teacher else ()
    return Model(ModelFacts(base, "service", None, None), score, teaches, timed=student_of)


def _ask(url: str, rows: Rows) -> list[dict[str, float]]:
    return [answer for some in _requests(rows) for answer in _field(url, "results", {"pairs": some})]


def _requests(rows: Rows) -> Iterator[list[tuple[str, str]]]:
    """Pairs in order, as many together as a request may hold."""
    some: list[tuple[str, str]] = []
    characters = 0
    for left, right in rows:
        length = len(left) + len(right)
        if some and (len(some) == PAIRS_PER_REQUEST or characters + length > CHARACTERS_PER_REQUEST):
            yield some
            some, characters = [], 0
        some.append((left, right))
        characters += length
    yield some


def _field(url: str, name: str, body: dict[str, Any] | None = None) -> Any:
    """One field of a service's JSON answer."""
    try:
        content = None if body is None else json.dumps(body).encode()
        request = Request(url, content, {"Content-Type": "application/json"})
        with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return json.load(response)[name]
    except HTTPError as error:
        said = error.read().decode(errors="replace")
        raise BadInput(f"{url} answered {error.code}: {said}") from error
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{url} does not answer as this service does ({type(error).__name__}: {error})") from error
