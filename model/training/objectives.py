"""What does a stage ask of a batch? The losses a recipe names, each fed with what it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.training.losses import (
    class_logit_loss,
    cosent,
    embedding_regression,
    margin_mse,
    matryoshka,
    multiple_negatives,
    pair_logit_loss,
    ranking_target,
    soft_cross_entropy,
)
from model.training.network_recipe import NetworkRecipe, PairLoss, Stage
from model.training.networks import Answers
from model.training.pairs import Pair

POSITIVE = 0.8
"""From this target on, a pair is a positive of the contrastive loss: for STS, four of five."""


@dataclass(frozen=True)
class Example:
    """A pair and its targets; NaN stands for one that there is not."""

    pair: Pair
    gold: float  # 0..1, or the number of a class
    teacher: float | tuple[float, ...]  # a logit, or one for each class

    def swapped(self) -> "Example":
        """The same pair read in the other order: its targets are the same."""
        return Example(self.pair.swapped(), self.gold, self.teacher)


@dataclass(frozen=True)
class Targets:
    """What the pairs of a batch should score. The tensors are parallel: a row a pair."""

    gold: Tensor  # (pairs,) 0..1 or numbers of classes, NaN where there is none
    teacher: Tensor  # (pairs,) or (pairs, classes) logits, NaN where there is none
    ranking: Tensor  # (pairs,) gold and teacher mixed, 0..1; classes have no order: their gold
    left: Tensor  # (pairs,) int64, the same number for the same text
    right: Tensor  # (pairs,) int64

    @classmethod
    def of(cls, examples: Sequence[Example], distillation: float) -> "Targets":
        """The targets of a batch; ``distillation`` is the teacher's share where there are both."""
        gold = torch.tensor([example.gold for example in examples])
        teacher = torch.tensor([example.teacher for example in examples])
        numbers: dict[str, int] = {}
        left, right = (
            torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts])
            for texts in ([e.pair.left for e in examples], [e.pair.right for e in examples])
        )
        ranking = gold if teacher.ndim > 1 else ranking_target(gold, teacher, distillation)
        return cls(gold, teacher, ranking, left, right)


def pair_objective(answers: Answers, examples: Sequence[Example], recipe: NetworkRecipe, stage: Stage) -> Tensor:
    """The weighted sum of what a stage asks of its pairs."""
    targets = Targets.of(examples, recipe.distillation)
    parts = [weight * _PAIR_LOSSES[name](answers, targets, recipe) for name, weight in recipe.losses(stage).items()]
    return torch.stack(parts).sum()


def text_objective(embeddings: Tensor, aims: Tensor, recipe: NetworkRecipe, stage: Stage) -> Tensor:
    """Regression to the guide's embeddings, (texts, dim), of every dimension that the recipe trains."""
    losses = [embedding_regression(mine, aim) for mine, aim in _prefixes(embeddings, aims, recipe)]
    return stage.regression * torch.stack(losses).mean()


def _dse(answers: Answers, targets: Targets, recipe: NetworkRecipe) -> Tensor:
    loss = pair_logit_loss if recipe.head.outputs == 1 else class_logit_loss
    return loss(answers.logit, targets.gold, targets.teacher, recipe.distillation)


def _prediction(answers: Answers, targets: Targets, recipe: NetworkRecipe) -> Tensor:
    if recipe.head.outputs == 1:  # a logit is that of one class of two, the other's being 0
        student, teacher = (torch.stack([x, torch.zeros_like(x)], -1) for x in (answers.logit, targets.teacher))
    else:
        student, teacher = answers.logit, targets.teacher
    taught = ~teacher.isnan().any(-1)
    return soft_cross_entropy(student[taught], teacher[taught]) if taught.any() else answers.logit.sum() * 0.0


def _cosent(answers: Answers, targets: Targets, recipe: NetworkRecipe) -> Tensor:
    losses = [cosent((u * v).sum(-1), targets.ranking, recipe.cosine_scale) for u, v in _compared(answers, recipe)]
    return torch.stack(losses).mean()


def _margin_mse(answers: Answers, targets: Targets, recipe: NetworkRecipe) -> Tensor:
    return margin_mse(answers.logit, targets.teacher, targets.left)


def _multiple_negatives(answers: Answers, targets: Targets, recipe: NetworkRecipe) -> Tensor:
    positive = targets.ranking >= POSITIVE
    if not positive.any():
        return answers.logit.sum() * 0.0
    left, right = targets.left[positive], targets.right[positive]
    # A candidate is no negative where it is the text itself, or belongs to the same text, or is the same as its own.
    same = (right[:, None] == right) | (left[:, None] == left) | (left[:, None] == right)
    losses = [
        multiple_negatives(u[positive], v[positive], recipe.cosine_scale, equal=same)
        for u, v in _compared(answers, recipe)
    ]
    return torch.stack(losses).mean()


def _compared(answers: Answers, recipe: NetworkRecipe) -> list[tuple[Tensor, Tensor]]:
    assert answers.left is not None
    assert answers.right is not None  # recipes give a classifier no loss that compares embeddings
    return _prefixes(answers.left, answers.right, recipe)


def _prefixes(left: Tensor, right: Tensor, recipe: NetworkRecipe) -> list[tuple[Tensor, Tensor]]:
    """Left and right embeddings, whole and cut to every dimension that the recipe trains besides."""
    dims = [left.shape[-1], *recipe.matryoshka]
    return list(zip(matryoshka(left, dims), matryoshka(right, dims), strict=True))


_PAIR_LOSSES: dict[PairLoss, Callable[[Answers, Targets, NetworkRecipe], Tensor]] = {
    "dse": _dse,
    "prediction": _prediction,
    "cosent": _cosent,
    "margin-mse": _margin_mse,
    "multiple-negatives": _multiple_negatives,
}
