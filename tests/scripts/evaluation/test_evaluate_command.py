import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.console import REFUSALS, BadInput
from scripts.evaluation.results import Results
from scripts.evaluation.tables import HEADINGS
from tests import command
from tests.scripts.evaluation.tiny_sets import write_sets
from tests.tiny import write_student

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = write_sets(tmp_path_factory.mktemp("evaluate"))
    write_student(home / "other", seed=7, name="other-student")
    return home


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DSE_THREADS", "1")
    monkeypatch.delenv("DSE_DATA", raising=False)


dse = partial(command.dse, "evaluate")


def listed(home: Path) -> tuple[object, ...]:
    return ("--data", home, "--sets", home / "sets.toml")


def test_all_sets_and_models_in_one_run(
    home: Path, student_bundle: Path, teacher_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dse", "evaluate", "--bundle", "my student"])
    models = ("--bundle", student_bundle, "--bundle", home / "other", "--teacher", teacher_bundle)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "results.md"
    files = ("-o", tmp_path / "results.json", "--plot", tmp_path / "plot.svg", "--page", page)
    table = dse(*listed(home), *models, *files)
    found = Results.read(tmp_path / "results.json")
    lines = page.read_text().splitlines()
    assert "![quality against speed](../plot.svg)" in lines
    assert sum(line.startswith("| ---") for line in lines) == 5  # three kinds of set, agreement, speed
    assert "$ dse evaluate --bundle 'my student'" in lines
    first = next(row for row in found.rows if row.set == "words/test")
    line = next(line for line in lines if line.startswith("| words/test | tiny-student | score | "))
    assert f"{first.figures['spearman'].value:.2f} [" in line
    assert "- letters/test: made in a test" in lines
    assert found.baseline == "tiny-student"
    assert [(one.name, one.kind) for one in found.models] == [
        ("tiny-student", "bundle"), ("other-student", "bundle"), ("tiny-teacher", "teacher"),
    ]  # fmt: skip
    answers = {(row.set, row.model, row.by) for row in found.rows}
    students = [(model, by) for model in ("tiny-student", "other-student") for by in ("score", "similarity")]
    pairs = [(name, *who) for name in ("words/test", "anagrams/dev") for who in [*students, ("tiny-teacher", "score")]]
    assert answers == {*pairs, *(("letters/test", *who) for who in students)}
    assert {one.teacher for one in found.agreement} == {"tiny-teacher"}
    assert len(found.agreement) == 8
    assert found.speed is not None
    assert [(pace.model, pace.unit) for pace in found.speed.paces] == [
        ("tiny-student", "sentence"), ("other-student", "sentence"), ("tokenising alone", "sentence"),
        ("tiny-student", "pair"), ("other-student", "pair"), ("tiny-teacher", "pair"),
    ]  # fmt: skip
    assert "letters/test: made in a test" in table
    for text in ("words/test", "nDCG@10", "AP over tiny-student", "tokenising alone", "Kendall", "letters/test"):
        assert text in table
    assert len(ElementTree.parse(tmp_path / "plot.svg").findall("{*}circle")) == 3


def test_the_same_answers_whatever_the_format(home: Path, student_bundle: Path, tmp_path: Path) -> None:
    options = (*listed(home), "--bundle", student_bundle, "--only", "words")
    printed = json.loads(dse(*options, "-o", tmp_path / "results.json", "--json"))
    assert printed == json.loads((tmp_path / "results.json").read_text())
    (row, _) = printed["rows"]
    assert f"{row['figures']['spearman']['value']:.2f}" in dse(*options)


def test_one_file_needs_no_list(home: Path, student_bundle: Path) -> None:
    found = json.loads(dse(home / "words/test.tsv.gz", "--bundle", student_bundle, "--json"))
    assert [(row["kind"], row["by"]) for row in found["rows"]] == [("sts", "score"), ("sts", "similarity")]
    found = json.loads(dse(home / "anagrams/dev.tsv", "--kind", "classification", "--bundle", student_bundle, "--json"))
    assert set(found["rows"][0]["figures"]) == set(HEADINGS["classification"])
    found = json.loads(dse(home / "letters", "--kind", "retrieval", "--bundle", student_bundle, "--json"))
    assert set(found["rows"][0]["figures"]) == set(HEADINGS["retrieval"])


def test_prefixes_are_rows_of_their_own(home: Path, tmp_path: Path) -> None:
    bundle = write_student(tmp_path / "student", matryoshka=[8])
    said = dse(*listed(home), "--bundle", bundle, "--prefixes")
    assert said.count("similarity@8") >= 3  # a row in the table of each kind of set
    assert "similarity@" not in dse(*listed(home), "--bundle", bundle)


def test_the_guard_decides_the_exit_code(home: Path, student_bundle: Path, tmp_path: Path) -> None:
    dse(*listed(home), "--bundle", student_bundle, "-o", tmp_path / "then.json")
    options = (*listed(home), "--with-results", tmp_path / "then.json", "--bundle", home / "other")
    held = dse(*options, "--guard", "tiny-student", "--margin", 200)
    assert "other-student" in held
    said = dse(*options, "--guard", "other-student", "--margin", 0, "-o", tmp_path / "now.json", exit_code=1)
    assert "answers on guarded sets are not within 0 points of other-student" in said
    told = Results.read(tmp_path / "now.json")
    assert {row.model for row in told.rows} == {"tiny-student", "other-student"}
    assert told.guard is not None
    assert (told.guard.baseline, told.guard.margin) == ("other-student", 0.0)
    assert {behind.model for behind in told.guard.behind} == {"tiny-student"}


def test_two_models_of_one_name_are_told_apart(home: Path, student_bundle: Path, tmp_path: Path) -> None:
    write_student(tmp_path / "again", seed=1)
    bundles = ("--bundle", student_bundle, "--bundle", tmp_path / "again")
    found = json.loads(dse(*listed(home), *bundles, "--only", "words", "--json"))
    assert [model["name"] for model in found["models"]] == [
        f"tiny-student ({student_bundle})",
        f"tiny-student ({tmp_path / 'again'})",
    ]
    assert found["rows"][2]["over_baseline"]["spearman"]["value"] == 0


def test_a_model_that_is_given_twice_and_one_of_earlier_results_have_names_of_their_own(
    home: Path, student_bundle: Path, tmp_path: Path
) -> None:
    twice = [*listed(home), *["--bundle", student_bundle] * 2, "--only", "words"]
    dse(*twice, "-o", tmp_path / "then.json")
    found = json.loads(dse(*twice, "--with-results", tmp_path / "then.json", "--json"))
    names = [model["name"] for model in found["models"]]
    assert len(set(names)) == len(names) == 4
    assert f"tiny-student ({student_bundle}) 2" in names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "HOME"], "give a model: --folder, --bundle"),
        (["--bundle", "STUDENT"], r"give one file of pairs, or --data \(DSE_DATA\)"),
        (["LISTED", "--bundle", "STUDENT", "--only", "nothing"], "--only nothing: there is no such set"),
        (["FILE", "--bundle", "STUDENT", "--only", "words"], "--only and --sets are for the listed sets"),
        (["LISTED", "--bundle", "STUDENT", "--kind", "sts"], "--kind sts: it says what the one file is"),
        (["LISTED", "--bundle", "STUDENT", "--prefixes"], "--prefixes: no --bundle here allows its embeddings to be"),
        (["LISTED", "--teacher", "TEACHER", "--prefixes"], "--prefixes: no --bundle here allows its embeddings to be"),
        (["LISTED", "--bundle", "STUDENT", "--guard", "nobody"], r"there is no such model \(there are tiny-student\)"),
        (["LISTED", "--bundle", "STUDENT", "--guard", "tiny-student"], "it needs another model"),
        (["LISTED", "--bundle", "STUDENT", "--guard", "tiny-student", "--only", "words"], "it needs a guarded set"),
        (["LISTED", "--bundle", "STUDENT", "--only", "letters", "--speed"], "need a set of pairs among"),
        (["LISTED", "--bundle", "STUDENT", "-o", "nowhere/results.json"], "cannot be written"),
        (["LISTED", "--bundle", "nowhere"], "nowhere is not a bundle"),
        (["--data", "HOME", "--bundle", "STUDENT"], r"lacks 2[0-9] of 28 sets"),
        (["LISTED", "--bundle", "STUDENT", "--with-results", "nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(
    home: Path, student_bundle: Path, teacher_bundle: Path, arguments: list[str], message: str
) -> None:
    places = {"HOME": [home], "STUDENT": [student_bundle], "LISTED": listed(home), "FILE": [home / "words/test.tsv.gz"]}
    places["TEACHER"] = [teacher_bundle]
    with pytest.raises(REFUSALS, match=message):
        dse(*(part for argument in arguments for part in places.get(argument, [argument])))


def test_what_needs_the_training_extra_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadInput, match=r"pip install '\.\[train\]'"):
        dse(*listed(home), "--folder", "anything")


def test_measuring_a_bundle_never_loads_torch(home: Path, student_bundle: Path) -> None:
    program = f"""
import sys
from scripts.dse import app
app({["evaluate", *map(str, listed(home)), "--bundle", str(student_bundle), "--json"]!r}, standalone_mode=False)
print(sorted({{"torch", "transformers", "scipy"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_where_the_training_code_is_left_out_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.evaluate_command.find_spec", lambda _: None)
    with pytest.raises(BadInput, match="leaves out model/training"):
        dse("pairs.tsv", "--bundle", "anything")


def test_every_field_of_the_document_is_described() -> None:
    described = (ROOT / "docs/evaluation.md").read_text()
    for name in Results.__dataclass_fields__:
        assert f"`{name}`" in described, name
    for figures in HEADINGS.values():
        for name in figures:
            assert f"`{name}`" in described, name
