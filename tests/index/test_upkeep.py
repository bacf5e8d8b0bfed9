"""Rebuild and snapshot, while the index is changed."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from index.changes import CHANGES_FILE, ChangeLog
from index.generations import FILES
from index.live import LiveIndex
from index.manifest import IndexFault
from index.rebuild import rebuild
from index.snapshot import snapshot
from tests.index.journal import Journal
from tests.index.lettered import (
    HALVED,
    WORDS,
    build_letters,
    check_search,
    contents,
    document,
    embed_halves,
    open_live,
    upsert,
)


def test_a_rebuild_embeds_the_indexs_own_texts(folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel", "a": "google"})
        live.delete(["c"])
        expected = contents(live.view())
    told: list[tuple[int, int]] = []
    view = rebuild(folder, embed_halves, 13, HALVED, progress=lambda *step: told.append(step))
    assert (view.name, view.pending, told) == ("000002", 0, [(5, 5)])
    assert view.manifest.encoder == HALVED
    documents = view.documents(view.rows())
    assert [(found.id, found.text) for found in documents] == list(expected.items())
    np.testing.assert_array_equal(view.embeddings(view.rows()), embed_halves(list(expected.values())))
    with LiveIndex.open(folder, HALVED, writable=True) as live:
        live.upsert([document("g", "stone")], embed_halves(["stone"]))
        assert len(live.view()) == 6
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("changes", [1, 2, 50])
def test_what_is_changed_during_a_rebuild_is_embedded_too(folder: Path, changes: int) -> None:
    """A change arrives with every call of the encoder, so that some are only seen at the very last look."""
    made = 0
    with open_live(folder) as live:

        def encode(texts: list[str]) -> np.ndarray:
            nonlocal made
            if made < min(changes, 3):  # afterwards writers have to wait
                made += 1
                upsert(live, {"a": f"change{'x' * made}", f"new{made}": "onset"})
                live.delete([f"new{made - 1}"])
            return embed_halves(texts)

        view = rebuild(folder, encode, 13, HALVED)
        expected = {**{id_: WORDS[id_] for id_ in "bcde"}, "a": f"change{'x' * made}", f"new{made}": "onset"}
        assert {found.id: found.text for found in view.documents(view.rows())} == expected
        texts = [found.text for found in view.documents(view.rows())]
        np.testing.assert_array_equal(view.embeddings(view.rows()), embed_halves(texts))
        assert view.pending == 0
        assert contents(live.view()) == expected  # the old encoder's service goes on with what it knows
        with pytest.raises(IndexFault, match="built with encoder halved"):
            upsert(live, {"z": "z"})


def test_a_change_at_the_last_moment_of_a_rebuild_waits_or_is_embedded(folder: Path, monkeypatch) -> None:
    import index.rebuild as rebuild_module

    monkeypatch.setattr(rebuild_module, "ROUNDS", 1)
    with open_live(folder) as live:
        original = rebuild_module.fold

        def fold_and_change(*arguments):
            folded = original(*arguments)
            if len(live.view()) == 5:
                upsert(live, {"last": "moment"})
            return folded

        monkeypatch.setattr(rebuild_module, "fold", fold_and_change)
        view = rebuild(folder, embed_halves, 13, HALVED)
    found = view.get("last")
    assert found is not None
    assert (found.text, len(view), view.pending) == ("moment", 6, 0)


def test_a_failed_rebuild_leaves_the_index_as_it_was(folder: Path) -> None:
    def encode(texts: list[str]) -> np.ndarray:
        raise ArithmeticError("not finite")

    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
    with pytest.raises(ArithmeticError):
        rebuild(folder, encode, 13, HALVED)
    with open_live(folder) as live:
        assert contents(live.view()) == WORDS | {"f": "tinsel"}
    assert not list(folder.rglob("*.partial"))


def test_a_snapshot_is_an_index_of_its_own(tmp_path: Path, folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        assert snapshot(folder, tmp_path / "copy").through == 1
        live.delete(["f"])
        with open_live(tmp_path / "copy") as copy:
            assert contents(copy.view()) == WORDS | {"f": "tinsel"}
            upsert(copy, {"g": "google"})
            copy.compact()
        assert contents(live.view()) == WORDS
    with pytest.raises(IndexFault, match="copy exists"):
        snapshot(folder, tmp_path / "copy")
    with pytest.raises(IndexFault, match="is not an index"):
        snapshot(tmp_path / "nothing", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "index"]


def test_a_snapshot_is_durable_before_it_has_its_name(tmp_path: Path, folder: Path, monkeypatch) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
    journal = Journal(monkeypatch)
    snapshot(folder, tmp_path / "copy")
    *before, renamed, last = journal.steps
    copied = {f"fsync {path.name}" for path in (tmp_path / "copy").rglob("*")}
    assert set(before) == copied | {"fsync copy.partial"}
    assert {f"fsync {name}" for name in ("CURRENT", CHANGES_FILE, *FILES, "manifest.json")} < copied
    assert (renamed, last) == ("rename copy.partial", f"fsync {tmp_path.name}")


def test_an_index_compacted_between_the_parts_of_a_snapshot_is_copied_again(
    tmp_path: Path, folder: Path, monkeypatch
) -> None:
    copy = ChangeLog.copy
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})

        def compact_before_the_log_is_copied(log: ChangeLog, path: Path) -> None:
            monkeypatch.setattr(ChangeLog, "copy", copy)
            live.compact()
            copy(log, path)

        monkeypatch.setattr(ChangeLog, "copy", compact_before_the_log_is_copied)
        assert snapshot(folder, tmp_path / "copy").name == "000002"
    with open_live(tmp_path / "copy") as copied:
        assert contents(copied.view()) == WORDS | {"f": "tinsel"}
    assert [path.name for path in (tmp_path / "copy/generations").iterdir()] == ["000002"]


def test_an_index_built_and_changed_between_the_parts_of_a_snapshot_is_copied_again(
    tmp_path: Path, folder: Path, monkeypatch
) -> None:
    copytree = shutil.copytree

    def build_once_it_is_copied(*arguments):
        monkeypatch.setattr(shutil, "copytree", copytree)
        copytree(*arguments)
        build_letters(folder, {"n1": "onset", "n2": "notes"})
        with open_live(folder) as live:
            upsert(live, {"n3": "stone"})
            live.delete(["n1"])

    monkeypatch.setattr(shutil, "copytree", build_once_it_is_copied)
    assert snapshot(folder, tmp_path / "copy").name == "000002"
    with open_live(tmp_path / "copy") as copied:
        assert contents(copied.view()) == {"n2": "notes", "n3": "stone"}


def test_a_snapshot_of_a_replica_can_be_written(tmp_path: Path, folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        live.compact()
    (folder / CHANGES_FILE).unlink()
    snapshot(folder, tmp_path / "copy")
    with open_live(tmp_path / "copy") as copy:
        upsert(copy, {"g": "google"})
        assert copy.view().through == 2
        check_search(copy.view(), WORDS | {"f": "tinsel", "g": "google"}, "goggles", 3)


def test_a_damaged_index_has_no_snapshot(tmp_path: Path, folder: Path) -> None:
    path = folder / "generations/000001/embeddings.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IndexFault, match="has been altered"):
        snapshot(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_snapshots_while_another_process_changes_and_compacts(tmp_path: Path, folder: Path) -> None:
    """Pairs are written together, so a copy that is consistent has both or neither of each."""
    code = f"""
from pathlib import Path
from tests.index.lettered import open_live, upsert
with open_live(Path({str(folder)!r})) as live:
    for n in range(10_000):
        upsert(live, {{f"x{{n}}": "onset", f"y{{n}}": "onset"}})
        if n % 3 == 0:
            live.compact()
"""
    with subprocess.Popen([sys.executable, "-c", code]) as writer:
        try:
            while not (folder / CHANGES_FILE).exists():
                time.sleep(0.01)
            counts = []
            for n in range(8):
                view = snapshot(folder, tmp_path / f"copy{n}")
                ids = set(contents(view)) - WORDS.keys()
                assert {id_[1:] for id_ in ids if id_[0] == "x"} == {id_[1:] for id_ in ids if id_[0] == "y"}
                counts.append(len(ids))
                shutil.rmtree(tmp_path / f"copy{n}")
            assert counts == sorted(counts)
        finally:
            writer.kill()
    assert counts[-1] > counts[0]
