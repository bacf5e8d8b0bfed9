"""What does a model, or a running service, say of a file of pairs, and how well does that agree with gold?"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from app.settings import Settings
from app.similarity import score_pairs
from model.bundle import load_student, load_teacher
from model.training.pairs import Pair, read_pairs
from model.training.quality import Correlation
from model.training.recipes import PairSet
from model.training.teacher import Teacher
from scripts.console import BadInput

PAIRS_PER_REQUEST = 256

Scores = dict[str, NDArray[np.float64]]
"""What was measured, by name, each (pairs,)."""


def evaluate(
    path: Path, bundle: Path | None, teacher: Path | None, signal: Path | None, url: str | None
) -> dict[str, dict[str, float]]:
    """Pearson and Spearman (points) of what the one source that is given answers on an STS file."""
    pair_set = PairSet(file=path.name, range=(0.0, 5.0), terms="the caller's")
    pairs = read_pairs(path.parent, pair_set)
    gold = np.array([pair.gold for pair in pairs])
    scores = _scores(pairs, bundle, teacher, signal, url)
    return {name: asdict(Correlation.of(values, gold)) for name, values in scores.items()}


def _scores(
    pairs: Sequence[Pair], bundle: Path | None, teacher: Path | None, signal: Path | None, url: str | None
) -> Scores:
    rows = [(pair.left, pair.right) for pair in pairs]
    threads = Settings().threads
    if bundle is not None:
        student = load_student(bundle, threads)
        answers = score_pairs(student, rows)
        return {"score": student.score(answers.logits), "similarity": answers.similarities}
    if teacher is not None:
        loaded = load_teacher(teacher, threads)
        return {"teacher": loaded.score(loaded.cross_encoder.score(rows).logits)}
    if signal is not None:
        members = Teacher.load(signal)
        raw = members.raw_scores(pairs)
        names = [member.name for member in members.signal.members]
        found = {name: raw[:, column] for column, name in enumerate(names)}
        # of the signal as it is used: a probability-like score, like the others
        return found | {"signal": 1 / (1 + np.exp(-members.signal.logits(raw)))}
    assert url is not None  # the command sees to it that one of the four is given
    base = url.rstrip("/")
    student_answers = _ask(f"{base}/v1/similarity", rows)
    found = {
        "score": np.array([row["score"] for row in student_answers]),
        "similarity": np.array([row["similarity"] for row in student_answers]),
    }
    if _has_teacher(base):
        answers_of_teacher = _ask(f"{base}/v1/teacher/similarity", rows)
        found["teacher"] = np.array([row["score"] for row in answers_of_teacher])
    return found


def _ask(url: str, rows: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
    answers: list[dict[str, float]] = []
    for start in range(0, len(rows), PAIRS_PER_REQUEST):
        body = json.dumps({"pairs": rows[start : start + PAIRS_PER_REQUEST]}).encode()
        request = Request(url, body, {"Content-Type": "application/json"})
        answers += _answer(request)["results"]
    return answers


def _has_teacher(base: str) -> bool:
    return _answer(Request(f"{base}/readyz"))["teacher"] is not None


def _answer(request: Request) -> Any:
    if not request.full_url.startswith(("http://", "https://")):
        raise BadInput(f"{request.full_url}: give the address of a running service, http://HOST:PORT")
    try:
        with urlopen(request) as response:
            return json.load(response)
    except HTTPError as error:
        raise BadInput(f"{request.full_url}: {error.code} {error.read().decode(errors='replace')}") from error
    except URLError as error:
        raise BadInput(f"{request.full_url}: {error.reason}") from error
