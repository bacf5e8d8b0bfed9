"""What a cell said of the pairs that it is judged by is kept, so that cells are compared on the same resamples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scripts.evaluation.bootstrap import Samples, draw
from scripts.evaluation.metrics import Floats, pearson, spearman
from scripts.studies.cells import Cell

ANSWERS = "answers.npz"
"""In a cell's folder: the cosine of every pair of each split, and its gold as ``SPLIT_gold``."""


def keep(folder: Path, answers: Mapping[str, Floats]) -> None:
    """Write down what a cell said."""
    np.savez(folder / ANSWERS, allow_pickle=False, **dict(answers))


def samples(folder: Path, cells: Sequence[Cell], split: str = "test") -> dict[str, Samples]:
    """The mean over cells of each figure, over the same resamples of a split's pairs for whatever cells."""
    of_cells = []
    for cell in cells:
        with np.load(folder / cell.name / ANSWERS) as held:
            scores, gold = held[split], held[f"{split}_gold"]
        of_cells.append(draw({"pearson": pearson(scores, gold), "spearman": spearman(scores, gold)}, len(gold)))
    return {name: np.mean([found[name] for found in of_cells], axis=0) for name in ("pearson", "spearman")}
