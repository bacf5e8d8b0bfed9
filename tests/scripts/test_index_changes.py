"""dse index add, delete, compact, rebuild and snapshot, as they are typed."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model.bundle import Student
from scripts.console import REFUSALS
from scripts.dse import app
from tests.command import dse
from tests.conftest import WORDS, build_index
from tests.tiny import write_student


@pytest.fixture
def folder(tmp_path: Path, student: Student, student_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSE_BUNDLE", str(student_bundle))
    monkeypatch.setenv("COLUMNS", "200")
    return build_index(tmp_path / "index", student, WORDS)


def hits(folder: Path, query: str, *more: object) -> dict[str, str]:
    found = json.loads(dse("search", folder, query, "-k", 20, "--json", *more))["hits"]
    return {hit["id"]: hit["text"] for hit in found}


def test_add_delete_compact(tmp_path: Path, folder: Path) -> None:
    lines = [{"id": "new", "text": "tonsil"}, {"id": "d0", "text": "replaced"}]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, lines)))
    added = json.loads(dse("index", "add", folder, tmp_path / "more.jsonl", "--json"))
    assert added == {
        "index": str(folder), "generation": "000001", "documents": 11, "changes_pending": 2, "created": 1, "updated": 1
    }  # fmt: skip
    assert hits(folder, "tonsil")["new"] == "tonsil"
    assert hits(folder, "tonsil")["d0"] == "replaced"

    (tmp_path / "ids.txt").write_text("d1\n\nnobody\n")
    deleted = json.loads(dse("index", "delete", folder, "--ids", tmp_path / "ids.txt", "--json"))
    assert (deleted["deleted"], deleted["unknown"], deleted["documents"]) == (1, 1, 10)
    assert "1 documents deleted, 0 ids unknown" in dse("index", "delete", folder, "d2")
    assert json.loads(dse("index", "info", folder, "--json"))["changes_pending"] == 4
    assert "generation 000001 is whole (10 documents), and so are the 4 changes since" in dse("index", "verify", folder)

    before = hits(folder, "listen")
    assert "000002, 9 documents, 0 changes pending" in dse("index", "compact", folder)
    assert hits(folder, "listen") == before
    assert not before.keys() & {"d1", "d2"}


def test_of_an_input_that_breaks_what_came_before_its_batch_is_in(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.index_commands.DOCUMENTS_PER_TRANSACTION", 2)
    lines = [json.dumps({"id": f"n{number}", "text": "tonsil"}) for number in range(3)]
    (tmp_path / "more.jsonl").write_text("\n".join([*lines, "{", *lines]))
    with pytest.raises(REFUSALS, match=r"more\.jsonl:4"):
        dse("index", "add", folder, tmp_path / "more.jsonl")
    assert {id_ for id_ in hits(folder, "tonsil") if id_.startswith("n")} == {"n0", "n1"}


def test_documents_come_through_a_pipe(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(json.dumps({"id": word, "text": word}) + "\n" for word in ("tonsil", "stone"))
    done = CliRunner().invoke(app, ["index", "build", "-", "--output", str(tmp_path / "piped")], input=lines)
    assert done.exit_code == 0, done.output
    assert set(hits(tmp_path / "piped", "tonsil")) == {"tonsil", "stone"}


def test_ids_are_read_as_they_stand(tmp_path: Path, folder: Path) -> None:
    lines = [{"id": " d0", "text": "one"}, {"id": "d0\t", "text": "two"}]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dse("index", "add", folder, tmp_path / "more.jsonl")
    (tmp_path / "ids.txt").write_text(" d0\r\nd0\t\n")
    assert "2 documents deleted, 0 ids unknown" in dse("index", "delete", folder, "--ids", tmp_path / "ids.txt")
    assert hits(folder, "listen").keys() & {" d0", "d0\t", "d0"} == {"d0"}


def test_rebuild_with_another_bundle(tmp_path: Path, folder: Path) -> None:
    dse("index", "delete", folder, "d0")
    other = write_student(tmp_path / "other", seed=9, name="other-student")
    before = hits(folder, "listen")
    rebuilt = json.loads(dse("index", "rebuild", folder, "--bundle", other, "--json"))
    assert rebuilt == {"index": str(folder), "generation": "000002", "documents": 9, "changes_pending": 0}
    assert hits(folder, "listen", "--bundle", other) == before
    with pytest.raises(REFUSALS, match="was built with encoder other-student"):
        dse("search", folder, "listen")


def test_an_index_moves_to_reading_long_texts_whole_and_back(tmp_path: Path, folder: Path) -> None:
    ends = {"one": f"{'ab ' * 40}tonsil", "other": f"{'ab ' * 40}google"}
    (tmp_path / "long.jsonl").write_text("\n".join(json.dumps({"id": id_, "text": ends[id_]}) for id_ in ends))
    chunk = ("--long-text", "chunk")
    dse("index", "add", folder, tmp_path / "long.jsonl")
    assert same(folder, ends) == {"one", "other"}
    with pytest.raises(REFUSALS, match="was built with --long-text truncate, not chunk"):
        dse("search", folder, "listen", *chunk)
    dse("index", "rebuild", folder, *chunk)
    assert re.search(r"long texts +chunk", dse("index", "info", folder))
    assert same(folder, ends, *chunk) == {"one"}
    with pytest.raises(REFUSALS, match="was built with --long-text chunk"):
        dse("index", "add", folder, tmp_path / "long.jsonl")
    dse("index", "add", folder, tmp_path / "long.jsonl", *chunk)
    dse("index", "compact", folder, *chunk)
    assert same(folder, ends, *chunk) == {"one"}
    dse("index", "rebuild", folder)
    assert same(folder, ends) == {"one", "other"}


def same(folder: Path, ends: dict[str, str], *options: str) -> set[str]:
    """The ids of what cannot be told from the first of the texts."""
    found = json.loads(dse("search", folder, ends["one"], "-k", 20, "--json", *options))
    return {hit["id"] for hit in found["hits"] if hit["similarity"] > 0.99999}


def test_snapshot(tmp_path: Path, folder: Path) -> None:
    dse("index", "delete", folder, "d0")
    dse("index", "snapshot", folder, tmp_path / "copy")
    dse("index", "delete", folder, "d1")
    assert len(hits(tmp_path / "copy", "listen")) == 9
    assert len(hits(folder, "listen")) == 8


def test_verify_names_an_altered_change(folder: Path) -> None:
    dse("index", "delete", folder, "d0")
    connection = sqlite3.connect(folder / "changes.sqlite")
    with connection:
        connection.execute("UPDATE changes SET id = 'd1'")
    connection.close()
    with pytest.raises(REFUSALS, match=r"changes\.sqlite is damaged: change 1 has been altered"):
        dse("index", "verify", folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["delete", "INDEX"], "give either ids or --ids FILE"),
        (["delete", "INDEX", "d0", "--ids", "x"], "give either ids or --ids FILE"),
        (["delete", "INDEX", "--ids", "nowhere"], "nowhere"),
        (["delete", "INDEX", "d0", "\udcff"], "an id holds half of a surrogate pair"),
        (["delete", "nowhere", "d0"], "nowhere is not an index"),
        (["add", "INDEX", "nowhere.txt"], "nowhere.txt: No such file"),
        (["add", "nowhere", "nowhere.txt"], "nowhere is not an index"),
        (["compact", "nowhere"], "nowhere is not an index"),
        (["rebuild", "nowhere"], "nowhere is not an index"),
        (["snapshot", "nowhere", "copy"], "nowhere is not an index"),
        (["snapshot", "INDEX", "INDEX"], "exists; give a name that is free"),
    ],
)
def test_what_the_caller_can_mend_is_said_in_a_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(REFUSALS, match=message):
        dse("index", *(str(folder) if argument == "INDEX" else argument for argument in arguments))
    assert sorted(tmp_path.iterdir()) == before
