"""How good are these answers? Each figure is a function of how often every item was drawn: a resample is a row more."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Counts = NDArray[np.int64]
"""(resamples, items): how often each item was drawn; all ones for the items as they are."""

Metric = Callable[[Counts], Floats]
"""(resamples,) a figure, 1 at best; NaN where it is not defined."""

ROUNDING = 1e-13
"""Values whose mean is this near, relative to the largest, are all the same: they correlate with nothing."""


def pearson(scores: Floats, gold: Floats) -> Metric:
    """Pearson's correlation of (items,) scores with (items,) gold."""
    return lambda counts: _correlation(scores[None], gold[None], counts)


def spearman(scores: Floats, gold: Floats) -> Metric:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs.

    Items are ranked anew in each resample, among those that were drawn, each as often as it was drawn.
    """
    left, right = _Grouped(scores), _Grouped(gold)
    return lambda counts: _correlation(left.ranks(counts), right.ranks(counts), counts)


def average_precision(scores: Floats, positive: NDArray[np.bool_]) -> Metric:
    """Mean precision over the positive pairs: the sum of (R_n - R_n-1) P_n over the distinct scores, highest first.

    As scikit-learn and MTEB define it; pairs of equal score are accepted together.
    """
    cuts = _Cuts(scores, positive)

    def measure(counts: Counts) -> Floats:
        accepted, hits = cuts.accepted(counts)
        gained = np.diff(hits, axis=1, prepend=0)
        return _ratio((gained * _ratio(hits, accepted, 0.0)).sum(axis=1), hits[:, -1])

    return measure


def best_f1(scores: Floats, positive: NDArray[np.bool_]) -> Metric:
    """The highest F1 of any threshold."""
    cuts = _Cuts(scores, positive)
    return lambda counts: cuts.f1(counts).max(axis=1)


def best_accuracy(scores: Floats, positive: NDArray[np.bool_]) -> Metric:
    """The highest accuracy of any threshold, that which accepts nothing among them."""
    cuts = _Cuts(scores, positive)
    return lambda counts: cuts.accuracy(counts).max(axis=1)


def best_thresholds(scores: Floats, positive: NDArray[np.bool_]) -> dict[str, float | None]:
    """The score from which on a pair is accepted, for the best F1 and accuracy; None where nothing is to be.

    The highest of those that do equally well.
    """
    cuts, once = _Cuts(scores, positive), np.ones((1, len(scores)), np.int64)
    best = int(cuts.accuracy(once)[0].argmax())
    return {
        "f1": float(cuts.thresholds[cuts.f1(once)[0].argmax()]),
        "accuracy": float(cuts.thresholds[best - 1]) if best else None,
    }


def mean(values: Floats) -> Metric:
    """The mean of (items,) values: of each query's own figure, for one."""
    return lambda counts: counts @ values / counts.sum(axis=1)


def ndcg(grades: Floats, ideal: Floats, k: int) -> Floats:
    """(queries,) discounted gain of the first k hits over that of the best k: gain = grade, discount log2(rank + 1).

    As in trec_eval and BEIR (Järvelin and Kekäläinen, 2002, with linear gain).

    Args:
        grades: (queries, hits) grade of each hit, best hit first; 0 where it is not relevant.
        ideal: (queries, judged) all judged grades of a query, highest first, then 0s; the first is above 0.
        k: hits that are looked at.
    """
    return _discounted(grades, k) / _discounted(ideal, k)


def reciprocal_rank(grades: Floats, k: int) -> Floats:
    """(queries,) 1 / rank of the first relevant hit, 0 if it is not among the first k."""
    relevant = grades[:, :k] > 0
    return np.where(relevant.any(axis=1), 1 / (relevant.argmax(axis=1) + 1), 0.0)


def capped_recall(grades: Floats, ideal: Floats, k: int) -> Floats:
    """(queries,) relevant documents among the first k hits, over as many as k hits can hold (BEIR's R_cap@k)."""
    return (grades[:, :k] > 0).sum(axis=1) / np.minimum(k, (ideal > 0).sum(axis=1))


class _Grouped:
    """Values in ascending order, equal ones together."""

    def __init__(self, values: Floats) -> None:
        self.distinct, self._group = np.unique(values, return_inverse=True)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.flatnonzero(np.diff(self._group[self._order], prepend=-1))

    def totals(self, counts: Counts) -> Counts:
        """(resamples, distinct) items drawn of each distinct value."""
        return np.add.reduceat(counts[:, self._order], self._starts, axis=1)

    def ranks(self, counts: Counts) -> Floats:
        """(resamples, items) each item's rank among all that were drawn, from 1."""
        totals = self.totals(counts)
        return (totals.cumsum(axis=1) - (totals - 1) / 2)[:, self._group]


class _Cuts:
    """Every threshold that tells scores apart, highest first: what is accepted at it, and what of that rightly."""

    def __init__(self, scores: Floats, positive: NDArray[np.bool_]) -> None:
        self._falling, self._positive = _Grouped(-scores), positive
        self.thresholds = -self._falling.distinct

    def accepted(self, counts: Counts) -> tuple[Counts, Counts]:
        """(resamples, thresholds) pairs accepted, and how many of them are positive."""
        totals = self._falling.totals(counts), self._falling.totals(counts * self._positive)
        return totals[0].cumsum(axis=1), totals[1].cumsum(axis=1)

    def f1(self, counts: Counts) -> Floats:
        """(resamples, thresholds); NaN where no positive pair was drawn."""
        accepted, hits = self.accepted(counts)
        positive = hits[:, -1:]
        return _ratio(2 * hits, np.where(positive > 0, accepted + positive, 0))

    def accuracy(self, counts: Counts) -> Floats:
        """(resamples, 1 + thresholds); the first accepts nothing."""
        accepted, hits = self.accepted(counts)
        gained = np.concatenate([np.zeros_like(hits[:, :1]), 2 * hits - accepted], axis=1)
        drawn = accepted[:, -1:]
        return (drawn - hits[:, -1:] + gained) / drawn


def _discounted(grades: Floats, k: int) -> Floats:
    first = grades[:, :k]
    return first @ (1 / np.log2(np.arange(2, first.shape[1] + 2)))


def _correlation(x: Floats, y: Floats, counts: Counts) -> Floats:
    """(resamples,) Pearson's correlation of rows of values, each drawn ``counts`` times."""
    left, right = _deviations(x, counts), _deviations(y, counts)
    spread = np.sqrt((counts * left**2).sum(axis=1) * (counts * right**2).sum(axis=1))
    return np.clip(_ratio((counts * left * right).sum(axis=1), spread), -1.0, 1.0)


def _deviations(values: Floats, counts: Counts) -> Floats:
    """(resamples, items) distance from the mean of what was drawn; exactly 0 where only rounding made it."""
    means = (counts * values).sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    deviations = values - means
    return np.where(np.abs(deviations) > ROUNDING * np.abs(values).max(), deviations, 0.0)


def _ratio(over: NDArray[np.number], under: NDArray[np.number], otherwise: float = np.nan) -> Floats:
    return np.divide(over, under, out=np.full(np.shape(under), otherwise), where=under != 0)
