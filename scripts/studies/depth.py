"""How does the depth of a student bear on its quality, for each kind of attention and each way to imitate?"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from model.training.attention_recipe import LEARNED, AttentionKind, TopLayers, named
from model.training.data_recipe import DataRecipe
from model.training.imitation_recipe import ImitationRecipe
from model.training.losses import uniform_layer_map
from model.training.material import materials
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.networks import BiEncoder, make_network, weights_of
from model.training.pairs import Pair, TrainingData, data_digest
from model.training.quality import Correlation
from model.training.runs import train_network
from scripts.evaluation.bootstrap import Estimate, Samples
from scripts.evaluation.metrics import Floats, pearson
from scripts.markdown import table
from scripts.studies.answers import keep, samples
from scripts.studies.cells import Cell, Found, digest
from scripts.studies.plot import Axes, Dot, Series, lines

Style = Literal["dse", "tinybert", "minilm", "distilbert"]

STYLES: dict[Style, ImitationRecipe | None] = {
    "dse": None,  # the parent's embeddings
    "tinybert": ImitationRecipe(weights={"embedding": 1.0, "hidden": 1.0, "attention": 1.0}),
    "minilm": ImitationRecipe(weights={"last-attention": 1.0, "value-relation": 1.0}),
    "distilbert": ImitationRecipe(weights={"soft-targets": 5.0, "mlm": 2.0, "hidden-cosine": 1.0}, mlm_head_steps=300),
}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Student:
    """A kind of student; of one trained with several seeds, each is a cell."""

    style: Style
    attention: AttentionKind  # of the top layers
    layers: int
    top: int  # of the layers, counted from the last, how many have it; softmax below

    @property
    def name(self) -> str:
        """As folders and tables call it."""
        mixed = "" if self.top == self.layers else f"-top{self.top}"
        return f"{self.style}-{self.attention}-{self.layers}{mixed}"

    def cell(self, recipe: NetworkRecipe, weights: str, data: str) -> Cell:
        """The student trained by a recipe of :func:`recipe_of`, from weights, on data, both known by their digests."""
        said = recipe.model_dump_json(exclude={"init"}, exclude_defaults=True)  # where the weights lie is no matter
        facts = {"style": self.style, "attention": self.attention, "layers": self.layers, "top": self.top}
        decided = {"recipe": digest(said), "weights": weights, "data": data}
        return Cell(f"{self.name}-seed{recipe.seed}", facts | {"seed": recipe.seed} | decided)

    @classmethod
    def of(cls, cell: Cell) -> Self:
        """What a cell trains."""
        return cls(*(cell.facts[fact] for fact in ("style", "attention", "layers", "top")))


def data_of(network: NetworkRecipe, data: DataRecipe, root: Path) -> str:
    """One digest of what all cells learn from and are judged by: the files below ``root``, and how they are read."""
    names = {name for stage in network.stages for name in (*stage.sets, *stage.texts)}
    return digest(data.model_dump_json(exclude_defaults=True) + data_digest(root, data, names))


def students(
    kinds: Sequence[AttentionKind], styles: Sequence[Style], layers: Sequence[int], mixed_kinds: Sequence[AttentionKind]
) -> list[Student]:
    """Every kind of attention at every depth; the deepest with some in its top layers; softmax in other styles."""
    plain = [Student("dse", kind, depth, depth) for depth in layers for kind in kinds]
    deepest = max(layers)
    mixed = [Student("dse", kind, deepest, top) for kind in mixed_kinds for top in range(1, deepest)]
    others = [Student(style, "softmax", depth, depth) for style in styles if style != "dse" for depth in layers]
    return plain + mixed + others


def recipe_of(base: NetworkRecipe, student: Student, seed: int, parent_layers: int) -> NetworkRecipe:
    """What a cell trains: the parent's layers as TinyBERT spaces them, and the stages that fit the student."""
    attention: AttentionKind | TopLayers = "softmax"
    if student.attention != "softmax":
        attention = TopLayers(map=student.attention, top=student.top)
    learned = bool(named(attention) & LEARNED)
    changes = {
        "name": student.name,
        "seed": seed,
        "layers": [number - 1 for number in uniform_layer_map(student.layers, parent_layers)],
        "attention": attention,
        "stages": [_in_style(stage, student.style) for stage in base.stages if learned or not stage.maps_only],
    }
    return NetworkRecipe.model_validate(base.model_dump() | changes)


