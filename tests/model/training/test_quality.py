import math

import numpy as np
import pytest

from model.faults import TrainingFault
from model.training.quality import (
    Correlation,
    accuracy,
    calibration_error,
    decisions,
    expected_gold,
    f1,
    fit_calibration,
)


def test_correlation_is_in_points_and_sees_order_and_shape() -> None:
    gold = np.array([0.0, 1.0, 2.0, 3.0])
    assert Correlation.of(gold, gold) == Correlation(100.0, 100.0)
    curved = Correlation.of(gold**5, gold)
    assert curved.spearman == 100.0
    assert curved.pearson < 95


def test_calibration_recovers_the_sigmoid_that_made_the_gold() -> None:
    logits = np.linspace(-6, 9, 500)
    found = fit_calibration(logits, 1 / (1 + np.exp(-(0.7 * logits - 1.5))))
    assert (found.slope, found.intercept) == (pytest.approx(0.7, abs=1e-3), pytest.approx(-1.5, abs=1e-3))


def test_a_calibrated_score_is_the_expected_gold() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=20_000) * 3
    gold = (random.random(20_000) < 1 / (1 + np.exp(-logits / 2))).astype(np.float64)
    scores = fit_calibration(logits, gold)(logits)
    assert calibration_error(scores, gold) < 0.02
    assert calibration_error(np.clip(scores + 0.1, 0, 1), gold) > 0.05


def test_scores_that_are_too_sure_are_not_calibrated_though_their_mean_is_right() -> None:
    gold = np.linspace(0, 1, 1000)
    too_sure = np.clip(2 * gold - 0.5, 0, 1)
    assert too_sure.mean() == pytest.approx(gold.mean())
    assert calibration_error(too_sure, gold) == pytest.approx(0.125, abs=0.001)  # from 0 to 0.25 and back, twice
    assert calibration_error(gold, gold) == 0


def test_scores_that_fall_as_gold_rises_are_refused() -> None:
    with pytest.raises(TrainingFault, match="fall as gold rises"):
        fit_calibration(np.arange(10.0), np.arange(10.0)[::-1] / 10)


@pytest.mark.parametrize("scores", [[0.0] * 30, [0.1] * 30, [0.0, 1.0, math.nan], [0.0, 1.0, math.inf]])
def test_scores_that_say_nothing_are_refused(scores: list[float]) -> None:
    with pytest.raises(TrainingFault, match="all the same, or some are no finite numbers"):
        fit_calibration(np.array(scores), np.linspace(0, 1, len(scores)))


def test_the_calibration_error_of_few_pairs_is_the_mean_of_their_gaps() -> None:
    assert calibration_error(np.array([0.5, 0.2, 0.9]), np.array([0.6, 0.2, 0.5])) == pytest.approx(0.5 / 3)


def test_decisions_accuracy_and_f1() -> None:
    logits, gold = np.array([2.0, -1.0, 0.5, -3.0, 1.0]), np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    decided = decisions(logits)
    assert decided.tolist() == [1, 0, 1, 0, 1]
    assert accuracy(decided, gold) == 60.0
    assert f1(decided, gold) == 66.67  # precision 2/3, recall 2/3
    assert f1(np.zeros(5, np.int64), gold) == 0.0
    assert decisions(np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])).tolist() == [1, 0]


def test_the_expected_gold_of_logits_and_of_classes() -> None:
    assert expected_gold(np.array([0.0, np.log(3)])) == pytest.approx([0.5, 0.75])
    assert expected_gold(np.log([[0.2, 0.3, 0.5], [1.0, 1.0, 2.0]])) == pytest.approx([1.3, 1.25])
