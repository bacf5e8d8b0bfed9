"""How far is a student from its targets? Each loss is one function with its source."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.faults import TrainingFault

NOT_ASKED = -100
"""The label of a token that is not to be guessed."""


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
    task = functional.binary_cross_entropy_with_logits(logit, gold.nan_to_num(), reduction="none")
    imitation = (logit - teacher.nan_to_num()) ** 2
    return _task_and_imitation(task, imitation, ~gold.isnan(), ~teacher.isnan(), distillation)


def class_logit_loss(logits: Tensor, gold: Tensor, teacher: Tensor, distillation: float) -> Tensor:
    """(1 - c) task + c sum over classes of (student - teacher)^2: :func:`pair_logit_loss` where the answer is a class.

    Barkan et al., arXiv 1908.05161 (the squared differences are summed over outputs in the authors' code, commit
    7e3e87b), with c = ``distillation``. The task term is the cross-entropy of softmax(logits) with the right class. A
    pair with only one of the two targets has that term alone, with weight 1.

    Args:
        logits: (pairs, classes) the network's answers, before the softmax.
        gold: (pairs,) the number of the right class, NaN where there is none.
        teacher: (pairs, classes) the teacher's logits, a row of NaN where there are none.
        distillation: c, in 0..1.
    """
    task = functional.cross_entropy(logits, gold.nan_to_num().long(), reduction="none")
    imitation = ((logits - teacher.nan_to_num()) ** 2).sum(-1)
    return _task_and_imitation(task, imitation, ~gold.isnan(), ~teacher.isnan().any(-1), distillation)


def _task_and_imitation(
    task: Tensor, imitation: Tensor, has_gold: Tensor, has_teacher: Tensor, distillation: float
) -> Tensor:
    """The mean over pairs of both terms, each with its weight; all four are (pairs,)."""
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


def margin_mse(score: Tensor, teacher: Tensor, group: Tensor) -> Tensor:
    """Margin-MSE: the mean of ((s_i - s_j) - (t_i - t_j))^2 over all i, j of one group.

    Hofstätter et al., arXiv 2010.02666: a student may be off its teacher by any constant, a query, if only the
    differences between its candidates are the teacher's. 0 where no group has two rows.

    Args:
        score: (pairs,) the student's.
        teacher: (pairs,) the teacher's, NaN where there is none: such a row is left out.
        group: (pairs,) int64, the same for pairs that share a query.
    """
    has_teacher = ~teacher.isnan()
    gap = score - teacher.nan_to_num()
    same = (group[:, None] == group[None, :]) & has_teacher[:, None] & has_teacher[None, :]
    same.fill_diagonal_(False)
    return _mean_where((gap[:, None] - gap[None, :]) ** 2, same)


def multiple_negatives(
    left: Tensor, right: Tensor, scale: float, negatives: Tensor | None = None, equal: Tensor | None = None
) -> Tensor:
    """Multiple negatives ranking, or InfoNCE: each left text is to find its own right one among the whole batch's.

    Henderson et al., arXiv 1705.00652, section 4.4: the mean of -log softmax_j(scale * left_i . candidate_j) at j = i.
    The candidates are the right texts, then ``negatives``. Symmetric: the mean of this and of
    ``multiple_negatives(right, left, scale, equal=equal.T)``.

    Args:
        left: (pairs, dim) unit rows.
        right: (pairs, dim) unit rows; row i belongs to row i of ``left``.
        scale: inverse temperature; 20 is usual.
        negatives: (texts, dim) unit rows that belong to none.
        equal: (pairs, candidates) bool, true where a candidate would be right as well (the same text twice in a batch):
            it is then no negative.
    """
    candidates = right if negatives is None else torch.cat([right, negatives])
    scores = scale * left @ candidates.T
    own = torch.arange(len(left), device=left.device)
    if equal is not None:
        another = equal.clone()
        another[own, own] = False
        scores = scores.masked_fill(another, -torch.inf)
    return functional.cross_entropy(scores, own)


def ranking_correlation(score: Tensor, teacher: Tensor) -> Tensor:
    """1 - Pearson's correlation of the candidates of one query, mean over queries.

    DIST (Huang et al., arXiv 2205.10536), equation 8: a student may be on another scale than its teacher, and off by
    any constant, as long as it sees the same relations among the candidates.

    Args:
        score: (queries, candidates) the student's.
        teacher: (queries, candidates) the teacher's.
    """
    centred = (score - score.mean(-1, keepdim=True), teacher - teacher.mean(-1, keepdim=True))
    return (1 - functional.cosine_similarity(*centred, dim=-1)).mean()


def embedding_regression(student: Tensor, teacher: Tensor) -> Tensor:
    """LEAF (Vujanic and Rueckstiess, arXiv 2509.12539): the mean of ||student - teacher||^2 over (texts, dim) rows."""
    return ((student - teacher) ** 2).sum(-1).mean()


def matryoshka(embeddings: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """Prefixes of (texts, dim) embeddings at unit length, one (texts, d) for each d of ``dims``.

    Kusupati et al., arXiv 2205.13147, train the sum of any loss over them; here it is the mean.

    Raises:
        TrainingFault: a prefix would be longer than the embedding.
    """
    if max(dims) > embeddings.shape[-1]:
        raise TrainingFault(f"no prefix of {max(dims)} dims in an embedding of {embeddings.shape[-1]}; name fewer dims")
    return [functional.normalize(embeddings[..., :dim], dim=-1) for dim in dims]


def masked_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over real tokens and dims: TinyBERT (Jiao et al., arXiv 1909.10351), equations 8 and 9.

    Args:
        student: (texts, tokens, dim) after the projection to the teacher's width.
        teacher: (texts, tokens, dim).
        mask: (texts, tokens), 0 at padding.
    """
    return _mean_where((student - teacher) ** 2, mask.bool()[:, :, None])


