"""What does a student imitate of its teacher's body, and how much does each part count? Read without torch."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LossName = Literal[
    "sentence-embedding",  # LEAF
    "embedding",  # TinyBERT, as the next two: the embedding layer, the hidden states and attention scores of all layers
    "hidden",
    "attention",
    "last-attention",  # MiniLM, as the next
    "value-relation",
    "relations",  # MiniLMv2
    "soft-targets",  # DistilBERT, as the next two
    "mlm",
    "hidden-cosine",
]


class ImitationRecipe(BaseModel):
    """Weights of the losses that imitate a teacher's body on plain texts, and what some of them ask besides.

    ``temperature`` and ``mlm_head_steps`` (how long the teacher's head is fitted) are for ``soft-targets``;
    ``relation_heads`` and ``teacher_layer`` (counted from 1; the last, if none is named) for ``relations``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Annotated[dict[LossName, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    temperature: Annotated[float, Field(gt=0)] = 2.0
    relation_heads: Annotated[int, Field(gt=0)] = 48
    teacher_layer: Annotated[int, Field(gt=0)] | None = None
    mlm_head_steps: Annotated[int, Field(gt=0)] = 1000

    @model_validator(mode="after")
    def _a_layer_is_named_for_its_relations(self) -> Self:
        if self.teacher_layer is not None and "relations" not in self.weights:
            raise ValueError(f"teacher_layer {self.teacher_layer} is read by relations alone, which has no weight")
        return self
