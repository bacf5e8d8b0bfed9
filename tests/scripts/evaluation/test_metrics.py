import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scripts.evaluation import metrics

VALUES = st.integers(0, 6)  # few, so that many are equal
PAIRS = st.lists(st.tuples(VALUES, VALUES, st.integers(0, 3)), min_size=2, max_size=25)
LABELLED = st.lists(st.tuples(VALUES, st.booleans(), st.integers(0, 3)), min_size=1, max_size=25)


def once(items: int) -> np.ndarray:
    return np.ones((1, items), np.int64)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two columns of values, and how often each row was drawn: at least one of them once."""
    left, right, counts = np.array(rows, np.int64).T
    counts[0] = max(counts[0], 1)
    return left / 7, right / 3, counts


def pearson_by_hand(left: list[float], right: list[float]) -> float:
    if len(set(left)) == 1 or len(set(right)) == 1:
        return math.nan
    dx, dy = [x - sum(left) / len(left) for x in left], [y - sum(right) / len(right) for y in right]
    return sum(x * y for x, y in zip(dx, dy, strict=True)) / math.sqrt(sum(x * x for x in dx) * sum(y * y for y in dy))


def ranks_by_hand(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


@given(rows=PAIRS)
def test_correlations_of_a_resample_are_those_of_the_list_it_stands_for(rows: list[tuple[int, int, int]]) -> None:
    left, right, counts = columns(rows)
    drawn_left, drawn_right = np.repeat(left, counts).tolist(), np.repeat(right, counts).tolist()
    twice = np.stack([counts, np.ones_like(counts)])  # the second row must not hear of the first
    assert metrics.pearson(left, right)(twice)[0] == pytest.approx(
        pearson_by_hand(drawn_left, drawn_right), nan_ok=True
    )
    expected = pearson_by_hand(ranks_by_hand(drawn_left), ranks_by_hand(drawn_right))
    assert metrics.spearman(left, right)(twice)[0] == pytest.approx(expected, nan_ok=True)
    whole = pearson_by_hand(ranks_by_hand(left.tolist()), ranks_by_hand(right.tolist()))
    assert metrics.spearman(left, right)(twice)[1] == pytest.approx(whole, nan_ok=True)


def test_correlations_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    left, right = random.normal(size=(2, 500)).round(1)
    assert metrics.pearson(left, right)(once(500))[0] == pytest.approx(stats.pearsonr(left, right).statistic)
    assert metrics.spearman(left, right)(once(500))[0] == pytest.approx(stats.spearmanr(left, right).statistic)


def test_what_is_all_the_same_correlates_with_nothing() -> None:
    same = np.full(1000, 0.1) * 3  # whose mean need not be it
    assert math.isnan(metrics.pearson(same, np.arange(1000.0))(once(1000))[0])


def judged_by_hand(scores: list[float], positive: list[bool]) -> dict[str, float]:
    """Every threshold there is, one by one."""
    cuts = sorted(set(scores), reverse=True)
    accepted = [[label for score, label in zip(scores, positive, strict=True) if score >= cut] for cut in cuts]
    precision = [sum(some) / len(some) for some in accepted]
    recall = [0.0] + [sum(some) / sum(positive) if any(positive) else math.nan for some in accepted]
    correct = [sum(not label for label in positive)]  # accepting nothing
    correct += [sum((score >= cut) == label for score, label in zip(scores, positive, strict=True)) for cut in cuts]
    return {
        "average_precision": sum(p * (recall[n + 1] - recall[n]) for n, p in enumerate(precision)),
        "f1": max(2 * sum(some) / (len(some) + sum(positive)) for some in accepted) if any(positive) else math.nan,
        "accuracy": max(correct) / len(scores),
    }


@given(rows=LABELLED)
def test_classification_is_that_of_trying_every_threshold(rows: list[tuple[int, bool, int]]) -> None:
    scores, labels, counts = columns(rows)
    positive = labels > 0
    expected = judged_by_hand(np.repeat(scores, counts).tolist(), np.repeat(positive, counts).tolist())
    found = {
        "average_precision": metrics.average_precision(scores, positive)(counts[None])[0],
        "f1": metrics.best_f1(scores, positive)(counts[None])[0],
        "accuracy": metrics.best_accuracy(scores, positive)(counts[None])[0],
    }
    assert found == pytest.approx(expected, nan_ok=True)


@given(rows=LABELLED)
def test_a_threshold_gives_the_figure_it_is_the_best_for(rows: list[tuple[int, bool, int]]) -> None:
    scores, labels, _ = columns(rows)
    positive = labels > 0
    assume(positive.any())
    best = metrics.best_thresholds(scores, positive)
    accepted = np.zeros(len(scores), bool) if best["accuracy"] is None else scores >= best["accuracy"]
    assert (accepted == positive).mean() == pytest.approx(metrics.best_accuracy(scores, positive)(once(len(scores)))[0])
    accepted = scores >= best["f1"]
    f1 = 2 * (accepted & positive).sum() / (accepted.sum() + positive.sum())
    assert f1 == pytest.approx(metrics.best_f1(scores, positive)(once(len(scores)))[0])


def test_pairs_of_equal_score_are_accepted_together() -> None:
    scores, positive = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, False, True, False])
    assert metrics.average_precision(scores, positive)(once(4))[0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert metrics.best_thresholds(scores, positive) == {"f1": 0.5, "accuracy": 0.9}


GRADES = st.lists(st.integers(0, 3), min_size=1, max_size=15)


def dcg_by_hand(grades: list[int], k: int) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades[:k], 1))


@given(hits=GRADES, missed=GRADES, k=st.integers(1, 12))
def test_retrieval_figures_are_the_formulas(hits: list[int], missed: list[int], k: int) -> None:
    judged = sorted((grade for grade in hits + missed if grade), reverse=True) or [1]
    grades, ideal = np.array([hits], np.float64), np.array([judged], np.float64)
    assert metrics.ndcg(grades, ideal, k)[0] == pytest.approx(dcg_by_hand(hits, k) / dcg_by_hand(judged, k))
    ranks = [rank for rank, grade in enumerate(hits[:k], 1) if grade]
    assert metrics.reciprocal_rank(grades, k)[0] == pytest.approx(1 / ranks[0] if ranks else 0)
    assert metrics.capped_recall(grades, ideal, k)[0] == pytest.approx(len(ranks) / min(k, len(judged)))


@given(hits=GRADES, k=st.integers(1, 12))
def test_the_best_order_is_perfect_and_a_relevant_hit_further_up_is_never_worse(hits: list[int], k: int) -> None:
    judged = sorted([*hits, 1], reverse=True)
    ideal = np.array([judged], np.float64)
    for figure in (metrics.ndcg, metrics.capped_recall):
        assert figure(ideal, ideal, k)[0] == pytest.approx(1)
    for first in range(len(hits) - 1):
        better = list(hits)
        better[first : first + 2] = sorted(hits[first : first + 2], reverse=True)
        for figure in (metrics.ndcg, metrics.capped_recall):
            now, then = (figure(np.array([row], np.float64), ideal, k)[0] for row in (better, hits))
            assert now >= then - 1e-12
