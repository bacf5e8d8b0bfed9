"""What does a model, or a running service, say of a file of pairs, and how well does that agree with gold?"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from app.similarity import score_pairs
from model.bundle import load_student, load_teacher
from model.training.pairs import Pair, read_pairs
from model.training.quality import Correlation
from model.training.recipes import PairSet
from model.training.teacher import Ensemble
from scripts.console import BadInput, read_settings

PAIRS_PER_REQUEST = 256
TIMEOUT_SECONDS = 120.0

Scores = dict[str, NDArray[np.float64]]
"""What was measured, by name, each (pairs,)."""


def evaluate(
    path: Path, bundle: Path | None, teacher: Path | None, signal: Path | None, url: str | None
) -> dict[str, dict[str, float]]:
    """Pearson and Spearman (points) of what the one source that is given answers on an STS file."""
    pair_set = PairSet(file=path.name, range=(0.0, 5.0), terms="the caller's")
    pairs = read_pairs(path.parent, pair_set)
    gold = np.array([pair.gold for pair in pairs])
    if len(set(gold)) < 2 or not ((gold >= 0) & (gold <= 1)).all():
        raise BadInput(f"{path}: agreement needs scores of 0 to 5 that are not all the same")
    scores = _scores(pairs, bundle, teacher, signal, url)
    return {name: asdict(Correlation.of(values, gold)) for name, values in scores.items()}


def _scores(
    pairs: Sequence[Pair], bundle: Path | None, teacher: Path | None, signal: Path | None, url: str | None
) -> Scores:
    rows = [(pair.left, pair.right) for pair in pairs]
    threads = read_settings().threads
    if bundle is not None:
        student = load_student(bundle, threads)
        answers = score_pairs(student, rows)
        return {"score": student.score(answers.logits), "similarity": answers.similarities}
    if teacher is not None:
        loaded = load_teacher(teacher, threads)
        return {"teacher": loaded.score(loaded.cross_encoder.score(rows).logits)}
    if signal is not None:
        members = Ensemble.load(signal)
        raw = members.raw_scores(pairs)
        names = [member.name for member in members.signal.members]
        found = {name: raw[:, column] for column, name in enumerate(names)}
        # of the signal as it is used: a probability-like score, like the others
        return found | {"signal": 1 / (1 + np.exp(-members.signal.logits(raw)))}
    assert url is not None  # the command sees to it that one of the four is given
    base = url.rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise BadInput(f"{url}: give the address of a running service, http://HOST:PORT")
    student_answers = _ask(f"{base}/v1/similarity", rows)
    found = {
        "score": np.array([row["score"] for row in student_answers]),
        "similarity": np.array([row["similarity"] for row in student_answers]),
    }
    if _field(f"{base}/readyz", "teacher") is not None:
        answers_of_teacher = _ask(f"{base}/v1/teacher/similarity", rows)
        found["teacher"] = np.array([row["score"] for row in answers_of_teacher])
    return found


def _ask(url: str, rows: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
    answers: list[dict[str, float]] = []
    for start in range(0, len(rows), PAIRS_PER_REQUEST):
        answers += _field(url, "results", {"pairs": rows[start : start + PAIRS_PER_REQUEST]})
    return answers


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
