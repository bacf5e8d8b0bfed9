"""What does a model, or a running service, say of a file of pairs, and how well does that agree with gold?"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from model.bundle import load_student, load_teacher
from model.similarity import score_pairs
from model.training.pairs import Pair, read_pairs
from model.training.quality import Correlation
from model.training.recipes import PairSet
from model.training.teacher import Ensemble
from scripts.console import BadInput, read_settings

PAIRS_PER_REQUEST = 256
TIMEOUT_SECONDS = 120.0

Scores = dict[str, NDArray[np.float64]]
"""What was measured, by name, each (pairs,)."""


Scorer = Callable[[Sequence[Pair]], Scores]
"""Something that answers pairs: a bundle, a teacher, a signal, a running service."""


def evaluate(path: Path, scorer: Scorer) -> dict[str, dict[str, float]]:
    """Pearson and Spearman (points) of a scorer's answers on an STS file (scores 0 to 5)."""
    pairs = read_pairs(path.parent, PairSet(file=path.name, range=(0.0, 5.0), terms="the caller's"))
    gold = np.array([pair.gold for pair in pairs])
    if len(set(gold)) < 2 or not ((gold >= 0) & (gold <= 1)).all():
        raise BadInput(f"{path}: agreement needs scores of 0 to 5 that are not all the same")
    return {name: asdict(Correlation.of(values, gold)) for name, values in scorer(pairs).items()}


def of_bundle(folder: Path) -> Scorer:
    """A student's score and similarity."""
    student = load_student(folder, read_settings().threads)

    def score(pairs: Sequence[Pair]) -> Scores:
        answers = score_pairs(student.encoder, student.head, [(pair.left, pair.right) for pair in pairs])
        return {"score": student.score(answers.logits), "similarity": answers.similarities}

    return score


def of_teacher(folder: Path) -> Scorer:
    """A served teacher's score."""
    teacher = load_teacher(folder, read_settings().threads)

    def score(pairs: Sequence[Pair]) -> Scores:
        return {"teacher": teacher.score(teacher.scorer.score([(p.left, p.right) for p in pairs]).logits)}

    return score


def of_signal(folder: Path) -> Scorer:
    """Each member's raw score, and the signal's as the probability that its logit stands for."""
    ensemble = Ensemble.load(folder)

    def score(pairs: Sequence[Pair]) -> Scores:
        raw = ensemble.raw_scores(pairs)
        members = {member.name: raw[:, column] for column, member in enumerate(ensemble.signal.members)}
        return members | {"signal": 1 / (1 + np.exp(-ensemble.signal.logits(raw)))}

    return score


def of_service(url: str) -> Scorer:
    """What a running service answers, its teacher's score among it where it has one."""
    base = url.rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise BadInput(f"{url}: give the address of a running service, http://HOST:PORT")

    def score(pairs: Sequence[Pair]) -> Scores:
        rows = [(pair.left, pair.right) for pair in pairs]
        student = _ask(f"{base}/v1/similarity", rows)
        found = {name: np.array([row[name] for row in student]) for name in ("score", "similarity")}
        if _field(f"{base}/readyz", "teacher") is not None:
            found["teacher"] = np.array([row["score"] for row in _ask(f"{base}/v1/teacher/similarity", rows)])
        return found

    return score


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
