"""How does a student learn from gold scores and the teacher's logits together?"""

import json
import math
from collections.abc import Callable
from pathlib import Path

from model.training.logits import RawScorer, TeacherLogits, label
from model.training.networks import Network
from model.training.pairs import HeldOut, Pair, read_pairs
from model.training.recipes import DistillationRecipe, Stage
from model.training.teacher import train_network
from model.training.trainer import Example, Progress

SIGNAL = "signal.json"
"""In a run's folder: the signal that taught it, for its model card."""


def pairs_to_train(recipe: DistillationRecipe, data: Path) -> dict[str, list[Pair]]:
    """The pairs of every set that a stage uses, by set, without those that hold a held-out sentence."""
    held_out = HeldOut.read(data, recipe.data.held_out)
    used = {name for stage in recipe.network.stages for name in stage.sets}
    return {name: held_out.without(read_pairs(data, recipe.data.sets[name])) for name in sorted(used)}


def label_for(
    recipe: DistillationRecipe,
    data: Path,
    teacher: RawScorer,
    path: Path,
    progress: Callable[[int, int], None],
) -> TeacherLogits:
    """Label every pair that a recipe trains on."""
    pairs = [pair for pairs in pairs_to_train(recipe, data).values() for pair in pairs]
    return label(teacher, pairs, path, progress)


def distil(
    recipe: DistillationRecipe,
    data: Path,
    logits: TeacherLogits,
    init: str | None,
    folder: Path,
    progress: Progress,
) -> Network:
    """Train the recipe's network on gold and teacher; resumable.

    Raises:
        LogitsError: a pair has no logit, or was altered since it was labelled.
    """
    pairs = pairs_to_train(recipe, data)
    answers = {name: logits.of(rows) for name, rows in pairs.items()}

    def examples_of(stage: Stage, name: str) -> list[Example]:
        imitate = name in stage.teacher_only
        return [
            Example(pair, math.nan if imitate else pair.gold, float(logit))
            for pair, logit in zip(pairs[name], answers[name], strict=True)
        ]

    network = recipe.network
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SIGNAL).write_text(json.dumps(logits.signal.as_json(), indent=2), "utf-8")
    return train_network(network, init or network.init, examples_of, folder, progress)