def attention_score_mse(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of attention scores before the softmax: TinyBERT (arXiv 1909.10351), equation 7.

    Args:
        student_scores: (texts, heads, tokens, tokens) scores of queries with keys.
        teacher_scores: (texts, heads, tokens, tokens).
        mask: (texts, tokens), 0 at padding, which counts neither as query nor as key.
    """
    real = mask.bool()
    return _mean_where((student_scores - teacher_scores) ** 2, (real[:, :, None] & real[:, None, :])[:, None])


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy with the teacher's softmax, TinyBERT (arXiv 1909.10351), equation 10; mean over rows.

    Args:
        student_logits: (rows, classes) logits.
        teacher_logits: (rows, classes) logits.
    """
    return functional.cross_entropy(student_logits, teacher_logits.softmax(-1))


def uniform_layer_map(student_layers: int, teacher_layers: int) -> list[int]:
    """The teacher's layer that each of the student's imitates, counted from 1: g(m) = m N / M, rounded down.

    TinyBERT (arXiv 1909.10351), section 3.1: four layers imitate the 3rd, 6th, 9th and 12th of twelve.

    Raises:
        TrainingFault: the student is the deeper of the two.
    """
    if student_layers > teacher_layers:
        raise TrainingFault(
            f"a student of {student_layers} layers cannot imitate a teacher of {teacher_layers}, layer by layer; "
            "take a shallower student"
        )
    return [layer * teacher_layers // student_layers for layer in range(1, student_layers + 1)]


def soft_target_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows; 0 of no rows.

    DistilBERT (Sanh et al., arXiv 1910.01108), section 2; T^2 keeps the size of the gradients (Hinton et al., arXiv
    1503.02531).

    Args:
        student_logits: (rows, classes) logits, of the positions that count.
        teacher_logits: (rows, classes) logits.
        temperature: T.
    """
    divergence = _kl(student_logits / temperature, teacher_logits / temperature)
    return temperature**2 * divergence.sum() / max(len(divergence), 1)


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """1 - cosine of hidden states, mean over real tokens: DistilBERT (arXiv 1910.01108), section 2.

    Args:
        student: (texts, tokens, dim).
        teacher: (texts, tokens, dim).
        mask: (texts, tokens), 0 at padding.
    """
    return _mean_where(1 - functional.cosine_similarity(student, teacher, dim=-1), mask.bool())


def masked_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens to be guessed (BERT, arXiv 1810.04805, section 3.1); 0 where there are none.

    Args:
        logits: (..., vocabulary).
        labels: (...) int64 token ids, :data:`NOT_ASKED` where nothing is to be guessed.
    """
    asked = labels != NOT_ASKED
    return functional.cross_entropy(logits[asked], labels[asked], reduction="sum") / asked.sum().clamp(min=1)


def attention_kl(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) of attention distributions, mean over heads and real queries.

    MiniLM (Wang et al., arXiv 2002.10957), section 3.1: of the last layer.

    Args:
        student_scores: (texts, heads, tokens, tokens) scores before the softmax.
        teacher_scores: (texts, heads, tokens, tokens).
        mask: (texts, tokens), 0 at padding, which counts neither as query nor as key.
    """
    student, teacher = _without_padding(student_scores, mask), _without_padding(teacher_scores, mask)
    return _mean_where(_kl(student, teacher), mask.bool()[:, None, :])


def attention_cross_entropy(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of attention distributions, mean over heads and real queries: Hedgehog (arXiv 2402.04347), 4.2.

    Args:
        student_scores: (texts, heads, tokens, tokens) scores whose softmax are the student's weights.
        teacher_scores: (texts, heads, tokens, tokens), as well.
        mask: (texts, tokens), 0 at padding, which counts neither as query nor as key.
    """
    student, teacher = _without_padding(student_scores, mask), _without_padding(teacher_scores, mask)
    return _mean_where(-(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1), mask.bool()[:, None, :])


def _without_padding(scores: Tensor, mask: Tensor) -> Tensor:
    """(texts, heads, tokens, tokens) scores, at padding so low that a softmax gives nothing to it.

    Not -inf: a KL there would be 0 * (inf - inf).
    """
    return scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min)


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, relation_heads: int) -> Tensor:
    """KL of self-attention relations: softmax(x x^T / sqrt(d)) in each of ``relation_heads`` slices of x, d wide.

    MiniLMv2 (Wang et al., arXiv 2012.15828), section 3.1, for x the queries, the keys or the values, whose widths may
    differ. With x the values and the heads of the attention it is MiniLM's value relation (arXiv 2002.10957, section
    3.2).

    Args:
        student: (texts, tokens, dim).
        teacher: (texts, tokens, another dim).
        mask: (texts, tokens), 0 at padding.
        relation_heads: a divisor of both widths.
    """
    return attention_kl(
        scaled_products(student, student, relation_heads), scaled_products(teacher, teacher, relation_heads), mask
    )


def scaled_products(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """(texts, heads, tokens, tokens) products q.k / sqrt(d) of (texts, tokens, dim), in ``heads`` slices, d wide."""
    queries, keys = (split_heads(vectors, heads) for vectors in (queries, keys))
    return queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5


def split_heads(vectors: Tensor, heads: int) -> Tensor:
    """(texts, heads, tokens, d) slices of (texts, tokens, heads * d)."""
    return vectors.reshape(*vectors.shape[:-1], heads, -1).transpose(1, 2)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """(...) KL(softmax(teacher) || softmax(student)) of (..., classes) logits."""
    divergence = functional.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True)
    return divergence.sum(-1)


def _mean_where(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of the values where ``counts``, a mask that broadcasts to them; 0, with gradient 0, where none does."""
    counts = counts.expand_as(values)
    return values.where(counts, 0).sum() / counts.sum().clamp(min=1)
