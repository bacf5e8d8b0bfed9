"""dse tasks: from recipes to a page."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.console import BadInput
from scripts.task_table import markdown, read_results, relative_change
from tests.command import dse


def result(name: str, figure: str, teacher: float, student: float) -> dict[str, Any]:
    facts = {"parameters": 22_000_000, "seed": 20, "pairs": {"gold": 3359, "teacher_only": 1200}}
    judged = {
        part: facts | {split: {figure: value, "accuracy": 70.0} for split in ("dev", "test")}
        for part, value in (("teacher", teacher), ("student", student))
    }
    recipe = {"name": name, "figure": figure, "note": "A note.", "teacher": {"init": "some/model"}}
    splits = {"dev": "`d.tsv`: terms", "test": "`t.tsv`: terms"}
    return {
        "claim": {"recipe": recipe},
        "trained_on": ["`a.tsv`: free"],
        "judged_on": splits,
        "rows": {"dev": 408, "test": 1725},
    } | judged


def test_the_page_has_each_loss_and_their_mean() -> None:
    results = [result("MRPC", "f1", 80.0, 76.0), result("STS-B", "pearson", 50.0, 51.0)]
    assert [relative_change(found) for found in results] == pytest.approx([-5.0, 2.0])
    page = markdown(results).splitlines()
    (mrpc,) = [line for line in page if line.startswith("| MRPC")]
    assert mrpc == (
        "| MRPC | F1 | 80.00 | 76.00 | -5.0 % | accuracy 70.00 / 70.00 | 3,359 / 3,359 | 1,200 | 1,725 | 20 |"
    )
    assert any(line.startswith("| **mean of 2** |  |  |  | **-1.5 %** |") for line in page)
    assert any(line.startswith("| the paper's mean of 5 |  |  |  | -4.6 % |") for line in page)
    assert "- dev: 408 rows of `d.tsv`: terms; teacher / student: F1 80.00 / 76.00" in page
    assert {"## MRPC", "A note.", "- trained on `a.tsv`: free"} <= set(page)
    columns = {line.count("|") for line in page if line.startswith("|")}
    assert len(columns) == 1


def test_a_shallow_network_stands_beside_its_teacher() -> None:
    found = result("STS-B", "pearson", 90.0, 89.0)
    shallow = {"dev": {"pearson": 81.0}, "parameters": 16_500_000}
    seconds, layers = {"shallow": 5.0, "teacher": 8.0}, {"shallow": 3, "teacher": 6}
    page = markdown([found | {"shallow": shallow | {"seconds": seconds, "layers": layers}}])
    assert "| teacher | 6 | 22.0 M | 90.00 | 8.0 |" in page
    assert "| shallow | 3 | 16.5 M | 81.00 | 5.0 |" in page
    assert "keeps 90.0% of the teacher's figure, is 25% smaller, and 1.60 times as fast" in page


def test_a_folder_without_results_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no finished task; run dse tasks run"):
        read_results(tmp_path)
    (tmp_path / "mrpc").mkdir()
    (tmp_path / "mrpc/result.json").write_text('{"claim": {}}')
    with pytest.raises(BadInput, match=r"mrpc/result\.json is not a result of dse tasks run"):
        read_results(tmp_path)


def test_a_task_nobody_described_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(BadInput, match="no recipe for rte; it has mnli, mrpc, qnli, qqp, stsb"):
        dse("tasks", "run", "mrpc", "rte", "--data", tmp_path, "--output", tmp_path)


def test_a_recipe_becomes_a_page(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.model.training import tiny_training

    pretrained = tiny_training.write_pretrained(tmp_path / "bert")
    for folder in ("pairs", "data", "recipes"):
        (tmp_path / folder).mkdir()
    data = tiny_training.write_classes(tiny_training.write_pairs(tmp_path / "pairs"), tmp_path / "data")
    recipe = tiny_training.task_recipe("regression")
    recipe["name"] = "Tiny"
    tiny_training.write_toml(tmp_path / "recipes/tiny.toml", recipe)
    options = ("--data", data, "--init", pretrained, "--output", tmp_path / "runs", "--recipes", tmp_path / "recipes")
    answer = dse("tasks", "run", "tiny", *options)
    found = json.loads((tmp_path / "runs/tiny/result.json").read_text())
    assert f"{found['student']['dev']['pearson']:.2f}" in answer

    dse("tasks", "table", tmp_path / "runs", "--output", tmp_path / "tasks.md")
    page = (tmp_path / "tasks.md").read_text()
    assert f"| Tiny | Pearson | {found['teacher']['test']['pearson']:.2f} |" in page
    assert "## A shallow teacher, made as DistilBERT was" in page
    assert str(tmp_path) not in page
