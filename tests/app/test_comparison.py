import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.comparison import RankAgreement, StudentView, compare, ranks
from tests.fakes import LengthTeacher

SCORES = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=20)


@given(rows=SCORES)
def test_agreement_is_scipys(rows: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    left, right = np.array(rows, np.float64).T
    found = RankAgreement.of(left, right)
    if len(set(left)) == 1 or len(set(right)) == 1:
        assert found == RankAgreement(None, None)
    else:
        assert found.spearman == pytest.approx(stats.spearmanr(left, right).statistic)
        assert found.kendall == pytest.approx(stats.kendalltau(left, right).statistic)


def test_many_candidates_are_compared_block_by_block() -> None:
    left, right = np.random.default_rng(0).integers(0, 50, size=(2, 700)).astype(np.float64)
    found = RankAgreement.of(left, right)
    signs = [np.sign(scores[:, None] - scores[None, :]) for scores in (left, right)]
    assert found.kendall == pytest.approx((signs[0] * signs[1]).sum() / np.sqrt(np.prod([(s**2).sum() for s in signs])))
    assert found.spearman == pytest.approx(np.corrcoef(*(sign.sum(axis=1) for sign in signs))[0, 1])


def test_the_same_order_agrees_wholly_and_the_reverse_not_at_all() -> None:
    scores = np.array([0.3, 0.1, 0.9])
    assert RankAgreement.of(scores, scores * 2) == RankAgreement(pytest.approx(1), pytest.approx(1))
    assert RankAgreement.of(scores, -scores) == RankAgreement(pytest.approx(-1), pytest.approx(-1))


def test_one_candidate_has_no_ranking() -> None:
    assert RankAgreement.of(np.array([1.0]), np.array([2.0])) == RankAgreement(None, None)


def test_ranks_count_from_one() -> None:
    np.testing.assert_array_equal(ranks(np.array([0.2, 0.9, 0.2])), [2, 1, 3])


def test_equal_scores_are_ranked_in_input_order() -> None:
    """Two hundred: few enough, and any sort would keep their order."""
    found = ranks(np.tile([1.0, 0.0], 100))
    assert (found[::2].tolist(), found[1::2].tolist()) == ([*range(1, 101)], [*range(101, 201)])


def test_the_teacher_reads_the_query_with_the_students_candidates() -> None:
    view = StudentView(["ab", "abcd"], [None, None], np.array([0.9, 0.1]), truncated=False)
    found = compare("abcd", lambda: view, LengthTeacher())
    assert found.student is view
    np.testing.assert_array_equal(found.teacher_logits, [-2, 0])
    assert found.agreement.kendall == pytest.approx(-1)
    assert found.student_milliseconds >= 0
    assert not found.teacher_cut
