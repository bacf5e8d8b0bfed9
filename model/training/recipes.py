"""What does a training run do? A recipe says all of it, in one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.faults import TrainingFault
from model.training.attention_recipe import LEARNED, AttentionRecipe, PositionRecipe, named
from model.training.imitation_recipe import ImitationRecipe


class RecipeError(TrainingFault):
    """A recipe that cannot be followed; the message names the file and what is wrong in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairSet(_Strict):
    """One file of sentence pairs, and how its scores map to a gold target in 0..1.

    ``range`` maps a number linearly (``[0, 5]`` for STS); ``labels`` maps a label name; ``classes`` lists the labels of
    a task that asks for one of several, and gold is a label's place among them; the scores of an ``unlabelled`` set
    mean nothing here. ``part`` takes a share of the file, by the left text (:func:`~model.training.pairs.share_of`):
    ``[0.8, 1]`` is the last fifth.
    """

    file: str
    terms: str
    range: tuple[float, float] | None = None
    labels: dict[str, float] | None = None
    classes: Annotated[list[str], Field(min_length=2)] | None = None
    unlabelled: bool = False
    part: tuple[float, float] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None

    @property
    def outputs(self) -> int | None:
        """How many logits a network answers that learns from its gold; None where there is no gold."""
        return None if self.unlabelled else len(self.classes or ["one"])

    @property
    def described(self) -> str:
        """For model cards: the file, which part of it, and its terms."""
        part = "" if self.part is None else f", {self.part[0]:g} to {self.part[1]:g} of its left texts by hash"
        return f"`{self.file}`{part}: {self.terms}"

    @model_validator(mode="after")
    def _one_way_to_read_the_score(self) -> Self:
        if sum([self.range is not None, self.labels is not None, self.classes is not None, self.unlabelled]) != 1:
            raise ValueError(f"{self.file}: give one of range, labels, classes and unlabelled")
        return self


class TextSet(_Strict):
    """One file of plain text, a text a line; ``limit`` takes that many, evenly spaced.

    Of JSON lines (``.jsonl``, ``.jsonl.gz``) a text is the ``title`` and ``text`` of a line. Texts are cut into
    passages of ``words`` words, what is left over of a longer text dropped; those of more than ``max_words`` words are
    left out.
    """

    file: str
    terms: str
    words: Annotated[int, Field(gt=0)] | None = None
    max_words: Annotated[int, Field(gt=0)] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None

    @property
    def described(self) -> str:
        """For model cards: the file and its terms."""
        return f"`{self.file}`: {self.terms}"


SILVER = "silver"
"""The name by which a stage asks for the pairs that ``dse silver`` made."""

SILVER_PAIRS = PairSet(
    file="silver.tsv.gz",
    range=(0, 1),
    terms="neighbours among the sentences of the other sets and of the text sets: their terms",
)

PairLoss = Literal["dse", "prediction", "cosent", "margin-mse", "multiple-negatives"]
Weight = Annotated[float, Field(gt=0)]


