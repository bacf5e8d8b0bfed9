"""How does a student learn from gold scores and the teacher's logits together?"""

import json
import math
from collections.abc import Callable
from pathlib import Path

from model.training.logits import RawScorer, TeacherLogits, label
from model.training.networks import Network
from model.training.pairs import Pair, PairData
from model.training.recipes import DistillationRecipe, Stage
from model.training.runs import train_network
from model.training.teacher import SIGNAL
from model.training.trainer import Example, Progress


def pairs_to_train(recipe: DistillationRecipe, data: Path) -> dict[str, list[Pair]]:
    """The pairs of every set that a stage uses, by set, without those that hold a held-out sentence."""
    pairs = PairData(data, recipe.data)
    used = {name for stage in recipe.network.stages for name in stage.sets}
    return {name: pairs.trainable(name) for name in sorted(used)}


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

    The signal that taught it is kept beside it (``signal.json``), for its model card.

    Raises:
        LogitsError: a pair has no logit, or was altered since it was labelled.
        TrainingFault: the folder holds another run.
    """
    pairs = pairs_to_train(recipe, data)
    stages = [stage_examples(stage, pairs, logits) for stage in recipe.network.stages]
    network = train_network(recipe.network, init or recipe.network.init, stages, folder, progress)
    (folder / SIGNAL).write_text(json.dumps(logits.signal.as_json(), indent=2), "utf-8")
    return network


def stage_examples(stage: Stage, pairs: dict[str, list[Pair]], logits: TeacherLogits) -> list[Example]:
    """The pairs of a stage with their targets; those of a teacher-only set without their gold."""
    examples = []
    for name in stage.sets:
        imitate = name in stage.teacher_only
        for pair, logit in zip(pairs[name], logits.of(pairs[name]), strict=True):
            examples.append(Example(pair, math.nan if imitate else pair.gold, float(logit)))
    return examples
