"""How good is a scorer? Correlation with gold, and the calibration that makes a score mean gold/5."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, softmax
from scipy.stats import pearsonr, spearmanr

from model.faults import TrainingFault
from model.head import Calibration


@dataclass(frozen=True)
class Correlation:
    """Agreement with gold, in points (100 times the coefficient)."""

    pearson: float
    spearman: float

    @classmethod
    def of(cls, scores: NDArray[np.floating], gold: NDArray[np.floating]) -> "Correlation":
        """Pearson and Spearman of (pairs,) scores with (pairs,) gold."""
        pearson = pearsonr(scores, gold).statistic
        spearman = spearmanr(scores, gold).statistic
        return cls(round(100 * float(pearson), 2), round(100 * float(spearman), 2))


def expected_gold(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """(pairs,) sigmoid of (pairs,) logits; of (pairs, classes), the expected number of the class."""
    if logits.ndim == 1:
        return expit(logits)
    return softmax(logits, axis=-1) @ np.arange(logits.shape[1])


def decisions(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """(pairs,) the likelier of no (0) and yes (1) for (pairs,) logits; of (pairs, classes), the likeliest class."""
    return (logits > 0).astype(np.int64) if logits.ndim == 1 else logits.argmax(axis=-1)


def accuracy(decided: NDArray[np.int64], gold: NDArray[np.floating]) -> float:
    """Right decisions, in percent."""
    return round(100 * float(np.mean(decided == gold)), 2)


def f1(decided: NDArray[np.int64], gold: NDArray[np.floating]) -> float:
    """Harmonic mean of precision and recall of the decision 1, in percent; 0 where nothing was rightly found."""
    found = np.sum((decided == 1) & (gold == 1))
    return round(100 * float(2 * found / max(np.sum(decided == 1) + np.sum(gold == 1), 1)), 2)


def fit_calibration(logits: NDArray[np.floating], gold: NDArray[np.floating]) -> Calibration:
    """The slope and intercept for which sigmoid(slope * logit + intercept) is the expected gold (Platt, 1999).

    Args:
        logits: (pairs,) raw scores, or cosines.
        gold: (pairs,) in 0..1.

    Raises:
        TrainingFault: the scores are all the same, or not finite, or do not rise with gold.
    """
    logits = np.asarray(logits, np.float64)
    gold = np.asarray(gold, np.float64)
    if not 0 < np.ptp(logits) < np.inf:
        raise TrainingFault("the scores are all the same, or some are no finite numbers: nothing to calibrate")
    centre, spread = logits.mean(), logits.std()
    standard = (logits - centre) / spread

    def cross_entropy(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value = weights[0] * standard + weights[1]
        excess = expit(value) - gold
        loss = np.mean(np.logaddexp(0.0, value) - gold * value)
        return float(loss), np.array([np.mean(excess * standard), np.mean(excess)])

    slope, intercept = minimize(cross_entropy, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if not 0 < slope < np.inf:
        raise TrainingFault(f"the scores fall as gold rises (slope {slope / spread:.3g}): nothing to calibrate")
    return Calibration(float(slope / spread), float(intercept - slope * centre / spread))


def calibration_error(scores: NDArray[np.floating], gold: NDArray[np.floating]) -> float:
    """Mean gap between score and gold, both 0..1, over 10 bins of equal count; of fewer pairs, over each."""
    bins = np.array_split(np.argsort(scores, kind="stable"), min(10, len(scores)))
    return float(np.mean([abs(scores[rows].mean() - gold[rows].mean()) for rows in bins]))
