import numpy as np
import pytest

from scripts.evaluation.bootstrap import RESAMPLES, Estimate, draw
from scripts.evaluation.metrics import mean, pearson, spearman


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    found = Estimate.of(draw({"mean": mean(values)}, 400)["mean"])
    error = 100 * values.std() / 20
    assert found.value == pytest.approx(100 * values.mean(), abs=0.005)
    assert found.low == pytest.approx(100 * values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(100 * values.mean() + 1.96 * error, abs=0.2 * error)


def test_a_resample_is_a_draw_of_as_many_with_replacement() -> None:
    seen = []

    def watch(counts: np.ndarray) -> np.ndarray:
        seen.append(counts.copy())
        return counts[:, 0].astype(np.float64)

    drawn = draw({"watched": watch}, 6)["watched"]
    counts = np.concatenate(seen)
    assert counts.shape == (1 + RESAMPLES, 6)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 6).all()
    assert counts[1:].max() > 1
    assert counts[1:].mean(axis=0) == pytest.approx(np.ones(6), abs=0.15)
    np.testing.assert_array_equal(drawn, counts[:, 0])


def test_two_models_meet_the_same_resamples_so_a_small_but_sure_difference_is_seen() -> None:
    random = np.random.default_rng(2)
    hard = random.random(500)  # how hard each query is, for both
    left, right = (draw({"mean": mean(hard + shift)}, 500)["mean"] for shift in (0.01, 0.0))
    alone, difference = Estimate.of(left), Estimate.of(left - right)
    assert (difference.value, difference.low, difference.high) == (1.0, 1.0, 1.0)
    assert alone.high - alone.low > 4


def test_a_figure_that_is_not_defined_says_nothing() -> None:
    same = np.zeros(10)
    drawn = draw({"pearson": pearson(same, np.arange(10.0))}, 10)["pearson"]
    assert Estimate.of(drawn) == Estimate(None, None, None)


def test_many_items_are_drawn_in_chunks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = np.random.default_rng(3).normal(size=(2, 40))
    whole = draw({"spearman": spearman(left, right)}, 40)["spearman"]
    monkeypatch.setattr("scripts.evaluation.bootstrap.DRAWS_PER_CHUNK", 130)
    np.testing.assert_array_equal(draw({"spearman": spearman(left, right)}, 40)["spearman"], whole)
