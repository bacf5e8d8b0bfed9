"""How does a student's body come to work like its teacher's? A weighted sum of the imitations of the field."""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from model.faults import TrainingFault
from model.training.imitation_recipe import ImitationRecipe, LossName
from model.training.language import MlmHead, Vocabulary, mask_tokens, word_embeddings
from model.training.losses import (
    NOT_ASKED,
    attention_kl,
    attention_score_mse,
    embedding_regression,
    hidden_cosine,
    masked_language_loss,
    masked_mse,
    relation_kl,
    soft_target_kl,
    uniform_layer_map,
)
from model.training.networks import Inputs, mean_pool
from model.training.traces import LayerTrace, trace


class Imitation(nn.Module):
    """The losses of a recipe between a student's body and a frozen teacher's, and what is trained for them alone.

    That is TinyBERT's projections to the teacher's width (square ones start as the identity) and a head that guesses
    the student's masked words (a copy of the teacher's, where they are of one width). The teacher is no part of the
    module's state.

    Args:
        recipe: the losses, their weights and options.
        student: the body that will be trained; only its configuration is read here.
        teacher: the body to imitate; put into evaluation mode, never changed.
        vocabulary: of the tokenizer of both.
        teacher_head: guesses the teacher's masked words, for ``soft-targets``; see ``fit_mlm_head``.

    Raises:
        TrainingFault: a loss of the recipe cannot compare these two bodies, or needs a head that there is not.
    """

    def __init__(
        self,
        recipe: ImitationRecipe,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        vocabulary: Vocabulary,
        teacher_head: MlmHead | None = None,
    ) -> None:
        super().__init__()
        _refuse_misfits(recipe, student.config, teacher.config)
        if "soft-targets" in recipe.weights and teacher_head is None:
            raise TrainingFault("soft-targets needs a head on the teacher; fit one with fit_mlm_head")
        self.recipe, self.vocabulary = recipe, vocabulary
        head = teacher_head or MlmHead.of(teacher)
        teacher.eval()  # type: ignore[no-untyped-call]
        self.teacher = (teacher, head)  # a tuple hides them from state_dict() and parameters()
        widths = student.config.hidden_size, teacher.config.hidden_size
        self.learned = nn.ModuleDict(
            {name: _projection(*widths) for name in ("embedding", "hidden") if name in recipe.weights}
        )
        self.guesses = any(LOSSES[name].guesses for name in recipe.weights)
        if self.guesses:
            self.learned["head"] = deepcopy(head) if widths[0] == widths[1] else MlmHead.of(student)

    def forward(self, student: PreTrainedModel, inputs: Inputs) -> Tensor:
        """The weighted sum of the losses on a padded batch of texts, with gradients for the student and this module.

        Both bodies read the same: masked texts if a loss of the recipe asks for guesses (as in DistilBERT), else the
        texts as they are. They run in the precision of the caller's autocast; the losses are computed in float32.

        Args:
            student: the body being trained.
            inputs: ``input_ids`` and ``attention_mask``, (texts, tokens) int64.
        """
        read, mask = inputs["input_ids"], inputs["attention_mask"]
        labels = torch.full_like(read, NOT_ASKED)
        if self.guesses:
            read, labels = mask_tokens(read, mask, self.vocabulary)
        seen = Seen(self, student, read, mask, labels)
        with torch.autocast(mask.device.type, enabled=False):
            return _sum(weight * LOSSES[name].of(seen) for name, weight in self.recipe.weights.items())


class Seen:
    """One batch, as both bodies saw it: what the losses read."""

    def __init__(
        self, imitation: Imitation, student: PreTrainedModel, read: Tensor, mask: Tensor, labels: Tensor
    ) -> None:
        teacher, self._teacher_head = imitation.teacher
        self.recipe, self.learned, self.mask = imitation.recipe, imitation.learned, mask
        self.student = trace(student, read, mask)
        with torch.no_grad():
            self.teacher = trace(teacher, read, mask)
        self._asked = labels != NOT_ASKED
        self.labels = labels[self._asked]  # (guesses,)
        self._student_words, self._teacher_words = word_embeddings(student), word_embeddings(teacher)

    @cached_property
    def student_logits(self) -> Tensor:
        """(guesses, words)."""
        logits: Tensor = self.learned["head"](self.student.last.hidden[self._asked], self._student_words)
        return logits

    @cached_property
    def teacher_logits(self) -> Tensor:
        """(guesses, words), without gradients."""
        with torch.no_grad():
            logits: Tensor = self._teacher_head(self.teacher.last.hidden[self._asked], self._teacher_words)
        return logits

    def layers(self) -> Iterator[tuple[LayerTrace, LayerTrace]]:
        """Each of the student's layers with the teacher's that it imitates."""
        for layer, number in zip(
            self.student.layers, uniform_layer_map(len(self.student.layers), len(self.teacher.layers)), strict=True
        ):
            yield layer, self.teacher.layers[number - 1]


