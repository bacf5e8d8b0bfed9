"""How good is each model on each set? Every set is read once, and answered by all models in turn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.comparison import RankAgreement
from model.encoder import shortened
from scripts.console import BadInput
from scripts.evaluation import metrics, retrieval
from scripts.evaluation.bootstrap import Estimate, Samples, draw, points
from scripts.evaluation.results import Agreement, Results, Row
from scripts.evaluation.scorers import Model, similarity_at
from scripts.evaluation.sets import Collection, GoldPairs, SetFacts

ITEMS_PER_STEP = 2048  # of progress

Progress = Callable[[str, int, int], None]
"""What is being done, how many items of it are done, of how many."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What one model answered to a set."""

    model: str
    by: str
    samples: dict[str, Samples]  # of each figure
    thresholds: dict[str, float | None]
    values: NDArray[np.float64] | None  # (pairs,) what was said of each
    teaches: bool


@dataclass(frozen=True)
class Measured:
    """Rows and agreement of all sets."""

    sets: list[SetFacts]
    rows: list[Row]
    agreement: list[Agreement]


def measure(
    sets: Iterable[GoldPairs | Collection],
    models: Sequence[Model],
    baseline: str,
    depth: int,
    progress: Progress,
    earlier: Results | None = None,
) -> Measured:
    """Every model on every set that applies to it; models that do not embed have no part in retrieval.

    Args:
        sets: read one at a time.
        models: each under a name of its own.
        baseline: the name of the model that the others are compared with.
        depth: nearest documents that a head puts in order, as the service does.
        progress: told after every step.
        earlier: results whose models take part with the figures they had.

    Raises:
        BadInput: the earlier results are of another version of a set.
    """
    measured = Measured([], [], [])
    for one in sets:
        answers = [answer for model in models for answer in _answers(model, one, depth, progress)]
        known = _known(earlier, one.facts)
        rows = [*known, *(_row(answer, one.facts) for answer in answers)]
        samples = {(answer.model, answer.by): answer.samples for answer in answers}
        measured.sets.append(one.facts)
        measured.rows.extend(_compared(row, rows, samples, baseline) for row in rows)
        measured.agreement.extend(_agreements(answers, one.facts.name))
    return measured


def _answers(model: Model, one: GoldPairs | Collection, depth: int, progress: Progress) -> Iterable[Answer]:
    stage = f"{one.facts.name}: {model.facts.name}"
    if isinstance(one, GoldPairs):
        return _on_pairs(model, one, lambda done, total: progress(stage, done, total))
    return _on_collection(model, one, depth, lambda done, total: progress(stage, done, total))


def _on_pairs(model: Model, one: GoldPairs, progress: Callable[[int, int], None]) -> Iterable[Answer]:
    parts = _in_steps(one.pairs, model.answers, progress)
    for by in parts[0]:
        values = np.concatenate([part[by] for part in parts])
        positive = one.gold == 1
        if one.facts.kind == "sts":
            figures = {"pearson": metrics.pearson(values, one.gold), "spearman": metrics.spearman(values, one.gold)}
            thresholds = {}
        else:
            figures = {
                "average_precision": metrics.average_precision(values, positive),
                "f1": metrics.best_f1(values, positive),
                "accuracy": metrics.best_accuracy(values, positive),
            }
            thresholds = metrics.best_thresholds(values, positive)
        samples = draw(figures, one.facts.items)
        yield Answer(model.facts.name, by, samples, thresholds, values, by in model.teaches)


def _on_collection(model: Model, one: Collection, depth: int, progress: Callable[[int, int], None]) -> Iterable[Answer]:
    if model.encode is None:
        return
    texts = [*one.queries, *one.documents]
    embeddings = np.concatenate(_in_steps(texts, model.encode, progress))
    queries, documents = embeddings[: len(one.queries)], embeddings[len(one.queries) :]
    left_out = one.themselves
    by_cosine = retrieval.nearest(queries, documents, max(depth, retrieval.MOST_HITS), left_out)
    rankings = {"similarity": by_cosine}
    if model.head is not None:
        rankings = {"score": retrieval.reordered(by_cosine, queries, documents, model.head)} | rankings
    for width in model.prefixes:
        cut = shortened(queries, width), shortened(documents, width)
        rankings[similarity_at(width)] = retrieval.nearest(*cut, retrieval.MOST_HITS, left_out)
    for by, ranking in rankings.items():
        figures = {name: metrics.mean(of) for name, of in retrieval.figures(ranking, one.judged).items()}
        yield Answer(model.facts.name, by, draw(figures, one.facts.items), {}, None, teaches=False)


def _in_steps(items: Sequence[T], do: Callable[[Sequence[T]], Any], progress: Callable[[int, int], None]) -> list[Any]:
    parts = []
    for start in range(0, len(items), ITEMS_PER_STEP):
        parts.append(do(items[start : start + ITEMS_PER_STEP]))
        progress(min(start + ITEMS_PER_STEP, len(items)), len(items))
    return parts


def _row(answer: Answer, facts: SetFacts) -> Row:
    figures = {name: Estimate.of(samples) for name, samples in answer.samples.items()}
    return Row(facts.name, facts.kind, answer.model, answer.by, figures, answer.thresholds, {})


def _known(earlier: Results | None, facts: SetFacts) -> list[Row]:
    """The rows that earlier results have of a set, to be compared anew."""
    if earlier is None:
        return []
    then = next((known for known in earlier.sets if known.name == facts.name), None)
    if then is None or then.files != facts.files:
        raise BadInput(f"--with-results: they have no figures of {facts.name} as it is now; measure that model again")
    return [replace(row, over_baseline={}) for row in earlier.rows if row.set == facts.name]


def _compared(row: Row, rows: Sequence[Row], samples: dict[tuple[str, str], dict[str, Samples]], baseline: str) -> Row:
    """The row with its distance to the baseline's answer of the same name, or else to its first."""
    theirs = [other for other in rows if other.model == baseline]
    if row.model == baseline or not theirs:
        return row
    other = next((one for one in theirs if one.by == row.by), theirs[0])
    mine, drawn = samples.get((row.model, row.by)), samples.get((other.model, other.by))
    if mine is not None and drawn is not None:
        over = {name: Estimate.of(values - drawn[name]) for name, values in mine.items()}
    else:  # figures of an earlier run: their resamples are gone
        over = {name: _difference(figure, other.figures[name]) for name, figure in row.figures.items()}
    return replace(row, over_baseline=over)


def _difference(left: Estimate, right: Estimate) -> Estimate:
    known = left.value is not None and right.value is not None
    return Estimate(round(left.value - right.value, 2) if known else None, None, None)  # type: ignore[operator]


def _agreements(answers: Sequence[Answer], name: str) -> Iterable[Agreement]:
    teachers = [answer for answer in answers if answer.teaches]
    return chain.from_iterable(
        [_agreement(student, teacher, name) for student in answers if not student.teaches] for teacher in teachers
    )


def _agreement(student: Answer, teacher: Answer, name: str) -> Agreement:
    assert student.values is not None  # teachers answer pairs only, so all of these did
    assert teacher.values is not None
    found = RankAgreement.of(student.values, teacher.values)
    return Agreement(name, student.model, student.by, teacher.model, points(found.spearman), points(found.kendall))
