import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model.bundle import Student
from scripts.console import BadInput, Refused
from scripts.dse import app
from tests.conftest import WORDS


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch, student_bundle: Path, teacher_bundle: Path) -> None:
    monkeypatch.setenv("DSE_BUNDLE", str(student_bundle))
    monkeypatch.setenv("DSE_TEACHER", str(teacher_bundle))
    monkeypatch.setenv("COLUMNS", "200")


def dse(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_search_one_off(words_index: Path) -> None:
    found = json.loads(dse("search", words_index, "listen", "-k", 3, "--json"))
    assert found["model"] == "tiny-student"
    assert len(found["hits"]) == 3
    table = dse("search", words_index, "listen", "-k", 3)
    assert all(hit["id"] in table and hit["text"] in table for hit in found["hits"])


def test_search_in_bulk_is_one_off_many_times(tmp_path: Path, words_index: Path) -> None:
    (tmp_path / "queries.txt").write_text("listen\n\nstone\n")
    dse("search", words_index, "--queries", tmp_path / "queries.txt", "-o", tmp_path / "hits.jsonl", "-k", 2)
    lines = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == ["listen", "stone"]
    for line in lines:
        alone = json.loads(dse("search", words_index, line["query"], "-k", 2, "--json"))["hits"]
        assert [hit["id"] for hit in line["hits"]] == [hit["id"] for hit in alone]
        assert [hit["score"] for hit in line["hits"]] == pytest.approx([hit["score"] for hit in alone])


def test_score_one_off_and_in_bulk(tmp_path: Path) -> None:
    alone = json.loads(dse("score", "listen", "stone", "--json"))
    (tmp_path / "pairs.tsv").write_text('sentence1\tsentence2\tnote\nlisten\tstone\tx\n"a\tb\ty\n')
    dse("score", tmp_path / "pairs.tsv", "-o", tmp_path / "scores.tsv")
    header, first, second = (tmp_path / "scores.tsv").read_text().splitlines()
    assert header.split("\t") == ["sentence1", "sentence2", "score", "similarity"]
    assert first.split("\t")[:2] == ["listen", "stone"]
    assert float(first.split("\t")[2]) == pytest.approx(alone["score"], abs=1e-5)
    assert second.startswith('"a\tb\t')
    assert f"score {alone['score']:.3f}" in dse("score", "listen", "stone")


def test_encode_writes_rows_in_order(tmp_path: Path, student: Student) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    dse("encode", tmp_path / "words.txt", "-o", tmp_path / "vectors.npy")
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), student.encoder.encode(WORDS), atol=1e-6)


def test_build_info_verify(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("key,body,kind\n1,listen,verb\n2,stone,noun\n")
    columns = ("--id-column", "key", "--text-column", "body")
    built = json.loads(
        dse("index", "build", tmp_path / "words.csv", "--output", tmp_path / "index", *columns, "--json")
    )
    assert (built["documents"], built["generation"], built["recipe"]) == (2, "000001", "Flat")
    assert json.loads(dse("index", "info", tmp_path / "index", "--json"))["files"] == built["files"]
    assert "000001" in dse("index", "info", tmp_path / "index")
    assert "is whole (2 documents)" in dse("index", "verify", tmp_path / "index")
    hit = json.loads(dse("search", tmp_path / "index", "stone", "--json", "-k", 2))["hits"]
    assert {h["id"]: h["metadata"] for h in hit} == {"1": {"kind": "verb"}, "2": {"kind": "noun"}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "INDEX"], "give either one query, or --queries"),
        (["search", "INDEX", "a", "--queries", "x", "-o", "y"], "give either one query"),
        (["search", "INDEX", "--queries", "x"], "give either one query"),
        (["search", "INDEX", "--queries", "nowhere.txt", "-o", "y"], "nowhere.txt"),
        (["search", "INDEX", " "], "the query is empty"),
        (["search", "nowhere", "a"], "nowhere is not an index"),
        (["search", "INDEX", "a", "--bundle", "nowhere"], "nowhere is not a bundle"),
        (["score", "one"], "give either two sentences"),
        (["score", "a", ""], "a sentence is empty"),
        (["score", "nowhere.tsv", "-o", "y"], "nowhere.tsv"),
        (["index", "build", "nowhere.txt", "--output", "NEW"], "nowhere.txt: No such file"),
        (["index", "info", "nowhere"], "nowhere is not an index"),
        (["evaluate", "pairs.tsv"], "give one of --bundle"),
    ],
)  # fmt: skip
def test_what_the_caller_can_mend_is_said_in_a_line(
    tmp_path: Path, words_index: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "evaluate":
        pytest.importorskip("torch")
    places = {"INDEX": str(words_index), "NEW": str(tmp_path / "new")}
    with pytest.raises(Refused, match=message):
        dse(*(places.get(argument, argument) for argument in arguments))
    assert not (tmp_path / "new").exists()


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "scripts.dse", "index", "info", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"dse: {tmp_path} is not an index")
    assert done.stderr.count("\n") == 1


def test_training_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadInput, match=r"pip install 'dse\[train\]'"):
        dse("teacher", "train", "recipe.toml", "--data", ".", "--output", "out")
