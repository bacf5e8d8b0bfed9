"""What does each stage of a run learn from? Pairs with their targets, texts with the embeddings they aim at."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.training.data_recipe import SILVER
from model.training.guide import guide_embeddings
from model.training.logits import TeacherLogits
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.objectives import Example
from model.training.pairs import Pair, TrainingData
from model.training.trainer import Material, Progress, TextTarget


def pairs_to_train(stages: Sequence[Stage], data: TrainingData) -> dict[str, list[Pair]]:
    """The pairs of every set that a stage uses, by set, without those that hold a held-out sentence."""
    return {name: data.pairs(name) for name in sorted({name for stage in stages for name in stage.sets})}


def materials(
    network: NetworkRecipe,
    data: TrainingData,
    logits: TeacherLogits | None,
    guide: Path | str,
    folder: Path,
    progress: Progress,
) -> list[Material]:
    """What each stage of a network learns from; ``guide`` says where texts belong.

    Raises:
        LogitsError: a pair has no logit, or was altered since it was labelled.
    """
    pairs = pairs_to_train(network.stages, data)
    texts = {name: data.texts(name) for name in network.texts}
    aiming = [stage for stage in network.stages if stage.regression or stage.search]
    aimed = {text for stage in aiming for name in stage.texts for text in texts[name]}
    every = sorted(aimed)
    aims: dict[str, NDArray[np.float16]] = {}
    if every:
        found = guide_embeddings(network, guide, every, folder / "guide", progress)
        aims = dict(zip(every, found, strict=True))
    return [
        Material(
            stage_examples(stage, pairs, logits, network.head.outputs),
            [TextTarget(text, aims.get(text)) for name in stage.texts for text in texts[name]],
        )
        for stage in network.stages
    ]


def stage_examples(
    stage: Stage, pairs: dict[str, list[Pair]], logits: TeacherLogits | None, outputs: int = 1
) -> list[Example]:
    """The pairs of a stage with their targets; those of a teacher-only set, and silver ones, without their gold."""
    examples = []
    for name in stage.sets:
        imitate = name == SILVER or name in stage.teacher_only
        shape = len(pairs[name]) if outputs == 1 else (len(pairs[name]), outputs)
        taught = np.full(shape, math.nan) if logits is None else logits.of(pairs[name])
        for pair, logit in zip(pairs[name], taught.tolist(), strict=True):
            teacher = logit if outputs == 1 else tuple(logit)
            examples.append(Example(pair, math.nan if imitate else pair.gold, teacher))
    return examples
