"""What does a training run do? A recipe says all of it, in one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from model.faults import TrainingFault
from model.training.data_recipe import SILVER, DataRecipe, PairSet, Strict
from model.training.network_recipe import NetworkRecipe, Stage


class RecipeError(TrainingFault):
    """A recipe that cannot be followed; the message names the file and what is wrong in it."""


class _WithData(Strict):
    data: DataRecipe

    def _check_sets(self, network: NetworkRecipe) -> None:
        for stage in network.stages:
            defined_texts = {*self.data.texts, *self.data.sets}
            for names, defined in ((stage.sets, {*self.data.sets, SILVER}), (stage.texts, defined_texts)):
                if unknown := [name for name in names if name not in defined]:
                    raise ValueError(
                        f"stage {stage.name} uses {unknown}, which the data does not define (it has {sorted(defined)})"
                    )
            for name in {*stage.sets} - {SILVER, *stage.teacher_only}:
                self._check_outputs(network, name, self.data.sets[name])

    def _check_outputs(self, network: NetworkRecipe, name: str, gold: PairSet) -> None:
        if gold.outputs not in (None, network.head.outputs):
            raise ValueError(
                f"{network.name} answers {network.head.outputs} logits, but {name} asks for {gold.outputs}; "
                "give its head that many outputs"
            )

    def _needs_teacher(self, network: NetworkRecipe) -> bool:
        sets = {name for stage in network.stages for name in stage.sets}
        return (
            SILVER in sets
            or any(stage.teacher_only for stage in network.stages)
            or any(self.data.sets[name].unlabelled for name in sets)
        )


class Int8Recipe(Strict):
    """Static quantisation: calibration sentences, and the loss that is still acceptable.

    ``max_loss`` is in points of Spearman (100 times rho) on the dev split.
    """

    calibration_texts: Annotated[int, Field(gt=0)] = 300
    max_loss: Annotated[float, Field(ge=0)] = 0.5


class ExportRecipe(Strict):
    """What the bundle promises."""

    max_tokens: Annotated[int, Field(ge=8)] = 256
    licence: str = "apache-2.0"
    lineage: list[str]
    int8: Int8Recipe = Int8Recipe()


class TeacherRecipe(_WithData):
    """Members whose standardised scores, averaged, are the teacher signal.

    With ``taught`` the members learn from the logits of an earlier signal as well (Trans-Encoder, Liu et al.,
    arXiv 2109.13059). ``min_gain`` is the gate: the points of dev Spearman by which the signal must beat its best
    bi-encoder; a signal that does not is not worth distilling, and is not written. Members read ``max_tokens`` of a
    text when they label, and when they are served.
    """

    name: str
    members: Annotated[list[NetworkRecipe], Field(min_length=1)]
    taught: bool = False
    min_gain: float | None = None
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 256
    export: ExportRecipe | None = None

    @model_validator(mode="after")
    def _served_as_it_labels(self) -> Self:
        if self.export is not None and self.export.max_tokens != self.max_tokens:
            raise ValueError(f"members label {self.max_tokens} tokens of a text, so export max_tokens is the same")
        return self

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        for member in self.members:
            self._check_sets(member)
            _check_that_it_can_be_served(member)
            if not self.taught and (member.distillation or self._needs_teacher(member)):
                raise ValueError(
                    f"member {member.name}: nothing teaches it (taught = false): "
                    "no distillation, no teacher_only, no silver pairs"
                )
        return self


class SilverRecipe(_WithData):
    """Pairs for the teacher to score: neighbours among the sentences of ``sets`` and ``texts``.

    ``embedding`` neighbours are taken nearest first, and as many again, each ``apart`` ranks further off. ``like``
    names the set whose gold scores' histogram the pairs follow. Longer sentences than ``max_characters`` are left out.
    """

    name: str
    sets: Annotated[list[str], Field(min_length=1)]
    texts: list[str] = Field([])
    embedding: Annotated[int, Field(gt=0)] = 4
    apart: Annotated[int, Field(gt=0)] = 8
    bm25: Annotated[int, Field(gt=0)] = 4
    pairs: Annotated[int, Field(gt=0)]
    like: str
    max_characters: Annotated[int, Field(gt=0)] = 400
    seed: int = 0

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        if unknown := sorted({self.like, *self.sets} - set(self.data.sets)):
            raise ValueError(f"{unknown} are not sets of the data (it has {sorted(self.data.sets)})")
        if self.data.sets[self.like].outputs != 1:
            raise ValueError(f"like: {self.like} has no gold in 0..1 whose histogram could be followed")
        if unknown := sorted(set(self.texts) - set(self.data.texts)):
            raise ValueError(f"{unknown} are not texts of the data (it has {sorted(self.data.texts)})")
        return self


def _check_that_it_can_be_served(network: NetworkRecipe) -> None:
    if not network.head.symmetric_score:
        raise ValueError(
            f"{network.name}: a head that is directed or has several outputs is for tasks (dse tasks run), not to serve"
        )


class DistillationRecipe(_WithData):
    """One network trained on gold scores and the teacher's logits, then exported."""

    network: NetworkRecipe
    export: ExportRecipe

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        self._check_sets(self.network)
        _check_that_it_can_be_served(self.network)
        return self


