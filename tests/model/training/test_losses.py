import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.training.losses import cosent, pair_logit_loss, ranking_target

NUMBERS = st.floats(-4, 4)
ROWS = st.lists(st.tuples(NUMBERS, st.one_of(st.just(math.nan), st.floats(0, 1)), NUMBERS), min_size=1, max_size=12)


@given(rows=ROWS, c=st.floats(0, 1))
def test_the_dse_objective_is_the_papers(rows, c: float) -> None:
    """(1 - c) cross-entropy + c squared difference; a pair without gold has the second term alone."""
    logit, gold, teacher = np.array(rows, np.float64).T
    expected = []
    for s, y, t in zip(logit, gold, teacher, strict=True):
        imitation = (s - t) ** 2
        if math.isnan(y):
            expected.append(imitation)
        else:
            p = 1 / (1 + math.exp(-s))
            expected.append((1 - c) * -(y * math.log(p) + (1 - y) * math.log(1 - p)) + c * imitation)
    found = pair_logit_loss(*(torch.tensor(x) for x in (logit, gold, teacher)), c)
    assert found.item() == pytest.approx(np.mean(expected), abs=1e-6)


def test_without_a_teacher_it_is_the_task_alone() -> None:
    logit, gold = torch.tensor([0.3, -1.0]), torch.tensor([1.0, 0.2])
    none = torch.full((2,), math.nan)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, gold)
    assert pair_logit_loss(logit, gold, none, 0.5).item() == pytest.approx(expected.item())


def test_a_missing_target_gives_no_gradient_of_nan() -> None:
    logit = torch.tensor([0.3, -1.0], requires_grad=True)
    nan = math.nan
    pair_logit_loss(logit, torch.tensor([nan, 0.2]), torch.tensor([1.0, nan]), 0.5).backward()
    assert logit.grad is not None
    assert logit.grad.isfinite().all()


@given(
    rows=st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), min_size=1, max_size=12),
    scale=st.floats(1, 20),
)
def test_cosent_is_its_formula(rows, scale: float) -> None:
    similarity, target = np.array(rows, np.float64).T
    total = 1.0
    for i in range(len(rows)):
        for j in range(len(rows)):
            if target[i] > target[j]:
                total += math.exp(scale * (similarity[j] - similarity[i]))
    found = cosent(torch.tensor(similarity), torch.tensor(target), scale)
    assert found.item() == pytest.approx(math.log(total), abs=1e-6)


def test_cosent_is_least_in_the_right_order() -> None:
    target = torch.tensor([0.0, 0.5, 1.0])
    right, wrong = cosent(target, target, 20.0), cosent(target.flip(0), target, 20.0)
    assert right.item() < 0.001 < wrong.item()


def test_the_ranking_target_mixes_what_there_is() -> None:
    gold, teacher = torch.tensor([1.0, math.nan, 0.25]), torch.tensor([0.0, 0.0, math.nan])
    torch.testing.assert_close(ranking_target(gold, teacher, 0.5), torch.tensor([0.75, 0.5, 0.25]))
