"""How far is a student from its targets? Each loss is one function with its source."""

import torch
from torch import Tensor
from torch.nn import functional


def pair_logit_loss(logit: Tensor, gold: Tensor, teacher: Tensor, distillation: float) -> Tensor:
    """(1 - c) task + c (student - teacher)^2, the objective of Distilled Sentence Embedding.

    Barkan et al., arXiv 1908.05161, with c = ``distillation``. The task term is the cross-entropy of sigmoid(logit)
    with a gold target in 0..1. A pair with only one of the two targets has that term alone, with weight 1. Without any
    teacher this is plain binary cross-entropy.

    Args:
        logit: (pairs,) the network's answer, before the sigmoid.
        gold: (pairs,) in 0..1, NaN where there is none.
        teacher: (pairs,) the teacher's logit, NaN where there is none.
        distillation: c, in 0..1.
    """
    has_gold, has_teacher = ~gold.isnan(), ~teacher.isnan()
    task = functional.binary_cross_entropy_with_logits(logit, gold.nan_to_num(), reduction="none")
    imitation = (logit - teacher.nan_to_num()) ** 2
    task_weight = has_gold * torch.where(has_teacher, 1 - distillation, 1.0)
    imitation_weight = has_teacher * torch.where(has_gold, distillation, 1.0)
    return (task_weight * task + imitation_weight * imitation).mean()


def ranking_target(gold: Tensor, teacher: Tensor, distillation: float) -> Tensor:
    """(pairs,) what the cosines are ranked by: gold and the teacher's score, mixed as in the objective."""
    imitation = teacher.sigmoid()
    mixed = (1 - distillation) * gold + distillation * imitation
    return torch.where(gold.isnan(), imitation, torch.where(teacher.isnan(), gold, mixed))


def cosent(similarity: Tensor, target: Tensor, scale: float) -> Tensor:
    """CoSENT (Su, 2022): log(1 + sum over pairs i, j with target_i > target_j of exp(scale (s_j - s_i))).

    It asks only that the similarities of a batch be in the order of their targets.

    Args:
        similarity: (pairs,) cosines.
        target: (pairs,) any scale.
        scale: inverse temperature; 20 is usual.
    """
    excess = scale * (similarity[None, :] - similarity[:, None])  # [i, j]: how far j is above i
    should_be_above = target[:, None] > target[None, :]
    excess = excess.masked_fill(~should_be_above, -torch.inf)
    return torch.logsumexp(torch.cat([excess.flatten(), excess.new_zeros(1)]), dim=0)