class NeighbourRecipe(Strict):
    """Unlabelled pairs for a task's teacher: each left text of ``sets`` with the ``nearest`` right ones, but its own.

    ``limit`` takes that many of them, evenly spaced.
    """

    sets: Annotated[list[str], Field(min_length=1)]
    nearest: Annotated[int, Field(gt=0)] = 4
    limit: Annotated[int, Field(gt=0)] | None = None


SHALLOW_BODY = "shallow-body"
"""In a task's folder: the trained body of its shallow network."""


class ShallowRecipe(Strict):
    """A cross-encoder of fewer layers than the teacher, made as DistilBERT was (Sanh et al., arXiv 1910.01108).

    First its ``body`` imitates the initial weights on plain texts; from there ``network`` learns the task: its ``init``
    is the body's folder, wherever the task is run.
    """

    body: NetworkRecipe
    network: NetworkRecipe

    @model_validator(mode="after")
    def _starts_from_its_body(self) -> Self:
        if Path(self.network.init).name != SHALLOW_BODY:
            raise ValueError(
                f"{self.network.name} starts from its body, not from {self.network.init}: let its init end in "
                f"{SHALLOW_BODY}"
            )
        return self


Figure = Literal["f1", "accuracy", "pearson"]

TASK_RESULT = "result.json"
"""What ``dse tasks run`` leaves in a task's folder."""


class TaskRecipe(_WithData):
    """A pair task: the cross-encoder that is its teacher, the student distilled from it, and what both are judged by.

    ``figure`` is the one whose loss counts; ``note`` says in a table what is particular about the data.
    """

    name: str
    figure: Figure
    note: str = ""
    teacher: NetworkRecipe
    student: NetworkRecipe
    neighbours: NeighbourRecipe | None = None
    shallow: ShallowRecipe | None = None

    @property
    def networks(self) -> list[NetworkRecipe]:
        """Everything that is trained."""
        shallow = [] if self.shallow is None else [self.shallow.body, self.shallow.network]
        return [self.teacher, self.student, *shallow]

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        for network in self.networks:
            self._check_sets(network)
        for name in self.neighbours.sets if self.neighbours is not None else []:
            if name not in self.data.sets:
                raise ValueError(f"neighbours of {name} are asked for, a set that the data does not define")
        uses_silver = any(SILVER in stage.sets for stage in self.student.stages)
        if uses_silver != (self.neighbours is not None):
            raise ValueError("neighbours make the pairs of the student's set called silver: give both or neither")
        return self

    @model_validator(mode="after")
    def _teacher_and_student_answer_alike(self) -> Self:
        if (self.teacher.kind, self.student.kind) != ("cross-encoder", "bi-encoder"):
            raise ValueError("a task's teacher is a cross-encoder, its student a bi-encoder")
        if self.teacher.distillation or self._needs_teacher(self.teacher):
            raise ValueError("nothing teaches a task's teacher: no distillation, no sets without gold")
        for name, split in (("dev", self.data.dev), ("test", self.data.test)):
            for network in (self.teacher, self.student):
                if split.outputs != network.head.outputs:
                    raise ValueError(f"{network.name} answers {network.head.outputs} logits, {name} asks for another")
        if self.teacher.head.outputs > 1 and self.figure != "accuracy":
            raise ValueError(f"of several classes, accuracy is the figure, not {self.figure}")
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


def read_stages(path: Path) -> tuple[DataRecipe, list[Stage]]:
    """The data and every stage of a teacher's recipe, or of a distillation's: what there is to label.

    Raises:
        RecipeError: as :func:`read_recipe`.
    """
    if "members" in _read_toml(path):
        teacher = read_recipe(path, TeacherRecipe)
        return teacher.data, [stage for member in teacher.members for stage in member.stages]
    distillation = read_recipe(path, DistillationRecipe)
    return distillation.data, distillation.network.stages


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error