def _sentence_embedding(seen: Seen) -> Tensor:
    return embedding_regression(*(mean_pool(body.last.hidden, seen.mask) for body in (seen.student, seen.teacher)))


def _embedding(seen: Seen) -> Tensor:
    return masked_mse(seen.learned["embedding"](seen.student.embedding), seen.teacher.embedding, seen.mask)


def _hidden(seen: Seen) -> Tensor:
    project = seen.learned["hidden"]
    return _sum(masked_mse(project(student.hidden), teacher.hidden, seen.mask) for student, teacher in seen.layers())


def _attention(seen: Seen) -> Tensor:
    return _sum(
        attention_score_mse(student.scores(), teacher.scores(), seen.mask) for student, teacher in seen.layers()
    )


def _last_attention(seen: Seen) -> Tensor:
    return attention_kl(seen.student.last.scores(), seen.teacher.last.scores(), seen.mask)


def _value_relation(seen: Seen) -> Tensor:
    return relation_kl(seen.student.last.values, seen.teacher.last.values, seen.mask, seen.teacher.last.heads)


def _relations(seen: Seen) -> Tensor:
    number = seen.recipe.teacher_layer or len(seen.teacher.layers)
    student, teacher = seen.student.last, seen.teacher.layers[number - 1]
    vectors = (
        (student.queries, teacher.queries),
        (student.keys, teacher.keys),
        (student.values, teacher.values),
    )
    return _sum(relation_kl(*pair, seen.mask, seen.recipe.relation_heads) for pair in vectors)


def _soft_targets(seen: Seen) -> Tensor:
    return soft_target_kl(seen.student_logits, seen.teacher_logits, seen.recipe.temperature)


def _mlm(seen: Seen) -> Tensor:
    return masked_language_loss(seen.student_logits, seen.labels)


def _hidden_cosine(seen: Seen) -> Tensor:
    return hidden_cosine(seen.student.last.hidden, seen.teacher.last.hidden, seen.mask)


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return sum(losses, start=torch.zeros(()))


def _projection(student: int, teacher: int) -> nn.Linear:
    projection = nn.Linear(student, teacher, bias=False)
    if student == teacher:
        nn.init.eye_(projection.weight)
    return projection


@dataclass(frozen=True)
class Loss:
    """One way to imitate, and which students can."""

    of: Callable[[Seen], Tensor]
    same: tuple[str, ...] = ()  # facts of the student's configuration that must be the teacher's
    layerwise: bool = False  # compares each layer with one of the teacher's
    guesses: bool = False  # compares guesses of words that both bodies read masked


LOSSES: dict[LossName, Loss] = {
    "sentence-embedding": Loss(_sentence_embedding, same=("hidden_size",)),
    "embedding": Loss(_embedding),
    "hidden": Loss(_hidden, layerwise=True),
    "attention": Loss(_attention, same=("num_attention_heads",), layerwise=True),
    "last-attention": Loss(_last_attention, same=("num_attention_heads",)),
    "value-relation": Loss(_value_relation, same=("num_attention_heads",)),
    "relations": Loss(_relations),
    "soft-targets": Loss(_soft_targets, guesses=True),
    "mlm": Loss(_mlm, guesses=True),
    "hidden-cosine": Loss(_hidden_cosine, same=("hidden_size",)),
}

FACTS = {"vocab_size": "words", "hidden_size": "dims", "num_attention_heads": "attention heads"}


def _refuse_misfits(recipe: ImitationRecipe, student: PreTrainedConfig, teacher: PreTrainedConfig) -> None:
    """Raise the fault of the first loss that cannot compare bodies of these configurations."""
    for name in recipe.weights:
        for fact in ("vocab_size", *LOSSES[name].same):
            ours, theirs = getattr(student, fact), getattr(teacher, fact)
            if ours != theirs:
                raise TrainingFault(
                    f"{name} needs a student with as many {FACTS[fact]} as its teacher: it has {ours}, the teacher "
                    f"{theirs}; take another student, or another loss"
                )
        if LOSSES[name].layerwise:
            uniform_layer_map(student.num_hidden_layers, teacher.num_hidden_layers)
    if "relations" in recipe.weights:
        _refuse_relations(recipe, student, teacher)


def _refuse_relations(recipe: ImitationRecipe, student: PreTrainedConfig, teacher: PreTrainedConfig) -> None:
    if any(body.hidden_size % recipe.relation_heads for body in (student, teacher)):
        raise TrainingFault(
            f"{recipe.relation_heads} relation heads do not divide the student's {student.hidden_size} dims and the "
            f"teacher's {teacher.hidden_size}; name a relation_heads that divides both"
        )
    if (recipe.teacher_layer or 1) > teacher.num_hidden_layers:
        raise TrainingFault(
            f"teacher_layer is {recipe.teacher_layer}, the teacher has {teacher.num_hidden_layers}; name one of these"
        )
