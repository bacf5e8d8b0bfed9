"""A replica on a read-only mount sees what is written to the folder from outside, as everybody does."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from index.changes import CHANGES_FILE, ChangeLog
from index.live import LiveIndex
from tests.index.lettered import WORDS, build_letters, contents, open_live, upsert


class Unopened:
    """What SQLite makes of a log whose shared files are not there and cannot be made."""

    def execute(self, statement: str) -> None:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    def close(self) -> None:
        pass


@pytest.fixture
def mounted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with a change in its log, for reading as if it were on a read-only mount."""
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
    connect = ChangeLog._connect

    def connect_as_if_mounted(log: ChangeLog, mode: str):
        beside = log.path.with_name(f"{log.path.name}-shm")
        return Unopened() if mode == "ro" and not beside.exists() else connect(log, mode)

    monkeypatch.setattr(ChangeLog, "_connect", connect_as_if_mounted)
    return folder


@contextmanager
def replica_of(folder: Path) -> Iterator[LiveIndex]:
    with open_live(folder, writable=False) as replica:
        assert contents(replica.view()) == WORDS | {"f": "tinsel"}
        assert replica._reading is not None
        assert replica._reading.immutable
        yield replica


@contextmanager
def unnoticed(folder: Path) -> Iterator[None]:
    """What is written to the log leaves its size and time as they were."""
    path = folder / CHANGES_FILE
    before = path.stat()
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_a_replica_follows_a_writer_that_comes_and_goes(mounted: Path) -> None:
    expected = WORDS | {"f": "tinsel"}
    with replica_of(mounted) as replica:
        for number in range(2, 5):
            with open_live(mounted) as live:
                upsert(live, {f"g{number}": "google"})
                live.compact()
            expected[f"g{number}"] = "google"
            assert contents(replica.view()) == expected
            assert (replica.view().name, replica.stays_because) == (f"{number:06d}", None)
            with open_live(mounted) as live:
                upsert(live, {"f": f"tinsel{'x' * number}"})
            expected["f"] = f"tinsel{'x' * number}"
            assert replica.view().get("f").text == expected["f"]


def test_a_replica_follows_a_writer_that_stays(mounted: Path) -> None:
    expected = WORDS | {"f": "tinsel"}
    with replica_of(mounted) as replica, open_live(mounted) as live:
        for number in range(2, 5):
            upsert(live, {f"g{number}": "google"})
            expected[f"g{number}"] = "google"
            assert contents(replica.view()) == expected
            live.compact()
            assert (replica.view().name, replica.stays_because) == (f"{number:06d}", None)


def test_a_replica_reads_the_log_again_with_every_generation(mounted: Path) -> None:
    with replica_of(mounted) as replica:
        with unnoticed(mounted), open_live(mounted) as live:
            upsert(live, {"g": "google"})
            live.compact()
        assert contents(replica.view()) == WORDS | {"f": "tinsel", "g": "google"}
        assert (replica.view().name, replica.stays_because) == ("000002", None)


def test_a_reload_reads_the_log_again(mounted: Path) -> None:
    with replica_of(mounted) as replica:
        with unnoticed(mounted), open_live(mounted) as live:
            upsert(live, {"g": "google"})
        assert contents(replica.view()) == WORDS | {"f": "tinsel"}
        assert contents(replica.reload()) == WORDS | {"f": "tinsel", "g": "google"}


def test_a_log_that_cannot_be_read_again_for_a_moment_is_read_later(mounted: Path, monkeypatch) -> None:
    with replica_of(mounted) as replica:
        with open_live(mounted) as live:
            upsert(live, {"g": "google"})
            live.compact()
        with monkeypatch.context() as patch:
            patch.setattr(ChangeLog, "_connect", lambda *_: Unopened())
            for _ in range(2):
                assert contents(replica.view()) == WORDS | {"f": "tinsel"}
                assert "the log is older" in (replica.stays_because or "")
        with open_live(mounted) as live:
            live.delete(["a"])
        assert contents(replica.view()) == {id_: WORDS[id_] for id_ in "bcde"} | {"f": "tinsel", "g": "google"}
        assert (replica.view().name, replica.stays_because) == ("000002", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody who may not write")
def test_a_replica_of_somebody_who_may_not_write_follows() -> None:
    home = Path(tempfile.mkdtemp())  # that of the tests is root's alone
    home.chmod(0o755)
    code = f"""
import os
from pathlib import Path
from tests.index.lettered import contents, open_live
contents(open_live(Path({str(home / "other")!r})).view())  # so that everything is imported while it can be
os.setgid(65534), os.setuid(65534)
replica = open_live(Path({str(home / "index")!r}), writable=False)
while True:
    print(replica.view().name, *contents(replica.view()), replica.stays_because, flush=True)
    input()
"""
    try:
        build_letters(home / "other", WORDS)
        with open_live(build_letters(home / "index", WORDS)) as live:
            upsert(live, {"f": "tinsel"})
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as replica:
            assert replica.stdin is not None
            assert replica.stdout is not None
            try:
                assert replica.stdout.readline() == "000001 a b c d e f None\n"
                with open_live(home / "index") as live:
                    upsert(live, {"g": "google"})
                    live.compact()
                print(file=replica.stdin, flush=True)
                assert replica.stdout.readline() == "000002 a b c d e f g None\n"
                for number in range(3, 5):
                    with open_live(home / "index") as live:
                        upsert(live, {f"h{number}": "onset"})
                        print(file=replica.stdin, flush=True)
                        assert f"h{number}" in replica.stdout.readline().split()
                        live.compact()
                    print(file=replica.stdin, flush=True)
                    assert replica.stdout.readline().startswith(f"{number:06d} ")
            finally:
                replica.kill()
    finally:
        shutil.rmtree(home)
