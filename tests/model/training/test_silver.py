"""Which pairs are made for the teacher to score."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.bundle import load_student
from model.faults import TrainingFault
from model.training.data_recipe import SILVER_PAIRS
from model.training.pairs import TrainingData, normalised, read_pairs, silver_sources
from model.training.recipes import SilverRecipe
from model.training.silver import make_silver, matched
from tests import tiny
from tests.model.training.tiny_training import DATA, LEAK


def recipe(**facts) -> SilverRecipe:
    facts = {"name": "silver", "data": DATA, "sets": ["train"], "like": "train", "pairs": 100, "seed": 4} | facts
    return SilverRecipe.model_validate(facts)


@given(
    scores=st.lists(st.floats(0, 1), max_size=200),
    gold=st.lists(st.floats(0, 1), min_size=1, max_size=50),
    count=st.integers(1, 300),
)
def test_the_histogram_is_golds_where_there_are_enough(scores: list[float], gold: list[float], count: int) -> None:
    chosen = matched(np.array(scores), np.array(gold), count, seed=1)
    assert len(chosen) == len(set(chosen.tolist())) <= count

    def histogram(values) -> np.ndarray:
        return np.histogram([min(int(10 * value), 9) for value in values], bins=range(11))[0]

    wanted = (histogram(gold) * count / len(gold)).astype(int)
    held = histogram(scores)
    edge = any(abs(10 * value - round(10 * value)) < 1e-9 for value in [*scores, *gold])
    if not edge:  # on a bin's edge the two ways to count may differ
        np.testing.assert_array_equal(histogram([scores[row] for row in chosen]), np.minimum(held, wanted))


class Letters:
    """An encoder of letters, and how alike two sentences are by them."""

    def __init__(self, folder: Path) -> None:
        self._student = load_student(tiny.write_student(folder), threads=1)

    def encode(self, texts: list[str]) -> np.ndarray:
        return self._student.encoder.encode(texts)

    def scores(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return self._student.score(self._student.head.logits(left, right))


@pytest.fixture
def letters(tmp_path: Path) -> Letters:
    return Letters(tmp_path / "bundle")


def test_silver_pairs_are_new_neighbours_without_a_held_out_sentence(
    tmp_path: Path, pair_files: Path, letters: Letters
) -> None:
    data = TrainingData(pair_files, recipe().data)
    output = tmp_path / "made/silver.tsv.gz"
    count = make_silver(recipe(), data, letters, output, lambda *_: None)
    silver = read_pairs(output.parent, SILVER_PAIRS)
    assert len(silver) == count >= 20
    assert silver_sources(output)[1:] == [data.described_by_name(["train"])[0]]
    texts = {text for pair in silver for text in (pair.left, pair.right)}
    assert normalised(LEAK) not in {normalised(text) for text in texts}
    known = {frozenset((pair.left, pair.right)) for pair in data.pairs("train")}
    made = [frozenset((pair.left, pair.right)) for pair in silver]
    assert len(set(made)) == len(made)
    assert known.isdisjoint(made)
    assert min(len(ends) for ends in made) == 2
    left, right = (letters.encode([getattr(pair, side) for pair in silver]) for side in ("left", "right"))
    np.testing.assert_allclose([pair.gold for pair in silver], letters.scores(left, right), atol=1e-3)


def test_the_same_recipe_makes_the_same_file(tmp_path: Path, pair_files: Path, letters: Letters) -> None:
    data = TrainingData(pair_files, recipe().data)
    for name in ("one", "two"):
        make_silver(recipe(), data, letters, tmp_path / name, lambda *_: None)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    make_silver(recipe(seed=5), data, letters, tmp_path / "three", lambda *_: None)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "three").read_bytes()


def test_texts_are_neighbours_too_and_the_held_out_are_not(tmp_path: Path, pair_files: Path, letters: Letters) -> None:
    (tmp_path / "train.tsv").write_text((pair_files / "train.tsv").read_text())
    for name in ("dev.tsv", "test.tsv"):
        (tmp_path / name).write_text((pair_files / name).read_text())
    lines = ["seven windows by the river", LEAK, "seven windows by a green river", "", "it is that", "paper horses"]
    (tmp_path / "plain.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    data = DATA | {"texts": {"plain": {"file": "plain.txt.gz", "terms": "made in a test"}}}
    wanted = recipe(data=data, texts=["plain"], pairs=1000)
    make_silver(wanted, TrainingData(tmp_path, wanted.data), letters, tmp_path / "silver.tsv.gz", lambda *_: None)
    made = gzip.decompress((tmp_path / "silver.tsv.gz").read_bytes()).decode()
    assert lines[0] in made
    assert LEAK not in made


def test_a_set_without_rows_is_named(tmp_path: Path, letters: Letters) -> None:
    (tmp_path / "pairs").mkdir()
    for file in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / "pairs" / file).write_text("sentence1\tsentence2\tscore\n")
    wanted = recipe()
    data = TrainingData(tmp_path / "pairs", wanted.data)
    with pytest.raises(TrainingFault, match="have no rows"):
        make_silver(wanted, data, letters, tmp_path / "silver.tsv.gz", lambda *_: None)


def test_silver_that_was_not_given_says_how_to_make_it(pair_files: Path) -> None:
    with pytest.raises(TrainingFault, match="make them with dse silver, and give --silver"):
        TrainingData(pair_files, recipe().data).pairs("silver")


def test_unknown_sets_and_texts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'nowhere'.* are not sets of the data"):
        recipe(like="nowhere")
    with pytest.raises(ValueError, match=r"'nowhere'.* are not texts of the data"):
        recipe(texts=["nowhere"])


@pytest.mark.parametrize("gold", [{"unlabelled": True}, {"classes": ["no", "yes"]}])
def test_a_set_without_gold_between_0_and_1_is_not_followed(gold: dict) -> None:
    other = {"file": "train.tsv", "terms": "made in a test"} | gold
    with pytest.raises(ValueError, match=r"like: other has no gold in 0..1"):
        recipe(like="other", data=DATA | {"sets": DATA["sets"] | {"other": other}})


def test_texts_are_few_short_and_spread(tmp_path: Path, pair_files: Path) -> None:
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / name).write_text((pair_files / name).read_text())
    lines = [f"line number {number}" + " and more" * (number % 2) for number in range(40)]
    (tmp_path / "plain.txt").write_text("\n".join(lines))
    facts = {"file": "plain.txt", "terms": "made in a test"}
    texts = {
        "few": facts | {"limit": 4},
        "short": facts | {"max_words": 3},
        "both": facts | {"max_words": 3, "limit": 2},
    }
    given = TrainingData(tmp_path, recipe(data=DATA | {"texts": texts}).data)
    assert given.texts("few") == lines[::10]
    assert given.texts("short") == lines[::2]
    assert given.texts("both") == [lines[0], lines[20]]
