"""What a stage asks of a batch, by the names of its recipe."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.training.losses import cosent, embedding_regression, margin_mse, multiple_negatives, pair_logit_loss
from model.training.network_recipe import NetworkRecipe
from model.training.networks import Answers
from model.training.objectives import Example, Targets, pair_objective, text_objective
from model.training.pairs import Pair
from tests.model.training.tiny_training import network

EXAMPLES = [
    Example(Pair("1", "a", "b", 1.0), 1.0, 3.0),
    Example(Pair("2", "a", "c", 0.2), 0.2, -1.0),
    Example(Pair("3", "d", "b", 0.9), 0.9, math.nan),
    Example(Pair("4", "e", "f", math.nan), math.nan, 2.5),
]


def recipe(**facts: Any) -> NetworkRecipe:
    return NetworkRecipe.model_validate(network("bi-encoder", distillation=0.25, **facts))


@pytest.fixture
def answers() -> Answers:
    torch.manual_seed(0)
    left, right = functional.normalize(torch.randn(2, 4, 8), dim=-1)
    return Answers(torch.randn(4), (left * right).sum(-1), left, right)


def asked(answers: Answers, losses: dict[str, float], **facts: Any) -> float:
    what = recipe(stage={"losses": losses}, **facts)
    return pair_objective(answers, EXAMPLES, what, what.stages[0]).item()


def test_targets_mix_gold_and_teacher_and_number_texts() -> None:
    targets = Targets.of(EXAMPLES, distillation=0.25)
    taught = 1 / (1 + math.exp(-3.0))
    assert targets.ranking[0].item() == pytest.approx(0.75 * 1.0 + 0.25 * taught)
    assert targets.ranking[2].item() == pytest.approx(0.9)
    assert targets.ranking[3].item() == pytest.approx(1 / (1 + math.exp(-2.5)))
    assert targets.left[0] == targets.left[1] != targets.left[2]
    assert targets.right[0] == targets.right[2]


def test_each_loss_is_fed_what_it_needs(answers: Answers) -> None:
    targets = Targets.of(EXAMPLES, 0.25)
    positive = [0, 2, 3]  # targets of at least 0.8; the first and the third have the same right text
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert answers.left is not None
    assert answers.right is not None
    expected = {
        "dse": pair_logit_loss(answers.logit, targets.gold, targets.teacher, 0.25),
        "cosent": cosent(answers.similarity, targets.ranking, 20.0),
        "margin-mse": margin_mse(answers.logit, targets.teacher, torch.tensor([0, 0, 1, 2])),
        "multiple-negatives": multiple_negatives(answers.left[positive], answers.right[positive], 20.0, equal=same),
    }
    for name, loss in expected.items():
        assert asked(answers, {name: 1.0}) == pytest.approx(loss.item(), rel=1e-5), name
    both = asked(answers, {"dse": 2.0, "cosent": 0.5})
    assert both == pytest.approx(2 * expected["dse"].item() + 0.5 * expected["cosent"].item(), rel=1e-5)


def test_what_belongs_to_a_text_is_no_negative_of_it() -> None:
    """Its own copy, when a batch has pairs both ways round; and another of its positives."""
    axes = torch.eye(4)
    a, c = axes[0], axes[1]
    b, d = (0.9 * axis + math.sqrt(1 - 0.81) * other for axis, other in ((a, axes[2]), (c, axes[3])))
    vectors = {"a": a, "b": b, "c": c, "d": d, "a2": b}
    what = recipe(stage={"losses": {"multiple-negatives": 1.0}})

    def loss(*pairs: str) -> float:
        left, right = (torch.stack([vectors[pair.split()[side]] for pair in pairs]) for side in (0, 1))
        texts = [pair.split() for pair in pairs]
        given = [Example(Pair(str(n), one, two, 1.0), 1.0, math.nan) for n, (one, two) in enumerate(texts)]
        similarity = (left * right).sum(-1)
        return pair_objective(Answers(similarity, similarity, left, right), given, what, what.stages[0]).item()

    assert loss("a b", "c d") == pytest.approx(0.0, abs=1e-6)
    assert loss("a b", "c d", "b a", "d c") == pytest.approx(0.0, abs=1e-6)
    assert loss("a b", "a a2") == pytest.approx(0.0, abs=1e-6)
    assert loss("a b", "c a2") > 0.6  # as near to the first as its own, and another's


def test_a_prediction_is_the_teachers_as_a_distribution_over_two_classes(answers: Answers) -> None:
    """The third pair has no teacher."""
    logits, teacher = answers.logit.numpy()[[0, 1, 3]], np.array([3.0, -1.0, 2.5])
    shares = 1 / (1 + np.exp(-teacher))
    expected = shares * np.log1p(np.exp(-logits)) + (1 - shares) * np.log1p(np.exp(logits))
    assert asked(answers, {"prediction": 1.0}) == pytest.approx(expected.mean(), rel=1e-5)


def test_without_positives_there_is_nothing_to_contrast(answers: Answers) -> None:
    what = recipe(stage={"losses": {"multiple-negatives": 1.0}})
    dull = [Example(Pair("1", "a", "b", 0.1), 0.1, math.nan)] * 4
    assert pair_objective(answers, dull, what, what.stages[0]).item() == 0.0


def test_prefixes_are_trained_as_embeddings_of_their_own(answers: Answers) -> None:
    assert answers.left is not None
    assert answers.right is not None
    u, v = answers.left.numpy(), answers.right.numpy()
    targets = Targets.of(EXAMPLES, 0.25)

    def at(dims: int) -> float:
        left, right = (x[:, :dims] / np.linalg.norm(x[:, :dims], axis=1, keepdims=True) for x in (u, v))
        return cosent(torch.tensor((left * right).sum(1)), targets.ranking, 20.0).item()

    expected = np.mean([at(8), at(2), at(4)])
    assert asked(answers, {"cosent": 1.0}, matryoshka=[2, 4]) == pytest.approx(expected, rel=1e-4)


def test_texts_are_drawn_to_their_aims_in_every_prefix(answers: Answers) -> None:
    assert answers.left is not None
    assert answers.right is not None
    stage = {"texts": ["plain"], "regression": 3.0}
    whole, cut = recipe(stage=stage), recipe(stage=stage, matryoshka=[2])
    loss = text_objective(answers.left, answers.right, whole, whole.stages[0]).item()
    assert loss == pytest.approx(3 * embedding_regression(answers.left, answers.right).item(), rel=1e-5)
    assert text_objective(answers.left, answers.left, cut, cut.stages[0]).item() == pytest.approx(0, abs=1e-6)
    assert text_objective(answers.left, answers.right, cut, cut.stages[0]).item() != pytest.approx(loss)


@pytest.mark.parametrize(
    ("kind", "facts", "message"),
    [
        ("bi-encoder", {"head": {"kind": "cosine"}, "stage": {"losses": {"dse": 1.0}}}, "a cosine is no logit"),
        ("bi-encoder", {"head": {"kind": "cosine"}, "stage": {"losses": {"margin-mse": 1.0}}}, "a cosine is no logit"),
        ("cross-encoder", {"head": {"kind": "classifier"}, "stage": {"losses": {"cosent": 1.0}}}, "compare two"),
        ("cross-encoder", {"head": {"kind": "classifier"}, "stage": {"head_only": True}}, "is part of its body"),
        ("bi-encoder", {"stage": {"losses": {}}}, "at least 1 item"),
        ("cross-encoder", {"head": {"kind": "cosine"}}, "a cross-encoder has no cosine head"),
        ("bi-encoder", {"head": {"kind": "classifier"}}, "a bi-encoder has no classifier head"),
        ("bi-encoder", {"stage": {"texts": ["plain"]}}, "texts go with regression, imitation, maps_only or search"),
        ("bi-encoder", {"stage": {"regression": 1.0}}, "texts go with regression, imitation, maps_only or search"),
        ("bi-encoder", {"stage": {"sets": []}}, "give sets of pairs, texts, or both"),
    ],
)
def test_what_cannot_be_asked_is_refused(kind: str, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkRecipe.model_validate(network(kind, **facts))
