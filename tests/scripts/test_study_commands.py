"""dse study: cells that ran are only read, others go on, and what is told of them is what they found."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from scripts.console import BadInput, check_place
from scripts.evaluation.bootstrap import Estimate
from scripts.studies.cells import RESULT, Cell, run_cells
from scripts.studies.cost import cells, summary, table
from scripts.study_options import KINDS, Kind
from tests.command import dse

CELLS = [Cell(name, {"number": number}) for number, name in enumerate("abc")]


def test_a_study_that_stops_goes_on_where_it_was(tmp_path: Path) -> None:
    ran: list[str] = []

    def measure(cell: Cell, folder: Path) -> dict[str, int]:
        assert folder.is_dir()
        ran.append(cell.name)
        if ran == ["a", "b"]:
            raise KeyboardInterrupt
        return {"twice": 2 * cell.facts["number"]}

    with pytest.raises(KeyboardInterrupt):
        run_cells(CELLS, tmp_path, measure, None, lambda *_: None)
    assert not (tmp_path / "b" / RESULT).exists()
    assert run_cells(CELLS, tmp_path, measure, 0, lambda *_: None) == {"a": {"twice": 0}}
    seen: list[tuple[str, int, int]] = []
    found = run_cells(CELLS, tmp_path, measure, None, lambda *told: seen.append(told))
    assert found == {"a": {"twice": 0}, "b": {"twice": 2}, "c": {"twice": 4}}
    assert ran == ["a", "b", "b", "c"]
    assert seen[-1] == ("done", 3, 3)
    with pytest.raises(BadInput, match="of another study"):
        run_cells([Cell("a", {"number": 9})], tmp_path, measure, None, lambda *_: None)


def test_what_is_told_of_costs_is_what_was_found() -> None:
    costs = {"softmax": [10.0, 20.0, 40.0, 80.0], "elu": [12.0, 20.0, 22.0, 18.0]}
    lengths = [128, 512, 1024, 2048]
    found = {
        f"{kind}-{n}": {"microseconds_per_token": cost, "mib_beside_weights": 7.4}
        for kind, of_kind in costs.items()
        for n, cost in zip(lengths, of_kind, strict=True)
    }
    assert [cell.name for cell in cells(["elu"], [16, 32], 1, "w")] == ["elu-16", "elu-32"]
    told = summary(found, ["softmax", "elu"], lengths)
    assert told["elu"] == {"spread": 10.0, "faster_from": 1024}  # as fast at 512 is not faster
    assert told["softmax"]["spread"] == 71.4
    del found["elu-2048"]
    columns, rows = table(found, ["softmax", "elu"], lengths)
    assert columns == ["tokens", "softmax, CPU µs/token", "softmax, MiB", "elu, CPU µs/token", "elu, MiB"]
    assert rows[-1] == ["2048", "80.0", "7", "", ""]


def test_costs_are_measured_from_weights_to_table(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.model.training.tiny_training import write_pretrained

    init = write_pretrained(tmp_path / "bert")
    options = ["--init", init, "-o", tmp_path / "study", "--tokens", "8", "--attention", "relu", "--seconds", "0"]
    options += ["--threads", "1", "--page", tmp_path / "docs" / "cost.md"]
    report = json.loads(dse("study", "cost", *options, "--json"))
    assert set(report["cells"]) == {"relu-8"}
    assert report["cells"]["relu-8"]["milliseconds"] > 0
    assert json.loads((tmp_path / "study" / "cost.json").read_text()) == report
    figure = f"{report['cells']['relu-8']['microseconds_per_token']:.1f}"
    assert f"| 8 | {figure} | " in (tmp_path / "docs" / "cost.md").read_text()
    assert (tmp_path / "docs" / "cost-time.svg").exists()
    again = json.loads(dse("study", "cost", *options[2:], "--init", tmp_path / "docs" / ".." / "bert", "--json"))
    assert again == report  # however the folder is named
    with (init / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BadInput, match="is of another study"):
        dse("study", "cost", *options)


def test_a_study_of_costs_that_begins_no_cell_tells_of_none(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.model.training.tiny_training import write_pretrained

    init = write_pretrained(tmp_path / "bert")
    assert "4 of 4 cells are left" in dse(
        "study", "cost", "--init", init, "-o", tmp_path / "study", "--tokens", "8", "--minutes", "0"
    )


@pytest.mark.parametrize("study", ["cost", "depth", "length"])
def test_a_page_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, study: str) -> None:
    pytest.importorskip("torch")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    data = [] if study == "cost" else ["--data", tmp_path]
    for page in (tmp_path / "file" / "page.md", tmp_path / "folder"):
        with pytest.raises(BadInput, match="cannot be written"):
            dse("study", study, *data, "--init", tmp_path, "-o", tmp_path / "study", "--page", page)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    page = tmp_path / "folder" / "page.md"
    page.write_text("of before")
    check_place(page)
    assert page.read_text() == "of before"
    assert len(list(page.parent.iterdir())) == 1


@pytest.mark.parametrize("plain", [["softmax", "elu", "hedgehog"], ["softmax"]])
def test_the_second_picture_shows_all_mixtures_in_the_order_of_the_first(plain: list[Kind]) -> None:
    """Whether or not there is a student with the map in all its layers; colours go by the order."""
    pytest.importorskip("torch")
    from scripts.studies import depth_report
    from scripts.studies.depth import Student

    nothing = Estimate(80.0, 79.0, 81.0)
    students = [Student("dse", kind, 2, 2) for kind in plain] + [Student("dse", "hedgehog", 2, 1)]
    found = [depth_report.Row(student, 1, nothing, nothing, nothing, None) for student in students]
    pictures = depth_report.pictures(found)
    shown = [re.findall("|".join(KINDS), pictures[f"depth-{name}.svg"][1]) for name in ("layers", "top")]
    assert list(dict.fromkeys(shown[0])) == plain
    assert list(dict.fromkeys(shown[1])) == list(dict.fromkeys([*plain, "hedgehog"]))


def test_a_study_of_depth_trains_judges_and_tells(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.model.training import tiny_training

    init = tiny_training.write_pretrained(tmp_path / "bert")
    (tmp_path / "pairs").mkdir()
    tiny_training.write_pairs(tmp_path / "pairs")
    common = {"epochs": 1, "batch": 32, "text_batch": 32, "learning_rate": 1e-3}
    stages = [
        common | {"name": "maps", "texts": ["train"], "maps_only": True},
        common | {"name": "texts", "texts": ["train"], "regression": 1.0},
        common | {"name": "pairs", "sets": ["train"], "texts": ["train"], "regression": 1.0},
    ]
    network = tiny_training.network("bi-encoder", attention="hedgehog", head={"kind": "cosine"}) | {"stages": stages}
    recipe = {"data": tiny_training.DATA, "network": network, "export": tiny_training.EXPORT}
    tiny_training.write_toml(tmp_path / "depth.toml", recipe)
    options: list[object] = ["--data", tmp_path / "pairs", "--init", init, "-o", tmp_path / "study"]
    options += ["--recipe", tmp_path / "depth.toml", "--layers", 1, "--layers", 2, "--style", "minilm"]
    options += ["--attention", "softmax", "--attention", "hedgehog", "--seed", 5, "--page", tmp_path / "page.md"]
    page = dse("study", "depth", *options)
    names = ["dse-softmax-1", "dse-hedgehog-1", "dse-softmax-2", "dse-hedgehog-2", "dse-hedgehog-2-top1"]
    names += ["minilm-softmax-1", "minilm-softmax-2"]
    report = json.loads((tmp_path / "study" / "depth.json").read_text())
    assert set(report["cells"]) == {f"{name}-seed5" for name in names}
    assert set(report["correlations"]) == {"dse-softmax", "dse-hedgehog", "minilm-softmax"}
    figures = [report["cells"][f"dse-softmax-{layers}-seed5"]["test"]["spearman"] for layers in (1, 2)]
    told = report["correlations"]["dse-softmax"]
    assert told["students"] == 2
    assert told["value"] == (1.0 if figures[0] < figures[1] else -1.0)  # two students lie on a line
    assert {told["low"], told["high"]} <= {-1.0, 1.0}
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["depth-layers.svg", "depth-top.svg"]
    assert "](depth-layers.svg)" in page
    kinds = {
        name: json.loads((tmp_path / "study" / f"{name}-seed5" / "run" / "config.json").read_text())["attention_kinds"]
        for name in names
    }
    assert kinds["dse-hedgehog-2-top1"] == ["softmax", "hedgehog"]
    assert kinds["dse-hedgehog-1"] == ["hedgehog"]
    assert kinds["minilm-softmax-2"] == ["softmax", "softmax"]
    lines = [line for line in page.splitlines() if line.startswith(("| dse", "| minilm"))]
    assert len(lines) == 7
    (reference,) = [line for line in lines if line.startswith("| dse, softmax | 2 |")]
    assert "| 0.00 [0.0, 0.0] |" in reference
    (beside,) = [line for line in page.splitlines() if line.startswith("| hedgehog | 1 |")]
    above = [float(cell.split("[")[0]) for cell in beside.split("|")[3:5]]
    own, *others = (
        report["cells"][f"{name}-1-seed5"]["test"]["spearman"]
        for name in ("dse-hedgehog", "dse-softmax", "minilm-softmax")
    )
    assert above == pytest.approx([own - other for other in others], abs=0.0051)
    assert (tmp_path / "page.md").read_text() + "\n" == page
    again = dse("study", "depth", *options)  # everything is only read
    assert again == page


def test_what_a_student_of_depth_took_before_it_was_stopped_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step takes a minute; the fourth is stopped, and all five are taken again."""
    pytest.importorskip("torch")
    from scripts.studies import depth
    from tests.model.training import tiny_training

    (tmp_path / "pairs").mkdir()
    (tmp_path / "cell").mkdir()
    data = tiny_training.training_data(tiny_training.write_pairs(tmp_path / "pairs"))
    init = tiny_training.write_pretrained(tmp_path / "bert")
    recipe = tiny_training.student_recipe(head={"kind": "cosine"}, stage={"epochs": 1, "batch": 32}).network
    minutes: list[int] = []
    monkeypatch.setattr(depth.time, "process_time", lambda: 60.0 * len(minutes))

    def progress(stage: str, done: int, total: int) -> None:
        minutes.append(done)
        if minutes == [1, 2, 3, 4]:
            raise KeyboardInterrupt

    def run() -> dict[str, Any]:
        return depth.train_and_judge(recipe, data, str(init), tmp_path / "cell", tmp_path / "parent", progress)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert run()["train_cpu_seconds"] == 60 * (3 + 5)
    assert run()["train_cpu_seconds"] == 60 * (3 + 5)  # it is only judged


