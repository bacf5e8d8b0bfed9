"""What is said of a model's training data, its own and that of the models it comes from."""

import json
import shutil
from pathlib import Path

import pytest

from model.faults import TrainingFault
from model.head import Calibration
from model.training.network_recipe import NetworkRecipe
from model.training.networks import Sources
from model.training.pairs import SOURCES, PairFileError, TrainingData
from model.training.provenance import learned_from, read_learned_from, restricted, write_learned_from
from model.training.quality import Correlation
from model.training.signal import Signal
from model.training.teacher import train_teacher
from tests.model.training.tiny_training import network, teacher_recipe, training_data
from tests.tiny import write_student

SIGNAL = Signal(
    "signal", (), Calibration(1.0, 0.0), Correlation(1.0, 1.0), 48, ("`signal.tsv`: CC0", "`both.tsv`: CC0")
)


def recipe(**facts: object) -> NetworkRecipe:
    return NetworkRecipe.model_validate(network("bi-encoder", **facts))


def own(data: TrainingData) -> list[str]:
    return data.described(recipe().stages)


def test_a_model_has_learned_from_what_its_teacher_its_start_and_its_guide_have(
    tmp_path: Path, pair_files: Path
) -> None:
    guide = write_student(tmp_path / "guide", trained_on=["`guide.tsv`: CC0", "`both.tsv`: CC0"])
    write_learned_from(tmp_path, ["`start.tsv`: no terms stated"])
    data = training_data(pair_files)
    found = learned_from(recipe(), data, SIGNAL, Sources(str(tmp_path), str(tmp_path), str(guide)))
    assert found == [
        *own(data), "`signal.tsv`: CC0", "`both.tsv`: CC0", "`start.tsv`: no terms stated", "`guide.tsv`: CC0",
    ]  # fmt: skip
    assert own(data)


def test_weights_that_others_made_have_their_own_card(tmp_path: Path, pair_files: Path) -> None:
    data = training_data(pair_files)
    for init in ("sentence-transformers/all-MiniLM-L6-v2", str(tmp_path)):
        assert learned_from(recipe(), data, None, Sources(init, init, init)) == own(data)


def test_what_stands_for_a_hub_id_has_learned_what_it_has(tmp_path: Path, pair_files: Path, pretrained: Path) -> None:
    """The same weights, given by --init or named by the recipe."""
    shutil.copytree(pretrained, tmp_path / "start")
    write_learned_from(tmp_path / "start", ["`start.tsv`: for research only"])
    data = training_data(pair_files)
    wanted = teacher_recipe()
    train_teacher(wanted, data, None, str(tmp_path / "start"), tmp_path / "teacher", lambda *_: None)
    for member in wanted.members:
        assert "`start.tsv`: for research only" in read_learned_from(tmp_path / "teacher" / member.name)


def test_a_run_that_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match="run the command that trained it again"):
        read_learned_from(tmp_path)


@pytest.mark.parametrize(
    ("terms", "bound"),
    [
        ("CC BY-SA 4.0", False),
        ("OANC free terms, some CC parts", False),
        ("CC BY-NC-SA 3.0", True),
        ("Non-commercial use only", True),
        ("noncommercial", True),
        ("none stated", True),
        ("academic use", True),
        ("mixed, MSR parts for Research only", True),
    ],
)
def test_terms_that_bind_are_told_by_their_words(terms: str, bound: bool) -> None:
    assert restricted([f"`research/none.tsv`: {terms}"]) == (["`research/none.tsv`"] if bound else [])


def test_silver_pairs_are_of_what_their_sentences_are_from(tmp_path: Path, pair_files: Path) -> None:
    silver = tmp_path / "some.tsv.gz"
    stages = recipe(stage={"sets": ["silver"]}).stages
    data = training_data(pair_files, silver)
    assert data.described(stages) == ["`some.tsv.gz`: where its sentences are from is not stated"]
    assert restricted(data.described(stages)) == ["`some.tsv.gz`"]
    beside = tmp_path / f"some.tsv.gz{SOURCES}"
    beside.write_text(json.dumps(["`news.txt`: CC BY"]))
    assert data.described(stages) == [
        "`some.tsv.gz`: neighbours among the sentences of other sets and texts",
        "`news.txt`: CC BY",
    ]
    beside.write_text("{")
    with pytest.raises(PairFileError, match="make the pairs again with dse silver"):
        data.described(stages)
