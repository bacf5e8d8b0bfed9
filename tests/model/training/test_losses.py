import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.faults import TrainingFault
from model.training.losses import (
    NOT_ASKED,
    attention_kl,
    attention_score_mse,
    class_logit_loss,
    cosent,
    embedding_regression,
    hidden_cosine,
    margin_mse,
    masked_language_loss,
    masked_mse,
    matryoshka,
    multiple_negatives,
    pair_logit_loss,
    ranking_correlation,
    ranking_target,
    relation_kl,
    soft_cross_entropy,
    soft_target_kl,
    uniform_layer_map,
)

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


@given(
    rows=st.lists(
        st.tuples(
            st.lists(NUMBERS, min_size=3, max_size=3),
            st.sampled_from([math.nan, 0, 1, 2]),
            st.one_of(st.none(), st.lists(NUMBERS, min_size=3, max_size=3)),
        ),
        min_size=1,
        max_size=8,
    ),
    c=st.floats(0, 1),
)
def test_of_classes_it_is_the_cross_entropy_and_the_squares_of_every_output(rows, c: float) -> None:
    expected = []
    for logits, gold, teacher in rows:
        terms = []
        if not math.isnan(gold):
            task = np.log(np.exp(logits).sum()) - logits[gold]
            terms.append(task if teacher is None else (1 - c) * task)
        if teacher is not None:
            imitation = np.square(np.subtract(logits, teacher)).sum()
            terms.append(imitation if math.isnan(gold) else c * imitation)
        expected.append(sum(terms))
    logits, gold, teacher = zip(*rows, strict=True)
    taught = [[math.nan] * 3 if row is None else row for row in teacher]
    found = class_logit_loss(*(torch.tensor(x, dtype=torch.float64) for x in (logits, gold, taught)), c)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-6, abs=1e-6)  # the weights are float32


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


SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, pairs=st.integers(0, 10))
def test_margin_mse_compares_differences_within_a_group(seed: int, pairs: int) -> None:
    random = np.random.default_rng(seed)
    score, teacher = random.normal(size=(2, pairs))
    teacher[random.random(pairs) < 0.25] = math.nan
    group = random.integers(0, 3, pairs)
    squares = []
    for i in range(pairs):
        for j in range(pairs):
            if i != j and group[i] == group[j] and not math.isnan(teacher[i] + teacher[j]):
                squares.append(((score[i] - score[j]) - (teacher[i] - teacher[j])) ** 2)
    found = margin_mse(*(torch.tensor(values) for values in (score, teacher, group)))
    assert found.item() == pytest.approx(np.mean(squares) if squares else 0, abs=1e-9)


@given(seed=SEEDS, queries=st.integers(1, 4), candidates=st.integers(2, 8))
def test_ranking_correlation_is_one_less_pearsons(seed: int, queries: int, candidates: int) -> None:
    score, teacher = np.random.default_rng(seed).normal(size=(2, queries, candidates))
    expected = np.mean([1 - np.corrcoef(mine, theirs)[0, 1] for mine, theirs in zip(score, teacher, strict=True)])
    found = ranking_correlation(torch.tensor(score), torch.tensor(teacher))
    assert found.item() == pytest.approx(expected, abs=1e-6)
    other_scale = ranking_correlation(torch.tensor(3 * score + 7), torch.tensor(teacher))
    assert other_scale.item() == pytest.approx(expected, abs=1e-6)


def test_ranking_correlation_of_equal_scores_has_a_finite_gradient() -> None:
    score = torch.ones(2, 4, requires_grad=True)
    ranking_correlation(score, torch.randn(2, 4)).backward()
    assert score.grad is not None
    assert score.grad.isfinite().all()


def test_margin_mse_of_lone_rows_is_zero_and_so_is_its_gradient() -> None:
    score = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    found = margin_mse(score, torch.tensor([0.0, 5.0, math.nan]), torch.tensor([1, 2, 2]))
    found.backward()
    assert found.item() == 0
    assert score.grad is not None
    assert score.grad.tolist() == [0, 0, 0]


def test_margin_mse_does_not_ask_for_the_teachers_offset() -> None:
    teacher = torch.tensor([1.0, -2.0, 0.5])
    assert margin_mse(teacher + 7, teacher, torch.zeros(3, dtype=torch.int64)).item() == pytest.approx(0, abs=1e-12)


