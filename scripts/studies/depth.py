"""How does the depth of a student bear on its quality, for each kind of attention and each way to imitate?"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from model.similarity import paired_rows
from model.training.attention_recipe import LEARNED, AttentionKind, TopLayers, named
from model.training.data_recipe import DataRecipe
from model.training.imitation_recipe import ImitationRecipe
from model.training.losses import uniform_layer_map
from model.training.material import materials
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.networks import BiEncoder, Sources, make_network, weights_of
from model.training.pairs import Pair, TrainingData, data_digest
from model.training.quality import Correlation
from model.training.runs import train_network
from scripts.evaluation.metrics import Floats
from scripts.studies.answers import keep
from scripts.studies.cells import Cell, Found, digest, write

Style = Literal["dse", "tinybert", "minilm", "distilbert"]

STYLES: dict[Style, ImitationRecipe | None] = {
    "dse": None,  # the parent's embeddings
    "tinybert": ImitationRecipe(weights={"embedding": 1.0, "hidden": 1.0, "attention": 1.0}),
    "minilm": ImitationRecipe(weights={"last-attention": 1.0, "value-relation": 1.0}),
    "distilbert": ImitationRecipe(weights={"soft-targets": 5.0, "mlm": 2.0, "hidden-cosine": 1.0}, mlm_head_steps=300),
}

Progress = Callable[[str, int, int], None]

SPENT = "train_cpu_seconds.json"
"""In a cell's folder: the seconds of computing that its training took so far."""


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


class Spent:
    """Seconds of computing, from now on and in all the calls before that stopped."""

    def __init__(self, path: Path) -> None:
        self._path, self._began = path, time.process_time()
        self._before: float = json.loads(path.read_text("utf-8")) if path.exists() else 0.0

    def note(self) -> float:
        """Write them down, for a call that goes on after this one has stopped."""
        seconds = self._before + time.process_time() - self._began
        write(self._path, seconds)
        return seconds


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
    sources = Sources.of(recipe, init)
    stages = materials(recipe, data, None, sources.guide, shared, progress)
    spent = Spent(folder / SPENT)

    def step(stage: str, done: int, total: int) -> None:
        spent.note()
        progress(stage, done, total)

    student = train_network(recipe, sources.start, stages, folder / "run", step, sources.origin, sources.guide)
    seconds = round(spent.note())
    assert isinstance(student, BiEncoder)  # recipes of the study name no other
    found: Found = {"train_cpu_seconds": seconds, "parameters": sum(p.numel() for p in student.parameters())}
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
    texts, left, right = paired_rows([(pair.left, pair.right) for pair in pairs])
    embeddings = student.embed_all(texts).double().numpy()
    return (embeddings[left] * embeddings[right]).sum(-1)


def parent_layers(base: NetworkRecipe, init: str | None) -> int:
    """How many layers the weights have that every student starts from."""
    return int(make_network(base.as_initial, weights_of(base.init, init)).body.config.num_hidden_layers)
