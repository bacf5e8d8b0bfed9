"""How does a student learn from gold scores and the teacher's logits together?"""

import json
from pathlib import Path

from model.training.logits import TeacherLogits
from model.training.material import materials
from model.training.networks import Network, Sources
from model.training.pairs import TrainingData
from model.training.provenance import learned_from, write_learned_from
from model.training.recipes import DistillationRecipe
from model.training.runs import check_folder, train_network
from model.training.signal import SIGNAL
from model.training.trainer import Progress


def distil(
    recipe: DistillationRecipe,
    data: TrainingData,
    logits: TeacherLogits,
    init: str | None,
    folder: Path,
    progress: Progress,
) -> Network:
    """Train the recipe's network on gold and teacher; resumable.

    The signal that taught it, and all that it learned from, are kept beside it for its model card (``signal.json``,
    ``trained_on.json``).

    Args:
        recipe: what to train.
        data: the pairs and texts of its stages.
        logits: of the teacher, for those pairs.
        init: a folder that stands for the hub ids of the recipe; folders that it names are read as they are.
        folder: where the run is written.
        progress: told the stage and its steps.

    Raises:
        LogitsError: a pair has no logit, or was altered since it was labelled.
        TrainingFault: the folder holds another run.
    """
    sources = Sources.of(recipe.network, init)
    check_folder(folder, recipe.network, sources.start, sources.origin, sources.guide)
    stages = materials(recipe.network, data, logits, sources.guide, folder, progress)
    network = train_network(recipe.network, sources.start, stages, folder, progress, sources.origin, sources.guide)
    (folder / SIGNAL).write_text(json.dumps(logits.signal.as_json(), indent=2), "utf-8")
    write_learned_from(folder, learned_from(recipe.network, data, logits.signal, sources))
    return network