class Stage(_Strict):
    """A pass over pairs, over plain texts, or over both at once, with one learning-rate schedule.

    Of the sets in ``teacher_only`` (and of silver pairs) the gold scores are not used: the teacher's logit is the only
    target. ``losses`` weighs what is asked of a batch of pairs (see :meth:`NetworkRecipe.losses`); ``regression`` (to
    the guide's embeddings) and ``imitation`` (of the guide's body) are asked of ``text_batch`` texts in every step;
    ``texts`` may name a set of pairs, too, and means its sentences. An epoch goes once over the pairs, or over the
    texts where there are no pairs. With ``head_only`` the embeddings stay as they are and the head alone is trained.
    With ``maps_only`` the feature maps of linear attention alone are: on texts, to weigh tokens as softmax would
    (Hedgehog, arXiv 2402.04347).
    """

    name: str
    sets: list[str] = []
    teacher_only: list[str] = []
    losses: dict[PairLoss, Weight] | None = None
    texts: list[str] = []
    text_batch: Annotated[int, Field(gt=1)] = 32
    regression: Annotated[float, Field(ge=0)] = 0.0
    imitation: ImitationRecipe | None = None
    epochs: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(gt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    both_orders: bool = False
    head_only: bool = False
    maps_only: bool = False
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.sets and not self.texts:
            raise ValueError(f"stage {self.name}: give sets of pairs, texts, or both")
        if self.maps_only and (self.sets or self.regression or self.imitation or self.head_only):
            raise ValueError(f"stage {self.name}: maps_only goes with texts, and with nothing else to learn")
        if bool(self.texts) != bool(self.regression or self.imitation or self.maps_only):
            raise ValueError(
                f"stage {self.name}: texts go with regression, imitation or maps_only, and these with texts"
            )
        if self.head_only and self.texts:
            raise ValueError(f"stage {self.name}: plain texts shape the body, and head_only leaves it as it is")
        if stray := sorted(set(self.teacher_only) - set(self.sets)):
            raise ValueError(f"stage {self.name}: teacher_only names {stray}, which are not among its sets")
        return self


class HeadRecipe(_Strict):
    """The similarity function trained over two embeddings, or over the two segments that a cross-encoder reads.

    ``classifier`` is a cross-encoder's alone: the linear layer of transformers' sequence classification. An mlp may
    have several ``outputs``, one a class, and be ``directed``: for pairs that mean something else the other way round.
    """

    kind: Literal["mlp", "quadratic", "cosine", "classifier"] = "mlp"
    hidden: Annotated[int, Field(gt=0)] = 512
    outputs: Annotated[int, Field(gt=0)] = 1
    directed: bool = False

    @property
    def symmetric_score(self) -> bool:
        """Whether it answers one logit, the same for both orders: what is calibrated, exported and served."""
        return self.outputs == 1 and not self.directed

    @model_validator(mode="after")
    def _an_mlp_for_what_only_it_can(self) -> Self:
        if self.kind != "mlp" and not self.symmetric_score:
            raise ValueError(f"several outputs and directed need an mlp head, not {self.kind}")
        return self


class BranchRecipe(_Strict):
    """A second reading of every text, by copies of a body's top ``layers``.

    The copies alone are trained, for pairs; the body's own reading stays as it is, for search. Once they are trained,
    both are merged into one embedding, whose cosine is nearly the mean of theirs, the branch's weighing ``share``.
    """

    layers: Annotated[int, Field(gt=0)]
    share: Annotated[float, Field(gt=0, lt=1)]


class NetworkRecipe(_Strict):
    """One network to train: a cross-encoder, or a bi-encoder with its head.

    A ``static`` body is a table of token rows, made from the initial weights and the texts that are learned from.
    ``layers`` picks layers of the initial body by number, from 0 (all of them if left out); ``attention`` says which
    kind of attention each of these has, and ``positions`` how many tokens are told apart (both as the initial weights
    have it if left out). Of ``frozen`` parts the weights stay as they are; positions that ``positions`` adds are
    trained all the same. ``keep_initial`` is the share of the initial weights that is averaged in once the body is
    trained, before the stages that train the head alone; where ``init`` is itself a trained network, ``origin`` names
    the weights that are kept, and drawn to, instead. With a ``branch`` (:class:`BranchRecipe`) they are averaged in
    before anything is trained, into all but the branch.
    ``guide`` names the encoder that ``regression`` and ``imitation`` look to: a folder or a hub id (for regression, a
    student's bundle as well); the weights that are kept if left out; with ``guide_pieces`` a text that is longer than
    it reads aims at the mean embedding of its pieces, not at that of its start. ``recompute`` trades a third of the
    speed for memory, on long texts: what layers computed is not kept for the way back. ``matryoshka`` are further
    dimensions whose prefixes are trained as embeddings of their own.
    """

    name: str
    kind: Literal["cross-encoder", "bi-encoder"]
    init: str
    origin: str | None = None
    body: Literal["transformer", "static"] = "transformer"
    layers: list[Annotated[int, Field(ge=0)]] | None = None
    attention: AttentionRecipe | None = None
    positions: PositionRecipe | None = None
    branch: BranchRecipe | None = None
    frozen: list[Literal["embeddings"]] = []
    max_tokens: Annotated[int, Field(ge=8)] = 128
    recompute: bool = False
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    cosine_scale: Annotated[float, Field(gt=0)] = 20.0
    matryoshka: list[Annotated[int, Field(gt=1)]] = []
    keep_initial: Annotated[float, Field(ge=0, le=1)] = 0.0
    guide: str | None = None
    guide_pieces: bool = False
    head: HeadRecipe = HeadRecipe()
    stages: list[Stage]

    @property
    def texts(self) -> list[str]:
        """The text sets of every stage, each once."""
        return sorted({name for stage in self.stages for name in stage.texts})

    @property
    def as_initial(self) -> "NetworkRecipe":
        """The same for a plain transformer, with the layers, attention and positions that the weights have."""
        changes = {"body": "transformer", "layers": None, "attention": None, "positions": None, "branch": None}
        return self.model_copy(update=changes)

    def losses(self, stage: Stage) -> dict[PairLoss, float]:
        """What a stage asks of its pairs; if it does not say, the DSE objective, and CoSENT on what can be compared."""
        if stage.losses is not None:
            return stage.losses
        if self.head.outputs > 1:
            return {"dse": 1.0}
        usual: dict[str, dict[PairLoss, float]] = {
            "mlp": {"dse": 1.0, "cosent": 1.0},
            "quadratic": {"dse": 1.0, "cosent": 1.0},
            "cosine": {"cosent": 1.0},  # a cosine is no logit
            "classifier": {"dse": 1.0},
        }
        return usual[self.head.kind]

    @model_validator(mode="after")
    def _losses_fit_the_head(self) -> Self:
        asked: set[PairLoss] = {name for stage in self.stages for name in self.losses(stage)}
        if self.head.kind == "cosine" and asked & {"dse", "prediction"}:
            raise ValueError("dse and prediction need a head: a cosine is no logit")
        if self.head.kind == "classifier" and asked & {"cosent", "multiple-negatives"}:
            raise ValueError("cosent and multiple-negatives compare two embeddings: a classifier has none")
        if self.head.outputs > 1 and asked - {"dse", "prediction"}:
            raise ValueError(
                "all losses but dse and prediction rank pairs by one score: a head of several outputs has none"
            )
        return self

    @property
    def body_stages(self) -> int:
        """How many stages, the first ones, train the body."""
        return sum(not stage.head_only for stage in self.stages)

    @model_validator(mode="after")
    def _heads_are_trained_last(self) -> Self:
        if any(stage.head_only for stage in self.stages[: self.body_stages]):
            raise ValueError("stages that train the head alone come after those that train the body")
        if self.body_stages < len(self.stages) and self.head.kind == "cosine":
            raise ValueError("head_only needs a head: the cosine has nothing to train")
        return self

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Self:
        if self.keep_initial == 1 and self.branch is None:
            raise ValueError("keep_initial = 1 would keep nothing of what is trained, but for a branch")
        if self.kind == "cross-encoder" and (self.keep_initial or self.texts or self.matryoshka):
            raise ValueError("keep_initial, texts and matryoshka are a bi-encoder's: a cross-encoder embeds nothing")
        if self.head.kind == ("cosine" if self.kind == "cross-encoder" else "classifier"):
            raise ValueError(f"a {self.kind} has no {self.head.kind} head")
        if self.head.directed and any(stage.both_orders for stage in self.stages):
            raise ValueError("both_orders gives both orders of a pair one target: not for a directed head")
        return self

    @model_validator(mode="after")
    def _attention_fits_the_rest(self) -> Self:
        kinds = set() if self.attention is None else named(self.attention)
        if self.head.kind == "classifier" and (self.attention or self.positions):
            raise ValueError("attention and positions are for encoders: transformers' classifier is taken as it is")
        if self.keep_initial and kinds - {"softmax"}:
            raise ValueError("keep_initial averages weights of one kind of attention: leave it out, or attention")
        if any(stage.maps_only for stage in self.stages) and not kinds & LEARNED:
            raise ValueError(f"maps_only needs attention with a learned feature map ({', '.join(sorted(LEARNED))})")
        if self.positions is not None and self.max_tokens > self.positions.tokens:
            raise ValueError(f"max_tokens is {self.max_tokens}, but there will be {self.positions.tokens} positions")
        return self

    @model_validator(mode="after")
    def _a_branch_is_what_is_trained(self) -> Self:
        if self.branch is None:
            return self
        if self.kind == "cross-encoder" or self.body == "static":
            raise ValueError("a branch is a transformer's that embeds")
        others = ("frozen", "layers", "attention", "positions", "texts")
        if stray := [name for name in others if getattr(self, name)]:
            raise ValueError(f"with a branch nothing else of the body is trained or changed: leave out {stray}")
        if self.body_stages == 0 or (self.head.kind != "cosine" and self.body_stages == len(self.stages)):
            raise ValueError(
                "a branch is trained by stages of the body, and then merged; a head is fitted to what came out, by "
                "stages with head_only"
            )
        return self

    @model_validator(mode="after")
    def _a_table_is_asked_for_what_it_has(self) -> Self:
        if self.body == "static" and (self.kind == "cross-encoder" or self.frozen or self.keep_initial):
            raise ValueError("a static body is a bi-encoder's, trained whole, and has no initial weights to keep")
        if self.body == "static" and (self.attention or self.positions):
            raise ValueError("a static body has neither attention nor positions: leave both out")
        if self.body == "static" and any(stage.imitation for stage in self.stages):
            raise ValueError("a static body has no layers that could imitate a guide's: leave imitation out")
        return self


class DataRecipe(_Strict):
    """The pair sets, the splits to judge by, and further files whose sentences nothing may be trained on either."""

    sets: dict[str, PairSet]
    texts: dict[str, TextSet] = {}
    dev: PairSet
    test: PairSet
    held_out: list[str] = []

    def set_of(self, name: str) -> PairSet:
        """What a stage means by a set's name."""
        return SILVER_PAIRS if name == SILVER else self.sets[name]

    def texts_of(self, name: str) -> TextSet | PairSet:
        """What a stage means by the name of texts: a text set, or the sentences of a pair set."""
        return self.texts[name] if name in self.texts else self.set_of(name)


class _WithData(_Strict):
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


class Int8Recipe(_Strict):
    """Static quantisation: calibration sentences, and the loss that is still acceptable.

    ``max_loss`` is in points of Spearman (100 times rho) on the dev split.
    """

    calibration_texts: Annotated[int, Field(gt=0)] = 300
    max_loss: Annotated[float, Field(ge=0)] = 0.5


class ExportRecipe(_Strict):
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
    texts: list[str] = []
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


class NeighbourRecipe(_Strict):
    """Unlabelled pairs for a task's teacher: each left text of ``sets`` with the ``nearest`` right ones, but its own.

    ``limit`` takes that many of them, evenly spaced.
    """

    sets: Annotated[list[str], Field(min_length=1)]
    nearest: Annotated[int, Field(gt=0)] = 4
    limit: Annotated[int, Field(gt=0)] | None = None


class ShallowRecipe(_Strict):
    """A cross-encoder of fewer layers than the teacher, made as DistilBERT was (Sanh et al., arXiv 1910.01108).

    First its ``body`` imitates the initial weights on plain texts; from there ``network`` learns the task.
    """

    body: NetworkRecipe
    network: NetworkRecipe


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
