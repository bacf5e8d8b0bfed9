"""How far would a figure move with another sample of the same kind? The percentile bootstrap (Efron, 1979)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scripts.evaluation.metrics import Counts, Floats, Metric

RESAMPLES = 1000
SEED = 20
INTERVAL = (0.025, 0.975)  # 95 %
DRAWS_PER_CHUNK = 1 << 19  # so that a chunk of resamples stays within some megabytes

Samples = Floats
"""(1 + RESAMPLES,) a figure of the items as they are, then of each resample."""


@dataclass(frozen=True)
class Estimate:
    """A figure in points (100 times itself) and its 95 % interval; None where it is not defined, or was not drawn."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, samples: Samples) -> "Estimate":
        """The figure, and the interval that holds 95 % of its resamples."""
        drawn = samples[1:][~np.isnan(samples[1:])]
        low, high = np.quantile(drawn, INTERVAL).tolist() if len(drawn) else (None, None)
        return cls(points(samples[0]), points(low), points(high))


def points(value: float | None) -> float | None:
    """100 times a figure, to two decimals."""
    return None if value is None or np.isnan(value) else round(100 * float(value), 2)


def draw(metrics: Mapping[str, Metric], items: int) -> dict[str, Samples]:
    """Every metric over the same resamples of (items,).

    They are the same for every model that answers these items, so the difference of two models' samples is a
    paired bootstrap.
    """
    rows = [[metric(counts) for metric in metrics.values()] for counts in _resamples(items)]
    return {name: np.concatenate([row[column] for row in rows]) for column, name in enumerate(metrics)}


def _resamples(items: int) -> Iterator[Counts]:
    """The items as they are, then RESAMPLES draws of as many with replacement, some rows at a time."""
    yield np.ones((1, items), np.int64)
    random = np.random.default_rng(SEED)
    most = max(1, DRAWS_PER_CHUNK // items)
    for start in range(0, RESAMPLES, most):
        rows = min(most, RESAMPLES - start)
        drawn = random.integers(items, size=(rows, items)) + np.arange(rows)[:, None] * items
        yield np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items)
