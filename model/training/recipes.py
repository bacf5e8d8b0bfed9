"""What does a training run do? A recipe says all of it, in one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.faults import TrainingFault


class RecipeError(TrainingFault):
    """A recipe that cannot be followed; the message names the file and what is wrong in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairSet(_Strict):
    """One file of sentence pairs, and how its scores map to a gold target in 0..1.

    ``range`` maps a number linearly (``[0, 5]`` for STS); ``labels`` maps a label name.
    """

    file: str
    terms: str
    range: tuple[float, float] | None = None
    labels: dict[str, float] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None

    @property
    def described(self) -> str:
        """For model cards: the file and its terms."""
        return f"`{self.file}`: {self.terms}"

    @model_validator(mode="after")
    def _one_way_to_read_the_score(self) -> Self:
        if (self.range is None) == (self.labels is None):
            raise ValueError(f"{self.file}: give either range or labels")
        return self


class Stage(_Strict):
    """A pass over some sets with one learning-rate schedule.

    Of the sets in ``teacher_only`` the gold scores are not used: the teacher's logit is the only target.
    """

    name: str
    sets: Annotated[list[str], Field(min_length=1)]
    teacher_only: list[str] = []
    epochs: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(gt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    both_orders: bool = False
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None


class HeadRecipe(_Strict):
    """The similarity function trained over the two embeddings."""

    kind: Literal["mlp", "cosine"] = "cosine"
    hidden: Annotated[int, Field(gt=0)] = 512


class NetworkRecipe(_Strict):
    """One network to train: a cross-encoder, or a bi-encoder with its head."""

    name: str
    kind: Literal["cross-encoder", "bi-encoder"]
    init: str
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 128
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    cosine_weight: Annotated[float, Field(ge=0)] = 1.0
    cosine_scale: Annotated[float, Field(gt=0)] = 20.0
    keep_initial: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head: HeadRecipe = HeadRecipe()
    stages: Annotated[list[Stage], Field(min_length=1)]

    @model_validator(mode="after")
    def _only_a_bi_encoder_is_averaged(self) -> Self:
        if self.kind == "cross-encoder" and self.keep_initial:
            raise ValueError("keep_initial needs a bi-encoder: a cross-encoder's classifier starts at random")
        return self


class DataRecipe(_Strict):
    """The pair sets, the splits to judge by, and the files whose sentences nothing may be trained on."""

    sets: dict[str, PairSet]
    dev: PairSet
    test: PairSet
    held_out: list[str]


class _WithData(_Strict):
    data: DataRecipe

    def _check_sets(self, stages: list[Stage]) -> None:
        for stage in stages:
            if stray := sorted(set(stage.teacher_only) - set(stage.sets)):
                raise ValueError(f"stage {stage.name}: teacher_only names {stray}, which are not among its sets")
            if unknown := [name for name in stage.sets if name not in self.data.sets]:
                raise ValueError(
                    f"stage {stage.name} uses {unknown}, which the data does not define "
                    f"(it has {sorted(self.data.sets)})"
                )


class TeacherRecipe(_WithData):
    """Members whose standardised scores, averaged, are the teacher signal."""

    name: str
    members: Annotated[list[NetworkRecipe], Field(min_length=1)]

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        for member in self.members:
            self._check_sets(member.stages)
            if member.distillation or any(stage.teacher_only for stage in member.stages):
                raise ValueError(f"member {member.name}: a member has no teacher: no distillation, no teacher_only")
        return self


class Int8Recipe(_Strict):
    """Static quantisation: calibration sentences, and the loss that is still acceptable.

    ``max_loss`` is in points of Spearman (100 times rho) on the dev split.
    """

    calibration_texts: Annotated[int, Field(gt=0)] = 300
    max_loss: Annotated[float, Field(ge=0)] = 0.5


class ExportRecipe(_Strict):
    """What the bundle promises."""

    max_tokens: Annotated[int, Field(ge=8, le=512)] = 256
    licence: str = "apache-2.0"
    lineage: list[str]
    int8: Int8Recipe = Int8Recipe()


class DistillationRecipe(_WithData):
    """One network trained on gold scores and the teacher's logits, then exported."""

    network: NetworkRecipe
    export: ExportRecipe

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        self._check_sets(self.network.stages)
        return self


_R = TypeVar("_R", bound=_WithData)


def read_recipe(path: Path, kind: type[_R]) -> _R:
    """The recipe in a TOML file; its ``data`` may name another TOML file beside it.

    Raises:
        RecipeError: a file is unreadable, is not TOML, or says something the recipe kind does not know.
    """
    recipe = _read_toml(path)
    if isinstance(recipe.get("data"), str):
        recipe["data"] = _read_toml(path.parent / recipe["data"])
    try:
        return kind.model_validate(recipe)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'recipe'}: {problem['msg']}" for problem in error.errors()
        )
        raise RecipeError(f"{path}: {problems}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error