def _in_style(stage: Stage, style: Style) -> dict[str, Any]:
    """A stage that draws texts to the parent and learns no pairs imitates it in the style, if that is another."""
    if STYLES[style] is None or stage.sets or not stage.regression:
        return stage.model_dump()
    return stage.model_dump() | {"regression": 0.0, "imitation": STYLES[style]}


def train_and_judge(
    recipe: NetworkRecipe, data: TrainingData, init: str | None, folder: Path, shared: Path, progress: Progress
) -> Found:
    """Train a student in its cell's folder, and say how good it is and how long it took.

    Args:
        recipe: of the cell.
        data: its pairs and texts; dev and test are what it is judged by.
        init: a folder that stands for the hub id of the recipe.
        folder: the cell's.
        shared: where what the parent says of the texts is kept for every cell.
        progress: told the stage and its steps.
    """
    parent = weights_of(recipe.init, init)
    stages = materials(recipe, data, None, parent, shared, progress)
    began = time.process_time()
    student = train_network(recipe, parent, stages, folder / "run", progress)
    seconds = time.process_time() - began
    assert isinstance(student, BiEncoder)  # recipes of the study name no other
    found: Found = {"train_cpu_seconds": round(seconds), "parameters": sum(p.numel() for p in student.parameters())}
    answers: dict[str, Any] = {}
    for split, pairs in (("dev", data.dev), ("test", data.test)):
        answers[split] = cosines(student, pairs)
        answers[f"{split}_gold"] = np.array([pair.gold for pair in pairs])
        judged = Correlation.of(answers[split], answers[f"{split}_gold"])
        found[split] = {"pearson": judged.pearson, "spearman": judged.spearman}
    keep(folder, answers)
    return found


def cosines(student: BiEncoder, pairs: Sequence[Pair]) -> Floats:
    """(pairs,) what a student says of pairs."""
    left, right = (student.embed_all(texts) for texts in ([p.left for p in pairs], [p.right for p in pairs]))
    return (left.double() * right.double()).sum(-1).numpy()


def parent_layers(base: NetworkRecipe, init: str | None) -> int:
    """How many layers the weights have that every student starts from."""
    return int(make_network(base.as_initial, weights_of(base.init, init)).body.config.num_hidden_layers)


@dataclass(frozen=True)
class Row:
    """What was found of a student: mean over its seeds on the test split, with 95 % bootstrap intervals over pairs."""

    student: Student
    seeds: int
    pearson: Estimate
    spearman: Estimate
    behind: Estimate  # Spearman below the deepest softmax student of the dse style; paired
    spread: float | None  # standard deviation of Spearman over seeds, points


def rows(cells: Sequence[Cell], found: Mapping[str, Found], folder: Path) -> list[Row]:
    """A row for each student with a finished cell, in the order of the cells."""
    groups: dict[Student, list[Cell]] = {}
    for cell in cells:
        if cell.name in found:
            groups.setdefault(Student.of(cell), []).append(cell)
    drawn = {student: samples(folder, of_student) for student, of_student in groups.items()}
    softmax = [student for student in groups if (student.style, student.attention) == ("dse", "softmax")]
    reference = max(softmax, key=lambda student: student.layers, default=None)
    return [
        Row(
            student,
            len(groups[student]),
            Estimate.of(both["pearson"]),
            Estimate.of(both["spearman"]),
            _difference(both, None if reference is None else drawn[reference]),
            _spread([found[cell.name]["test"]["spearman"] for cell in groups[student]]),
        )
        for student, both in drawn.items()
    ]


def _difference(mine: Mapping[str, Samples], reference: Mapping[str, Samples] | None) -> Estimate:
    if reference is None:
        return Estimate(None, None, None)
    return Estimate.of(reference["spearman"] - mine["spearman"])


def _spread(figures: Sequence[float]) -> float | None:
    return round(float(np.std(figures, ddof=1)), 2) if len(figures) > 1 else None


