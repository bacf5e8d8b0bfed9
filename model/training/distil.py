"""How does a student learn from gold scores and the teacher's logits together?"""

import json
from pathlib import Path

from model.training.logits import TeacherLogits
from model.training.material import materials
from model.training.networks import Network
from model.training.pairs import TrainingData
from model.training.recipes import DistillationRecipe
from model.training.runs import train_network
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

    The signal that taught it is kept beside it (``signal.json``), for its model card.

    Raises:
        LogitsError: a pair has no logit, or was altered since it was labelled.
        TrainingFault: the folder holds another run.
    """
    start = init or recipe.network.init
    stages = materials(recipe.network, data, logits, start, folder, progress)
    network = train_network(recipe.network, start, stages, folder, progress)
    (folder / SIGNAL).write_text(json.dumps(logits.signal.as_json(), indent=2), "utf-8")
    return network