def unit_rows(random: np.random.Generator, rows: int, dim: int = 5) -> np.ndarray:
    vectors = random.normal(size=(rows, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(seed=SEEDS, pairs=st.integers(1, 6), more=st.integers(0, 4), scale=st.floats(1, 20))
def test_multiple_negatives_is_its_formula(seed: int, pairs: int, more: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    left, right, negatives = (unit_rows(random, rows) for rows in (pairs, pairs, more))
    equal = random.random((pairs, pairs + more)) < 0.3
    candidates = [*right, *negatives]
    losses = []
    for i in range(pairs):
        meets = [j for j in range(len(candidates)) if j == i or not equal[i, j]]
        total = sum(math.exp(scale * left[i] @ candidates[j]) for j in meets)
        losses.append(-math.log(math.exp(scale * left[i] @ right[i]) / total))
    found = multiple_negatives(*(torch.tensor(x) for x in (left, right)), scale, *map(torch.tensor, (negatives, equal)))
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-9)


def test_a_right_text_that_is_twice_in_the_batch_is_no_negative_of_itself() -> None:
    left, right = torch.eye(3), torch.eye(3)[[0, 0, 2]]
    left[1] = left[0]
    equal = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert multiple_negatives(left, right, 50.0, equal=equal).item() == pytest.approx(0, abs=1e-6)
    assert multiple_negatives(left, right, 50.0).item() > 0.4
    assert equal.diagonal().all()  # the argument is left as it was


@given(seed=SEEDS, texts=st.integers(1, 6))
def test_embedding_regression_is_the_mean_squared_distance(seed: int, texts: int) -> None:
    student, teacher = np.random.default_rng(seed).normal(size=(2, texts, 7))
    expected = np.mean([np.linalg.norm(s - t) ** 2 for s, t in zip(student, teacher, strict=True)])
    assert embedding_regression(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected)
    assert embedding_regression(torch.tensor(teacher), torch.tensor(teacher)).item() == 0


def test_matryoshka_gives_each_prefix_at_unit_length() -> None:
    embeddings = torch.tensor([[3.0, 4.0, 12.0]]) / 13
    whole, short, first = matryoshka(embeddings, [3, 2, 1])
    torch.testing.assert_close(whole, embeddings)
    torch.testing.assert_close(short, torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(first, torch.tensor([[1.0]]))


def test_matryoshka_refuses_a_prefix_longer_than_the_embedding() -> None:
    with pytest.raises(TrainingFault, match="prefix of 8 dims in an embedding of 3"):
        matryoshka(torch.ones(1, 3), [2, 8])


# Losses over tokens. LENGTHS is how many tokens of each text are real; the rest is padding.
LENGTHS = (3, 5, 1)
TOKENS, HEADS, DIM = 5, 2, 8
MASK = torch.tensor([[1] * length + [0] * (TOKENS - length) for length in LENGTHS])


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def kl(teacher: np.ndarray, student: np.ndarray) -> float:
    return float(sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True)))


def mean_over_tokens(of_token) -> float:
    return float(np.mean([of_token(text, token) for text, length in enumerate(LENGTHS) for token in range(length)]))


def masked_mse_oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    return mean_over_tokens(lambda text, token: np.mean((student[text, token] - teacher[text, token]) ** 2))


def hidden_cosine_oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    def far(text: int, token: int) -> float:
        s, t = student[text, token], teacher[text, token]
        return 1 - s @ t / (np.linalg.norm(s) * np.linalg.norm(t))

    return mean_over_tokens(far)


def attention_score_oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    squares = [
        (student[text, head, query, key] - teacher[text, head, query, key]) ** 2
        for text, length in enumerate(LENGTHS)
        for head in range(HEADS)
        for query in range(length)
        for key in range(length)
    ]
    return float(np.mean(squares))


def attention_kl_oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    return float(
        np.mean(
            [
                kl(softmax(teacher[text, head, query, :length]), softmax(student[text, head, query, :length]))
                for text, length in enumerate(LENGTHS)
                for head in range(student.shape[1])
                for query in range(length)
            ]
        )
    )


def relation_oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    def relations(vectors: np.ndarray) -> np.ndarray:
        texts, tokens, width = vectors.shape
        wide = width // HEADS
        scores = np.empty((texts, HEADS, tokens, tokens))
        for head in range(HEADS):
            part = vectors[:, :, head * wide : (head + 1) * wide]
            for text in range(texts):
                scores[text, head] = part[text] @ part[text].T / math.sqrt(wide)
        return scores

    return attention_kl_oracle(relations(student), relations(teacher))


def relations(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return relation_kl(student, teacher, mask, HEADS)


HIDDEN, SCORES = (len(LENGTHS), TOKENS, DIM), (len(LENGTHS), HEADS, TOKENS, TOKENS)
TOKEN_LOSSES = pytest.mark.parametrize(
    ("loss", "oracle", "shape"),
    [
        (masked_mse, masked_mse_oracle, HIDDEN),
        (hidden_cosine, hidden_cosine_oracle, HIDDEN),
        (attention_score_mse, attention_score_oracle, SCORES),
        (attention_kl, attention_kl_oracle, SCORES),
        (relations, relation_oracle, HIDDEN),
    ],
)


@TOKEN_LOSSES
def test_a_loss_over_tokens_is_its_formula(loss, oracle, shape: tuple[int, ...]) -> None:
    student, teacher = np.random.default_rng(4).normal(size=(2, *shape))
    found = loss(torch.tensor(student), torch.tensor(teacher), MASK)
    assert found.item() == pytest.approx(oracle(student, teacher), abs=1e-9)
    assert found.item() > 0.1


@TOKEN_LOSSES
def test_a_loss_over_tokens_is_zero_for_the_teacher_itself(loss, oracle, shape: tuple[int, ...]) -> None:
    teacher = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert loss(teacher, teacher, MASK).item() == pytest.approx(0, abs=1e-12)


@TOKEN_LOSSES
def test_padding_of_nines_changes_neither_loss_nor_gradient(loss, oracle, shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn((2, *shape), generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def wider(values: torch.Tensor, fill: float) -> torch.Tensor:
        rows, columns = (0, 2), ((0, 2) if shape == SCORES else (0, 0))
        return torch.nn.functional.pad(values, (*columns, *rows), value=fill)

    padded = wider(student, 9.0).requires_grad_()
    found = loss(padded, wider(teacher, -9.0), torch.nn.functional.pad(MASK, (0, 2)))
    found.backward()
    assert found.item() == pytest.approx(loss(student, teacher, MASK).item(), abs=1e-12)
    plain = student.clone().requires_grad_()
    loss(plain, teacher, MASK).backward()
    assert padded.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(padded.grad, wider(plain.grad, 0.0))


def test_relations_compare_bodies_of_different_widths() -> None:
    student, teacher = np.random.default_rng(5).normal(size=(2, *HIDDEN))
    narrow = student[:, :, : DIM // 2]
    found = relation_kl(torch.tensor(narrow), torch.tensor(teacher), MASK, HEADS)
    assert found.item() == pytest.approx(relation_oracle(narrow, teacher), abs=1e-9)


@given(seed=SEEDS, rows=st.integers(1, 4), temperature=st.floats(0.5, 5))
def test_soft_targets_are_their_formulas(seed: int, rows: int, temperature: float) -> None:
    student, teacher = np.random.default_rng(seed).normal(size=(2, rows, 6))
    divergence, crossed = [], []
    for s, t in zip(student / temperature, teacher / temperature, strict=True):
        divergence.append(temperature**2 * kl(softmax(t), softmax(s)))
        crossed.append(-softmax(t) @ np.log(softmax(s)))
    logits = torch.tensor(student), torch.tensor(teacher)
    assert soft_target_kl(*logits, temperature).item() == pytest.approx(np.mean(divergence), abs=1e-9)
    cooled = [each / temperature for each in logits]
    assert soft_cross_entropy(*cooled).item() == pytest.approx(np.mean(crossed), abs=1e-9)
    assert soft_target_kl(logits[1], logits[1], temperature).item() == pytest.approx(0, abs=1e-12)


def test_soft_cross_entropy_is_least_at_the_teacher() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    student = teacher.clone().requires_grad_()
    soft_cross_entropy(student, teacher).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.zeros(1, 3))


def test_masked_language_loss_counts_only_what_is_asked() -> None:
    logits = np.random.default_rng(6).normal(size=(2, 3, 5))
    labels = np.array([[NOT_ASKED, 4, NOT_ASKED], [0, NOT_ASKED, 2]])
    expected = np.mean(
        [-math.log(softmax(logits[text, at])[labels[text, at]]) for text, at in ((0, 1), (1, 0), (1, 2))]
    )
    assert masked_language_loss(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected)


def test_nothing_asked_is_no_loss_and_no_gradient() -> None:
    logits = torch.ones(2, 5, requires_grad=True)
    none = torch.full((2,), NOT_ASKED)
    (masked_language_loss(logits, none) + soft_target_kl(logits[:0], logits[:0], 2.0)).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum().item() == 0


@pytest.mark.parametrize(
    ("student", "teacher", "layers"), [(4, 12, [3, 6, 9, 12]), (1, 6, [6]), (4, 6, [1, 3, 4, 6]), (2, 2, [1, 2])]
)
def test_layers_are_imitated_at_even_distances(student: int, teacher: int, layers: list[int]) -> None:
    assert uniform_layer_map(student, teacher) == layers


def test_a_deeper_student_has_no_layers_to_imitate() -> None:
    with pytest.raises(TrainingFault, match="student of 7 layers cannot imitate a teacher of 6"):
        uniform_layer_map(7, 6)