@dataclass(frozen=True)
class Correlated:
    """Pearson's correlation, its 95 % bootstrap interval, and of how many students; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    students: int

    @classmethod
    def of(cls, drawn: Samples, students: int) -> Self:
        """The correlation of the students as they are, then of each resample."""
        estimate = Estimate.of(drawn)  # in points
        in_points = estimate.value, estimate.low, estimate.high
        value, low, high = (None if one is None else round(one / 100, 4) for one in in_points)
        return cls(value, low, high, students)

    def __str__(self) -> str:
        return "none" if self.value is None else f"{self.value:.3f} [{self.low}, {self.high}]"


def depth_correlations(cells: Sequence[Cell], found: Mapping[str, Found], folder: Path) -> dict[str, Correlated]:
    """By style and attention: how a student's layers correlate with its Spearman on test, over all seeds.

    The interval is of resamples of the test pairs: in each, every student is judged on the same pairs.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        student = Student.of(cell)
        if cell.name in found and student.top == student.layers:
            groups.setdefault(f"{student.style}-{student.attention}", []).append(cell)
    told = {}
    for name, of_name in groups.items():
        layers = np.array([Student.of(cell).layers for cell in of_name], np.float64)
        if len(set(layers)) > 1:
            drawn = np.array([samples(folder, [cell])["spearman"] for cell in of_name])  # (cells, samples)
            ones = np.ones((1, len(layers)), np.int64)
            correlated = np.array([pearson(layers, figures)(ones)[0] for figures in drawn.T])
            told[name] = Correlated.of(correlated, len(of_name))
    return told


def markdown(
    found_rows: Sequence[Row], correlations: Mapping[str, Correlated], budget: str, pictures: Mapping[str, str]
) -> str:
    """The page of the study: its table, what correlates, what it was allowed to cost, and its pictures by file name."""

    def interval(estimate: Estimate) -> str:
        return "" if estimate.value is None else f"{estimate.value:.2f} [{estimate.low}, {estimate.high}]"

    def cells(row: Row) -> list[object]:
        student = row.student
        linear = 0 if student.attention == "softmax" else student.top
        intervals = [interval(estimate) for estimate in (row.pearson, row.spearman, row.behind)]
        spread = "" if row.spread is None else row.spread
        return [f"{student.style}, {student.attention}", student.layers, linear, row.seeds, *intervals, spread]

    def page() -> Iterator[str]:
        yield "# Depth and attention on STS-B\n"
        yield budget + "\n"
        yield "Test split, mean over seeds; in brackets, 95 % bootstrap intervals over pairs. `behind`: Spearman below"
        yield "the deepest softmax student, paired.\n"
        columns = ["student", "layers", "linear", "seeds", "Pearson", "Spearman", "behind", "sd over seeds"]
        yield from table(columns, [cells(row) for row in found_rows])
        yield "\nPearson's correlation of layers with Spearman, over all seeds: "
        yield "; ".join(f"{name} {value}" for name, value in correlations.items()) + "."
        for file, title in pictures.items():
            yield f"\n![{title}]({file})"

    return "\n".join(page()) + "\n"


def pictures(found_rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """By file name, what a picture shows, and the picture; those for which there is nothing to draw are left out."""
    whole: dict[str, list[Dot]] = {}
    mixed: dict[str, list[Dot]] = {}
    deepest = max((row.student.layers for row in found_rows), default=0)
    for row in sorted(found_rows, key=lambda row: (row.student.layers, row.student.top)):
        student, figure = row.student, row.spearman
        if figure.value is None:
            continue
        name = student.attention if student.style == "dse" else f"softmax, as {student.style}"
        if student.top == student.layers:
            dots = whole.setdefault(name, [])
            dots.append(Dot(student.layers, figure.value, figure.low, figure.high))
        if student.style == "dse" and student.layers == deepest and student.attention != "softmax":
            mixed.setdefault(name, []).append(Dot(student.top, figure.value, figure.low, figure.high))
        if (student.style, student.attention, student.layers) == ("dse", "softmax", deepest):
            mixed["softmax"] = [Dot(0, figure.value, figure.low, figure.high)]
    every = [
        ("depth-layers.svg", "Spearman on STS-B test, by depth", "layers", whole),
        (
            "depth-top.svg",
            f"Spearman on STS-B test, by how many of {deepest} layers are linear",
            "linear layers",
            mixed,
        ),
    ]
    return {
        file: (title, lines(Axes(title, across, "Spearman"), [Series(name, dots) for name, dots in of.items()]))
        for file, title, across, of in every
        if of
    }
