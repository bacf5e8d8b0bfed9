"""A log of changes that was altered, replaced or cut is refused, and nothing is lost."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index.changes import CHANGES_FILE, Change, ChangeLog, _digest, _row
from index.documents import Document
from index.manifest import IndexFault
from tests.index.lettered import WORDS, contents, open_live, upsert


def changed(folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel", "g": "google"})
        live.delete(["a"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE changes SET text = 'x' WHERE sequence = 2", "change 2 has been altered: its sha256 is"),
        ("UPDATE changes SET id = 'h' WHERE sequence = 3", "change 3 has been altered"),
        ("UPDATE changes SET metadata = '{}' WHERE sequence = 1", "change 1 has been altered"),
        ("UPDATE changes SET vector = zeroblob(104) WHERE sequence = 1", "change 1 has been altered"),
        ("UPDATE changes SET encoder = 'x' WHERE sequence = 1", "change 1 has been altered"),
        ("DELETE FROM changes WHERE sequence = 3", "should hold the changes 1 to 3, and has 2 rows"),
        ("DELETE FROM changes WHERE sequence = 2", "should hold the changes 1 to 3, and has 2 rows"),
        ("UPDATE log SET last = 4", "should hold the changes 1 to 4, and has 3 rows"),
        ("UPDATE log SET format = 2", r"its state is \[\(2, 0, 3\)\]"),
        ("DELETE FROM log", r"its state is \[\]"),
        ("DROP TABLE changes", "no such table"),
    ],
)
def test_an_altered_log_is_refused(folder: Path, damage: str, message: str) -> None:
    changed(folder)
    connection = sqlite3.connect(folder / CHANGES_FILE)
    with connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(IndexFault, match=message):
        open_live(folder)


def test_the_digest_of_a_change_is_what_earlier_versions_made_it() -> None:
    """A log that was written before an upgrade is read after it."""
    vector = np.array([1.0, -0.5], np.float32)
    *_, upserted = _row(7, Change("ü", Document("ü", "text", {"n": [1, None]}), vector), "e" * 64)
    *_, deleted = _row(8, Change("ü"), "e" * 64)
    assert upserted.hex() == "e0c13a7a5f0e0bd3c4709f1f14684b4e83120b1699870396cdf63a6f33bcbf0f"
    assert deleted.hex() == "ab5a1f6c016cfc561c3436554744d70f6a387f43fe1b3e9e531da6862245ec31"


@pytest.mark.parametrize(
    ("fields", "others"),
    [(("ab", "c"), ("a", "bc")), (("1:a", ""), ("", "1:a")), ((None,), ("",)), ((None, "-:"), ("-:", None))],
)
def test_fields_that_read_alike_one_after_the_other_have_different_digests(
    fields: tuple[str | None, ...], others: tuple[str | None, ...]
) -> None:
    assert _digest(fields) != _digest(others)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind " * 300])
def test_a_log_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    changed(folder)
    (folder / CHANGES_FILE).write_bytes(content)
    with pytest.raises(IndexFault, match=r"changes\.sqlite is damaged.*restore"):
        open_live(folder)


def test_a_truncated_log_is_refused(folder: Path) -> None:
    with open_live(folder) as live:
        for n in range(300):
            upsert(live, {f"n{n}": "tinsel"})
    path = folder / CHANGES_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(IndexFault, match=r"changes\.sqlite"):
        open_live(folder)


def test_a_log_older_than_the_generation_is_refused(tmp_path: Path, folder: Path) -> None:
    changed(folder)
    shutil.copy(folder / CHANGES_FILE, tmp_path / "backup")
    with open_live(folder) as live:
        upsert(live, {"h": "hello"})
        live.compact()
    (folder / CHANGES_FILE).unlink()
    with pytest.raises(IndexFault, match=r"changes\.sqlite is missing, and this index has had 4 changes"):
        open_live(folder)
    assert len(open_live(folder, writable=False).view()) == 7
    shutil.copy(tmp_path / "backup", folder / CHANGES_FILE)
    with pytest.raises(IndexFault, match="ends with change 3, but 000002 holds the changes through 4"):
        open_live(folder)


def test_a_generation_older_than_the_log_is_refused(folder: Path) -> None:
    changed(folder)
    with open_live(folder) as live:
        live.compact()
    (folder / "CURRENT").write_text("000001\n")
    with pytest.raises(IndexFault, match="begins after change 3, but 000001 holds the changes through 0 only"):
        open_live(folder)


def copy_of_log(folder: Path, path: Path) -> Path:
    with closing(ChangeLog(folder / CHANGES_FILE, writable=False)) as log:
        log.copy(path)
    return path


def test_a_log_that_vanishes_from_under_a_service_is_noticed(tmp_path: Path, folder: Path) -> None:
    with open_live(folder) as live, open_live(folder, writable=False) as reader:
        upsert(live, {"f": "tinsel"})
        assert contents(reader.view()) == WORDS | {"f": "tinsel"}
        (folder / CHANGES_FILE).rename(tmp_path / "away")
        for refused in (live.view, reader.view, lambda: upsert(live, {"g": "google"}), live.compact, live.reload):
            with pytest.raises(IndexFault, match=r"changes\.sqlite (has been removed|is missing)"):
                refused()
        assert not (folder / CHANGES_FILE).exists()  # none that is empty takes its place
        assert contents(reader.reload()) == WORDS  # a replica may be told to do without
        (tmp_path / "away").rename(folder / CHANGES_FILE)
        assert contents(live.view()) == contents(reader.view()) == WORDS | {"f": "tinsel"}
        assert upsert(live, {"g": "google"}) == ["created"]


@pytest.mark.parametrize("later", [0, 1, 5])
def test_a_log_of_another_history_is_refused_until_it_is_wanted(tmp_path: Path, folder: Path, later: int) -> None:
    """A backup takes its place, and others may have written to that already: fewer changes, as many, or more."""
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        backup = copy_of_log(folder, tmp_path / "backup")
        upsert(live, {"g": "google"})
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.copy(backup, tmp_path / "elsewhere" / CHANGES_FILE)
    with open_live(tmp_path / "elsewhere") as other:
        for n in range(later):
            upsert(other, {f"later{n}": "later"})
    there = WORDS | {"f": "tinsel"} | {f"later{n}": "later" for n in range(later)}
    with open_live(folder) as live, open_live(folder, writable=False) as reader:
        assert contents(live.view()) == contents(reader.view()) == WORDS | {"f": "tinsel", "g": "google"}
        for leftover in folder.glob(f"{CHANGES_FILE}-*"):
            leftover.unlink()
        (tmp_path / "elsewhere" / CHANGES_FILE).replace(folder / CHANGES_FILE)
        for _ in range(2):
            for refused in (live.view, reader.view, lambda: upsert(live, {"h": "hello"}), live.compact):
                with pytest.raises(
                    IndexFault, match=r"changes\.sqlite (ends with change 1|is not the log that was read)"
                ):
                    refused()
        assert contents(live.reload()) == contents(reader.reload()) == there
        assert upsert(live, {"h": "hello"}) == ["created"]
        assert contents(reader.view()) == there | {"h": "hello"}


def test_a_log_that_lacks_what_this_handle_wrote_last_is_refused(tmp_path: Path, folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        backup = copy_of_log(folder, tmp_path / "backup")
        live.view()
        upsert(live, {"g": "google"})  # acknowledged, and not looked at since
        (folder / f"{CHANGES_FILE}-wal").unlink()
        backup.replace(folder / CHANGES_FILE)
        with pytest.raises(IndexFault, match="is not the log that was read: it lacks change 2, or has another"):
            live.view()


def test_a_log_that_goes_on_from_what_was_read_may_take_its_place(tmp_path: Path, folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
    with open_live(folder) as live, open_live(folder, writable=False) as reader:
        contents(live.view()), contents(reader.view())
        copy_of_log(folder, tmp_path / "copy").replace(folder / CHANGES_FILE)
        assert contents(live.view()) == WORDS | {"f": "tinsel"}
        upsert(live, {"g": "google"})
        assert contents(reader.view()) == WORDS | {"f": "tinsel", "g": "google"}
    with open_live(folder) as live:
        assert contents(live.view()) == WORDS | {"f": "tinsel", "g": "google"}


def test_a_log_that_is_replaced_while_it_is_written_acknowledges_nothing(
    tmp_path: Path, folder: Path, monkeypatch
) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        copy = copy_of_log(folder, tmp_path / "copy")
        append = ChangeLog.append

        def replaced_meanwhile(log: ChangeLog, *arguments) -> None:
            append(log, *arguments)
            copy.replace(folder / CHANGES_FILE)

        monkeypatch.setattr(ChangeLog, "append", replaced_meanwhile)
        with pytest.raises(IndexFault, match="was replaced while it was written"):
            upsert(live, {"g": "google"})


def test_changes_that_were_folded_but_not_dropped_are_passed_over(folder: Path, monkeypatch) -> None:
    def dies(log: ChangeLog, through: int) -> None:
        raise KeyboardInterrupt

    changed(folder)
    with open_live(folder) as live, monkeypatch.context() as patch:
        patch.setattr(ChangeLog, "drop", dies)
        with pytest.raises(KeyboardInterrupt):
            live.compact()
    expected = {id_: WORDS[id_] for id_ in "bcde"} | {"f": "tinsel", "g": "google"}
    with open_live(folder) as live:
        assert contents(live.view()) == expected
        assert live.view().pending == 0
        upsert(live, {"h": "hello"})
        assert contents(live.compact()) == expected | {"h": "hello"}


def test_a_full_disk_loses_nothing(folder: Path) -> None:
    """The limit on a file's size is the nearest thing to a full disk that a test may have."""
    changed(folder)
    code = f"""
import resource
from pathlib import Path
from index.manifest import IndexFault
from tests.index.crash_build import small_shards
from tests.index.lettered import open_live, upsert, contents
with open_live(Path({str(folder)!r})) as live:
    before = contents(live.view())
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    done = 0
    try:
        while True:
            upsert(live, {{f"n{{done}}": "stone"}})
            done += 1
    except IndexFault as fault:
        print(fault)
    assert len(contents(live.view())) == len(before) + done, done
    print(done)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    message, count = done.stdout.splitlines()
    assert "changes.sqlite cannot be read or written" in message
    assert "free space" in message
    with open_live(folder) as live:
        assert len(contents(live.view())) == 6 + int(count)
        assert upsert(live, {"after": "after"}) == ["created"]
