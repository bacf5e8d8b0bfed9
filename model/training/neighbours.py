"""Which further pairs may a task's teacher label? Left texts with right ones that resemble them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from model.faults import TrainingFault
from model.spaced import spaced
from model.training.pairs import TrainingData, normalised
from model.training.recipes import NeighbourRecipe
from model.training.silver import write_silver

SPARE = 8
"""Neighbours looked up beyond those wanted: some are pairs of the sets already."""

Found = tuple[str, str, float]
"""A left text, a right one, and their cosine."""


def write_neighbours(
    recipe: NeighbourRecipe,
    data: TrainingData,
    embed: Callable[[Sequence[str]], NDArray[np.floating]],
    output: Path,
) -> None:
    """Write each left text of the recipe's sets with the right texts nearest to it, as a pair file.

    A question meets the answers to others of its kind, a premise other premises' hypotheses. Pairs of the sets
    themselves, and a text with itself, are left out. The score in the file is the cosine.

    Args:
        recipe: whose texts, and how many neighbours of each.
        data: gives the pairs, without held-out sentences.
        embed: (texts, dim) unit embeddings.
        output: a ``.tsv.gz`` file, replaced when it is whole.

    Raises:
        TrainingFault: there are no such pairs.
    """
    found = list(_neighbours(recipe, data, embed))
    if not found:
        raise TrainingFault(f"no neighbours among the pairs of {', '.join(recipe.sets)}; name larger sets")
    chosen = spaced(found, recipe.limit or len(found))
    cosines = np.array([cosine for *_, cosine in chosen])
    write_silver(output, [(left, right) for left, right, _ in chosen], cosines, data.described_by_name(recipe.sets))


def _neighbours(
    recipe: NeighbourRecipe, data: TrainingData, embed: Callable[[Sequence[str]], NDArray[np.floating]]
) -> Iterator[Found]:
    pairs = [pair for name in recipe.sets for pair in data.pairs(name)]
    known = {_ends(pair.left, pair.right) for pair in pairs}
    lefts, rights = _once(pair.left for pair in pairs), _once(pair.right for pair in pairs)
    queries, candidates = np.split(embed([*lefts, *rights]).astype(np.float32), [len(lefts)])
    index = faiss.IndexFlatIP(candidates.shape[1])
    index.add(candidates)
    cosines, rows = index.search(queries, min(recipe.nearest + SPARE, len(rights)))
    for left, near, values in zip(lefts, rows, cosines, strict=True):
        others = ((left, rights[row], float(value)) for row, value in zip(near, values, strict=True))
        new = (other for other in others if _is_new(_ends(*other[:2]), known))
        for other in islice(new, recipe.nearest):
            known.add(_ends(*other[:2]))
            yield other


def _ends(left: str, right: str) -> frozenset[str]:
    return frozenset((normalised(left), normalised(right)))


def _is_new(ends: frozenset[str], known: set[frozenset[str]]) -> bool:
    return len(ends) == 2 and ends not in known


def _once(texts: Iterable[str]) -> list[str]:
    return list({normalised(text): text for text in texts}.values())
