"""How long will cells of the depth study take? Some steps of each kind of student are timed, before any is trained."""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from model.spaced import spaced
from model.training.material import materials
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.networks import BiEncoder, Sources
from model.training.pairs import TrainingData
from model.training.runs import train_network
from model.training.trainer import Material, Progress, steps_of
from scripts.studies.cells import Cell
from scripts.studies.depth import Student, cosines, parent_layers, recipe_of

STEPS = 3
"""Of each stage; the last is timed: the first takes what starting takes."""

JUDGED = 200
"""Pairs that are embedded to see how long judging takes."""


def price(
    base: NetworkRecipe, data: TrainingData, init: str | None, cells: Sequence[Cell], shared: Path, progress: Progress
) -> float:
    """Seconds of computing that cells will take, all together: in proportion to their layers.

    Args:
        base: what every cell is trained by.
        data: its pairs and texts.
        init: a folder that stands for the hub id of the recipe.
        cells: those that are to run.
        shared: where what the parent says of the texts is kept for every cell.
        progress: told the stage and its steps.
    """
    whole, sources = parent_layers(base, init), Sources.of(base, init)
    timed: dict[Student, float] = {}
    seconds = 0.0
    for cell in cells:
        student = Student.of(cell)
        as_deep = Student(student.style, student.attention, whole, whole)
        if as_deep not in timed:
            recipe = recipe_of(base, as_deep, 0, whole)
            stages = materials(recipe, data, None, sources.guide, shared, progress)
            timed[as_deep] = _timed(recipe, stages, sources, data, progress)
        seconds += student.layers / whole * timed[as_deep]
    return seconds


def _timed(
    recipe: NetworkRecipe,
    stages: Sequence[Material],
    sources: Sources,
    data: TrainingData,
    progress: Progress,
) -> float:
    """Seconds of computing that a student takes, to be trained and judged: a few steps and some pairs are timed."""
    marks = [("", time.process_time())]

    def mark(stage: str, done: int, total: int) -> None:
        marks.append((stage, time.process_time()))
        progress(f"estimate: {recipe.name}, {stage}", done, total)

    once = recipe.model_copy(update={"stages": [_once(stage) for stage in recipe.stages]})
    some = [_some(material, stage) for material, stage in zip(stages, recipe.stages, strict=True)]
    with TemporaryDirectory() as folder:
        student = train_network(once, sources.start, some, Path(folder), mark, sources.origin, sources.guide)
    assert isinstance(student, BiEncoder)  # recipes of the study name no other
    a_step = {stage: now - before for (_, before), (stage, now) in pairwise(marks)}  # the last of each stays
    pairs = data.dev[:JUDGED]
    began = time.process_time()
    cosines(student, pairs)
    judging = (time.process_time() - began) / len(pairs) * (len(data.dev) + len(data.test))
    training = sum(
        steps_of(material, stage) * a_step[stage.name] for material, stage in zip(stages, recipe.stages, strict=True)
    )
    fitting = sum(
        stage.imitation.mlm_head_steps * a_step.get(f"{stage.name}: head", 0.0)
        for stage in recipe.stages
        if stage.imitation
    )
    return judging + fitting + training


def _once(stage: Stage) -> Stage:
    fitted = stage.imitation and stage.imitation.model_copy(update={"mlm_head_steps": STEPS})
    return stage.model_copy(update={"epochs": 1, "imitation": fitted})


def _some(material: Material, stage: Stage) -> Material:
    """Enough of a stage's material for a few steps, spaced over all of it: texts of one end may be of one length."""
    return Material(spaced(material.examples, STEPS * stage.batch), spaced(material.texts, STEPS * stage.text_batch))
