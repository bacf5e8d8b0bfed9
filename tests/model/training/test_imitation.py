import subprocess
import sys
from copy import deepcopy
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from model.faults import TrainingFault
from model.training.imitation import LOSSES, Imitation
from model.training.imitation_recipe import ImitationRecipe, LossName
from model.training.language import MlmHead, Vocabulary, fit_mlm_head, mask_tokens, word_embeddings
from model.training.losses import NOT_ASKED, attention_kl, masked_language_loss, soft_target_kl
from model.training.traces import trace
from tests import tiny
from tests.model.training.tiny_training import bert

NAMES = get_args(LossName)
LETTERS = Vocabulary(len(tiny.VOCABULARY), mask=4, special=(0, 1, 2, 3, 4))


def recipe(*names: str, **options: Any) -> ImitationRecipe:
    return ImitationRecipe.model_validate({"weights": dict.fromkeys(names, 1.0), "relation_heads": 4} | options)


def texts() -> dict[str, Tensor]:
    """16 texts of 6 to 12 letters, padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, LETTERS.size, (16, 14), generator=generator)
    lengths = torch.randint(8, 15, (16, 1), generator=generator)
    at = torch.arange(14)
    ids[:, 0] = 2
    ids[at == lengths - 1] = 3
    return {"input_ids": ids * (at < lengths), "attention_mask": (at < lengths).long()}


def loss_of(imitation: Imitation, student: Any) -> Tensor:
    """Always with the same words masked."""
    torch.manual_seed(1)
    return imitation(student, texts())


def fitted(teacher: Any) -> MlmHead:
    return fit_mlm_head(teacher, [texts()], LETTERS, 20)


def test_every_loss_that_a_recipe_may_name_is_there() -> None:
    assert tuple(LOSSES) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mlm"])
def test_a_loss_is_zero_when_the_student_is_the_teacher(name: str) -> None:
    teacher = bert().eval()
    found = loss_of(Imitation(recipe(name), teacher, teacher, LETTERS, fitted(teacher)), teacher)
    assert found.item() == pytest.approx(0, abs=1e-5)


def test_masked_words_are_guessed_as_well_as_by_the_teacher_when_the_student_is_the_teacher() -> None:
    teacher = bert().eval()
    head = fitted(teacher)
    read, labels = mask_tokens(**texts(), vocabulary=LETTERS, generator=torch.Generator().manual_seed(1))
    hidden = teacher(input_ids=read, attention_mask=texts()["attention_mask"]).last_hidden_state
    expected = masked_language_loss(head(hidden, word_embeddings(teacher)), labels)
    found = loss_of(Imitation(recipe("mlm"), teacher, teacher, LETTERS, head), teacher)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def imitate(name: str, student: Any, **options: Any) -> tuple[float, float]:
    """The loss before and after twenty steps."""
    teacher = bert(seed=1)
    head = fitted(teacher)
    imitation = Imitation(recipe(name, **options), student, teacher, LETTERS, head)
    untouched = deepcopy((teacher.state_dict(), head.state_dict()))
    optimiser = torch.optim.AdamW([*student.parameters(), *imitation.parameters()], 1e-2)
    before = loss_of(imitation, student.eval()).item()
    student.train()
    for _ in range(20):
        optimiser.zero_grad()
        loss_of(imitation, student).backward()
        optimiser.step()
    torch.testing.assert_close((teacher.state_dict(), head.state_dict()), untouched, atol=0, rtol=0)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.training
    return before, loss_of(imitation, student.eval()).item()


@pytest.mark.parametrize("name", NAMES)
def test_a_student_of_one_layer_learns_to_imitate_a_teacher_of_two(name: str) -> None:
    before, after = imitate(name, bert(layers=1, seed=2))
    assert after < 0.5 * before


@pytest.mark.parametrize("name", ["embedding", "hidden", "relations", "soft-targets", "mlm"])
def test_a_narrower_student_with_fewer_heads_learns_too(name: str) -> None:
    before, after = imitate(name, bert(layers=1, dims=16, heads=2, seed=2))
    assert after < 0.5 * before


def test_relations_are_those_of_the_layer_that_was_named() -> None:
    before, after = imitate("relations", bert(layers=1, seed=2), teacher_layer=1)
    assert after < 0.5 * before
    teacher = bert().eval()
    first = bert(layers=1).eval()
    first.load_state_dict(teacher.state_dict(), strict=False)
    assert loss_of(Imitation(recipe("relations", teacher_layer=1), first, teacher, LETTERS), first) < 1e-6
    assert loss_of(Imitation(recipe("relations"), first, teacher, LETTERS), first) > 1e-2


@pytest.mark.parametrize(
    ("name", "projections"),
    [
        ("embedding", set()),
        ("attention", {"query", "key"}),
        ("last-attention", {"query", "key"}),
        ("value-relation", {"value"}),
        ("relations", {"query", "key", "value"}),
        ("hidden", {"query", "key", "value"}),
    ],
)
def test_a_loss_teaches_the_vectors_that_it_is_about(name: str, projections: set[str]) -> None:
    student = bert(layers=1, seed=2)
    loss_of(Imitation(recipe(name), student, bert(seed=1), LETTERS), student).backward()
    attention = student.encoder.layer[0].attention.self
    learning = {p for p in ("query", "key", "value") if getattr(attention, p).weight.grad is not None}
    assert learning == projections


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_targets_are_compared_at_the_recipes_temperature_where_words_are_masked(temperature: float) -> None:
    student, teacher = bert(layers=1, seed=2).eval(), bert(seed=1).eval()
    head = fitted(teacher)
    read, labels = mask_tokens(**texts(), vocabulary=LETTERS, generator=torch.Generator().manual_seed(1))

    def logits(body: Any) -> Tensor:
        hidden = body(input_ids=read, attention_mask=texts()["attention_mask"]).last_hidden_state
        return head(hidden, word_embeddings(body))[labels != NOT_ASKED]

    imitation = Imitation(recipe("soft-targets", temperature=temperature), student, teacher, LETTERS, head)
    expected = soft_target_kl(logits(student), logits(teacher), temperature)
    assert loss_of(imitation, student).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_losses_are_added_by_their_weights() -> None:
    student, teacher = bert(layers=1, seed=2).eval(), bert(seed=1)

    def found(weights: dict[str, float]) -> float:
        made = ImitationRecipe.model_validate({"weights": weights})
        return loss_of(Imitation(made, student, teacher, LETTERS), student).item()

    both = found({"attention": 0.5, "value-relation": 3.0})
    assert both == pytest.approx(0.5 * found({"attention": 1.0}) + 3.0 * found({"value-relation": 1.0}))


@pytest.mark.parametrize("name", [name for name in NAMES if not LOSSES[name].guesses])
def test_more_padding_changes_nothing(name: str) -> None:
    student = bert(layers=1, seed=2).eval()
    imitation = Imitation(recipe(name), student, bert(seed=1), LETTERS)
    padded = {key: torch.nn.functional.pad(tensor, (0, 5)) for key, tensor in texts().items()}
    assert imitation(student, padded).item() == pytest.approx(imitation(student, texts()).item(), abs=1e-5)


def test_only_what_is_trained_is_part_of_the_state() -> None:
    student, teacher = bert(layers=1, dims=16), bert()
    imitation = Imitation(recipe("embedding", "hidden", "soft-targets"), student, teacher, LETTERS, MlmHead.of(teacher))
    assert {name: tuple(tensor.shape) for name, tensor in imitation.state_dict().items()} == {
        "learned.embedding.weight": (32, 16),
        "learned.hidden.weight": (32, 16),
        "learned.head.dense.weight": (16, 16),
        "learned.head.dense.bias": (16,),
        "learned.head.LayerNorm.weight": (16,),
        "learned.head.LayerNorm.bias": (16,),
        "learned.head.bias": (LETTERS.size,),
    }
    assert Imitation(recipe("attention"), bert(), teacher, LETTERS).state_dict() == {}


def test_bodies_may_run_in_bfloat16_and_losses_are_computed_in_float32() -> None:
    student, teacher, batch = bert(layers=1, seed=2).eval(), bert(seed=1).eval(), texts()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(Imitation(recipe("last-attention"), student, teacher, LETTERS), student)
        ours, theirs = (trace(body, **batch).last for body in (student, teacher))
    expected = attention_kl(ours.scores(), theirs.scores(), batch["attention_mask"])
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    plain = attention_kl(*(trace(body, **batch).last.scores() for body in (student, teacher)), batch["attention_mask"])
    assert found.item() != pytest.approx(plain.item(), rel=1e-6)  # the bodies did run in another precision


@pytest.mark.parametrize(
    ("name", "student", "message"),
    [
        ("attention", {"heads": 2}, "as many attention heads as its teacher: it has 2, the teacher 4"),
        ("last-attention", {"heads": 8}, "as many attention heads as its teacher: it has 8, the teacher 4"),
        ("value-relation", {"heads": 2}, "as many attention heads as its teacher: it has 2, the teacher 4"),
        ("hidden-cosine", {"dims": 16}, "as many dims as its teacher: it has 16, the teacher 32"),
        ("sentence-embedding", {"dims": 16}, "as many dims as its teacher: it has 16, the teacher 32"),
        ("hidden", {"layers": 3}, "student of 3 layers cannot imitate a teacher of 2"),
        ("relations", {"dims": 18, "heads": 2}, "4 relation heads do not divide the student's 18 dims"),
    ],
)
def test_a_student_that_cannot_be_compared_is_refused(name: str, student: dict[str, int], message: str) -> None:
    with pytest.raises(TrainingFault, match=message):
        Imitation(recipe(name), bert(**student), bert(), LETTERS)


def test_a_layer_that_the_teacher_has_not_is_refused() -> None:
    with pytest.raises(TrainingFault, match="teacher_layer is 5, the teacher has 2"):
        Imitation(recipe("relations", teacher_layer=5), bert(), bert(), LETTERS)


def test_soft_targets_need_a_teacher_that_guesses() -> None:
    with pytest.raises(TrainingFault, match="fit_mlm_head"):
        Imitation(recipe("soft-targets"), bert(), bert(), LETTERS)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"weights": {}}, "at least 1 item"),
        ({"weights": {"hidden": 0}}, "greater than 0"),
        ({"weights": {"hiden": 1}}, "'embedding', 'hidden'"),
        ({"weights": {"hidden": 1}, "teacher_layer": 2}, "teacher_layer 2 is read by relations alone"),
        ({"weights": {"hidden": 1}, "temprature": 2}, "Extra inputs"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_it(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImitationRecipe.model_validate(facts)


def test_a_recipe_is_the_same_after_saving() -> None:
    made = recipe("relations", "soft-targets", teacher_layer=2, temperature=3)
    assert ImitationRecipe.model_validate_json(made.model_dump_json()) == made


def test_a_recipe_is_read_without_torch() -> None:
    code = "import model.training.imitation_recipe, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