@pytest.mark.parametrize("changed", ["recipe", "style", "weights", "data"])
def test_a_cell_of_depth_tells_what_it_is_trained_by_and_judged_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    pytest.importorskip("torch")
    from model.training.imitation_recipe import ImitationRecipe
    from scripts.studies import depth
    from tests.model.training import tiny_training

    pairs = tiny_training.write_pairs(tmp_path)
    recipe = tiny_training.student_recipe(
        stages=[
            {
                "name": "texts",
                "texts": ["train"],
                "text_batch": 4,
                "regression": 1.0,
                "epochs": 1,
                "batch": 4,
                "learning_rate": 1e-3,
            }
        ],
        head={"kind": "cosine"},
    )
    student, network, weights = depth.Student("minilm", "softmax", 1, 1), recipe.network, "weights"

    def run() -> None:
        trained, read = depth.recipe_of(network, student, 1, 2), depth.data_of(network, recipe.data, pairs)
        cells = [student.cell(trained, weights, read)]
        run_cells(cells, tmp_path / "study", lambda *_: {}, None, lambda *_: None)

    run()
    network = network.model_copy(update={"init": "the same weights elsewhere"})
    run()
    if changed == "recipe":
        network = network.model_copy(update={"distillation": 0.25})
    elif changed == "style":
        monkeypatch.setitem(depth.STYLES, "minilm", ImitationRecipe(weights={"last-attention": 1.0}))
    elif changed == "weights":
        weights = "others"
    else:
        with (pairs / "test.tsv").open("a") as file:
            file.write("one\tmore\t1\n")
    with pytest.raises(BadInput, match="of another study"):
        run()


def test_what_was_begun_as_another_cell_is_not_gone_on_with(tmp_path: Path) -> None:
    def stopped(cell: Cell, folder: Path) -> dict[str, int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(CELLS, tmp_path, stopped, None, lambda *_: None)
    with pytest.raises(BadInput, match=r"cell\.json is of another study"):
        run_cells([Cell("a", {"number": 9})], tmp_path, stopped, None, lambda *_: None)


def test_an_attention_that_there_is_not_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(BadInput, match="cosine: not one of softmax, elu, relu, hedgehog"):
        dse("study", "cost", "--init", tmp_path, "-o", tmp_path, "--attention", "elu", "--attention", "cosine")
