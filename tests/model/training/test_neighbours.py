"""Which pairs a task's teacher is asked about besides its own."""

from pathlib import Path

import numpy as np
import pytest

from model.faults import TrainingFault
from model.training.data_recipe import SILVER_PAIRS, DataRecipe
from model.training.neighbours import write_neighbours
from model.training.pairs import TrainingData, read_pairs, silver_sources
from model.training.recipes import NeighbourRecipe

QUESTIONS = ["q0", "q1", "q2", "q3"]
ANSWERS = ["a0", "a1", "a2", "a3"]


def embed(texts) -> np.ndarray:
    """Texts of one number are equal; the nearer two numbers, the more alike, and small ones more than great ones."""
    angles = np.square([int(text[1:]) for text in texts]) / 10
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def neighbours(folder: Path, rows: list[tuple[str, str]], held_out: str = "z9", **facts) -> list[tuple[str, str]]:
    for name, content in (("train", rows), ("dev", [(held_out, "y8")])):
        lines = ["sentence1\tsentence2\tscore", *(f"{left}\t{right}\t1" for left, right in content)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    sets = {name: {"file": f"{name}.tsv", "range": [0, 1], "terms": "CC0"} for name in ("train", "dev")}
    data = {"sets": {"train": sets["train"]}, "dev": sets["dev"], "test": sets["dev"], "held_out": []}
    output = folder / "neighbours.tsv.gz"
    recipe = NeighbourRecipe(sets=["train"], **facts)
    write_neighbours(recipe, TrainingData(folder, DataRecipe.model_validate(data)), embed, output)
    assert silver_sources(output)[1:] == ["`train.tsv`: CC0"]
    found = read_pairs(folder, SILVER_PAIRS.model_copy(update={"file": output.name}))
    return [(pair.left, pair.right) for pair in found]


def test_each_left_text_meets_the_nearest_right_ones_but_its_own(tmp_path: Path) -> None:
    rows = list(zip(QUESTIONS, ANSWERS, strict=True))
    assert neighbours(tmp_path, rows, nearest=1) == [("q0", "a1"), ("q1", "a0"), ("q2", "a1"), ("q3", "a2")]
    every = neighbours(tmp_path, rows, nearest=9)
    assert len(every) == len(set(every)) == 12
    assert not set(every) & set(rows)


def test_a_pair_is_asked_about_once_whatever_its_order_and_never_with_itself(tmp_path: Path) -> None:
    assert neighbours(tmp_path, [("x0", "x1"), ("x1", "x2")], nearest=9) == [("x0", "x2")]
    assert neighbours(tmp_path, [("x1", "y2"), ("y2", "x3"), ("z3", "x1")], nearest=9) == [
        ("x1", "x3"),
        ("z3", "x3"),
        ("z3", "y2"),
    ]


def test_a_held_out_text_is_nobodys_neighbour(tmp_path: Path) -> None:
    rows = list(zip(QUESTIONS, ANSWERS, strict=True))
    every = neighbours(tmp_path, rows, held_out="A3.", nearest=9)
    assert len(every) == 6
    assert not {text for pair in every for text in pair} & {"a3", "q3"}


def test_a_limit_takes_some_of_all(tmp_path: Path) -> None:
    rows = list(zip(QUESTIONS, ANSWERS, strict=True))
    some = neighbours(tmp_path, rows, nearest=9, limit=4)
    assert {left for left, _ in some} == set(QUESTIONS)


def test_without_neighbours_a_larger_set_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match="no neighbours among the pairs of train"):
        neighbours(tmp_path, [("q0", "a0")], nearest=1)
