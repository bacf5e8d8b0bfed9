"""A task from its recipe to its figures, in miniature."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.faults import TrainingFault
from model.training.networks import load_network
from model.training.pairs import HeldOut, Pair, TrainingData
from model.training.recipes import TaskRecipe, read_recipe
from model.training.runs import weights_digest
from model.training.tasks import run_task, seconds_of_a_pass
from tests.model.training.tiny_training import bert, network, task_recipe, write_classes

RECIPES = Path(__file__).parents[3] / "scripts" / "recipes" / "tasks"
NAMES = ["mnli", "mrpc", "qnli", "qqp", "stsb"]
STAGE = network("bi-encoder")["stages"][0]


def tiny_task(kind: str, **student: Any) -> TaskRecipe:
    recipe = task_recipe(kind)
    recipe["student"] |= student
    return TaskRecipe.model_validate(recipe)


def quiet(part: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory, pair_files: Path) -> Path:
    return write_classes(pair_files, tmp_path_factory.mktemp("tasks"))


def test_a_task_with_classes_is_learnt_and_judged(tmp_path: Path, classes: Path, pretrained: Path) -> None:
    parts: list[str] = []
    recipe = tiny_task("classes")
    found = run_task(recipe, classes, str(pretrained), tmp_path, lambda part, done, total: parts.append(part))
    assert found["rows"] == {"dev": 60, "test": 61}
    assert found["teacher"]["pairs"] == {"gold": 160, "teacher_only": 0}
    assert found["student"]["pairs"] == {"gold": 160, "teacher_only": 160}
    assert found["teacher"]["test"]["accuracy"] > 60  # a word gives the class away; chance is 25
    assert set(found["student"]["test"]) == {"accuracy"}
    assert {"tiny teacher: one", "tiny teacher: label", "tiny student: one"} <= set(parts)
    assert "classes/test.tsv" in found["judged_on"]["test"]

    first = json.loads((tmp_path / "logits.jsonl").read_text().splitlines()[1])
    assert len(first["logit"]) == 4
    network, _ = load_network(tmp_path / "teacher")
    assert network.head is not None
    assert network.head.directed

    parts.clear()
    assert run_task(recipe, classes, str(pretrained), tmp_path, lambda *told: parts.append(told[0])) == found
    assert parts == []  # a finished task is only read

    other = shutil.copytree(classes, tmp_path / "other")
    lines = (other / "classes/test.tsv").read_text().splitlines()
    (other / "classes/test.tsv").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    assert run_task(recipe, other, str(pretrained), tmp_path, quiet)["rows"] == {"dev": 60, "test": 60}
    lines = (other / "classes/train.tsv").read_text().splitlines()
    (other / "classes/train.tsv").write_text("\n".join(lines[:31]) + "\n")
    with pytest.raises(TrainingFault, match=r"teacher holds another run \(its material differ\)"):
        run_task(recipe, other, str(pretrained), tmp_path, quiet)


def test_a_stopped_task_goes_on_where_it_was(tmp_path: Path, classes: Path, pretrained: Path) -> None:
    recipe = tiny_task("binary")
    seen: list[str] = []

    def stop(part: str, done: int, total: int) -> None:
        if part == "tiny student: one":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_task(recipe, classes, str(pretrained), tmp_path, stop)
    teacher = (tmp_path / "teacher/model.safetensors").stat().st_mtime_ns
    found = run_task(recipe, classes, str(pretrained), tmp_path, lambda part, *_: seen.append(part))
    assert (tmp_path / "teacher/model.safetensors").stat().st_mtime_ns == teacher
    assert set(seen) == {"tiny neighbours: guide", "tiny student: one"}
    assert set(found["student"]["test"]) == {"f1", "accuracy"}
    assert found["student"]["pairs"]["teacher_only"] == 40  # of the neighbours, as many as the recipe's limit

    other = tiny_task("binary", distillation=0.25)
    with pytest.raises(TrainingFault, match=r"student holds another run \(its recipe differ\)"):
        run_task(other, classes, str(pretrained), tmp_path, quiet)


def test_a_shallow_network_is_measured_beside_the_teacher(tmp_path: Path, classes: Path, pretrained: Path) -> None:
    found = run_task(tiny_task("regression"), classes, str(pretrained), tmp_path, quiet)
    shallow = found["shallow"]
    assert shallow["layers"] == {"shallow": 1, "teacher": 2}
    assert shallow["parameters"] < found["teacher"]["parameters"]
    assert shallow["seconds"].keys() == {"shallow", "teacher"}
    assert set(shallow["dev"]) == {"pearson", "spearman"}
    assert shallow["pairs"] == {"gold": 160, "teacher_only": 0}
    assert found["trained_on"] == ["`classes/train.tsv`: made in a test", "`texts.txt`: made in a test"]


def test_a_folder_stands_for_the_hub_ids_of_a_task_but_not_for_its_folders(
    tmp_path: Path, classes: Path, pretrained: Path
) -> None:
    """The teacher starts from a folder, the student from a hub id."""
    own = shutil.copytree(pretrained, tmp_path / "own")
    bert(seed=1).save_pretrained(own)
    recipe = task_recipe("classes")
    recipe["teacher"]["init"] = str(own)
    found = run_task(TaskRecipe.model_validate(recipe), classes, str(pretrained), tmp_path / "task", quiet)
    inits = [json.loads((tmp_path / f"task/{part}/run.json").read_text())["init"] for part in ("teacher", "student")]
    assert inits == [weights_digest(own), weights_digest(pretrained)]
    assert found["claim"]["init"] == weights_digest(own)


def test_a_shallow_network_starts_from_its_body_and_from_nothing_else() -> None:
    recipe = task_recipe("regression")
    recipe["shallow"]["network"]["init"] = "hub/id"
    with pytest.raises(ValueError, match="starts from its body, not from hub/id"):
        TaskRecipe.model_validate(recipe)


def test_a_pass_reads_every_pair_alone_on_one_thread() -> None:
    import torch

    read: list[tuple[str, int, int]] = []

    class Fake(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, pairs):
            read.append((self.name, len(pairs), torch.get_num_threads()))

    before = torch.get_num_threads()
    pairs = [Pair(str(n), "a", "b", 0.0) for n in range(3)]
    seconds = seconds_of_a_pass({name: Fake(name) for name in ("one", "two")}, pairs)  # type: ignore[dict-item]
    assert read == [("one", 1, 1), ("two", 1, 1)] * 3
    assert torch.get_num_threads() == before
    assert all(np.isfinite(taken) and taken >= 0 for taken in seconds.values())


@pytest.mark.parametrize(
    ("part", "facts", "message"),
    [
        ("teacher", {"kind": "bi-encoder"}, "a task's teacher is a cross-encoder"),
        ("teacher", {"distillation": 0.5}, "nothing teaches a task's teacher"),
        ("teacher", {"stages": [STAGE | {"sets": ["other"]}]}, "nothing teaches a task's teacher"),
        ("student", {"stages": [STAGE | {"sets": ["train", "silver"]}]}, "give both or neither"),
        ("student", {"head": {"outputs": 3}}, "answers 3 logits, but train asks for 4"),
        ("neighbours", {"sets": ["nowhere"]}, "neighbours of nowhere are asked for"),
        ("figure", "f1", "accuracy is the figure, not f1"),
        ("data", {"test": {"file": "x.tsv", "terms": "", "range": [0, 1]}}, "test asks for another"),
    ],
)
def test_a_task_that_cannot_be_run_is_refused(part: str, facts: Any, message: str) -> None:
    recipe = task_recipe("classes")
    recipe[part] = recipe.get(part, {}) | facts if isinstance(facts, dict) else facts
    with pytest.raises(ValueError, match=message):
        TaskRecipe.model_validate(recipe)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_recipes_read(name: str) -> None:
    assert {path.stem for path in RECIPES.glob("*.toml")} == set(NAMES)
    recipe = read_recipe(RECIPES / f"{name}.toml", TaskRecipe)
    assert recipe.student.distillation == 0.5
    assert recipe.student.head.directed == (name in ("mnli", "qnli"))


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_recipes_train_on_no_sentence_that_they_are_judged_on(data: Path, name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml", TaskRecipe)
    pairs = TrainingData(data, recipe.data)
    for split in (pairs.dev, pairs.test):
        assert len(split) > 300
        judged = HeldOut([])
        judged.add(split)
        for used in recipe.data.sets:
            assert len(pairs.pairs(used)) > 1000
            assert judged.without(pairs.pairs(used)) == pairs.pairs(used)
