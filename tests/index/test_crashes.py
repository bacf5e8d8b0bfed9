"""A process that writes an index is killed, or loses power, at any point: the index opens, and nothing was lost.

``DSE_SOAK=SECONDS`` (``make soak``) takes every point there is, and then kills at random for that long.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from random import Random

import numpy as np
import pytest

from index.exact import exact_search
from index.generations import FILES, Generation, current_name
from tests.index import crash_build
from tests.index.crash_build import Letters
from tests.index.crashes import killed, record, run, why_not

SOAK = float(os.environ.get("DSE_SOAK", 0))
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
OLD = ["listen", "silent", "banana"]
NEW = ["stone", "notes", "onset", "google", "cabana", "tinsel", "enlist", "abba", "lemon", "melon", "apple"]

traced = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def write(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"id": text, "text": text}) + "\n" for text in texts))
    return path


def generation_files(folder: Path) -> dict[str, object]:
    """What must be equal, however often the build was interrupted."""
    home = folder / "generations" / current_name(folder)
    manifest = json.loads((home / "manifest.json").read_text())
    del manifest["measured"]
    return {name: (home / name).read_bytes() for name in FILES} | {"manifest": manifest}


def holds(folder: Path, texts: Sequence[str]) -> None:
    """The index has exactly these documents, and finds them as exhaustive search does."""
    generation = Generation.open(folder)
    assert [document.text for document in generation.documents(np.arange(len(generation)))] == list(texts)
    embeddings = Letters()(texts)
    for query in Letters()(["stone", "banana"]):
        found = generation.search(query, 4)
        np.testing.assert_allclose(
            found.similarities, (embeddings @ query)[exact_search(embeddings, query, 4)], atol=1e-5
        )


class Scene:
    """A folder with an input, and an index of other documents or none, in which a build is to die."""

    def __init__(self, root: Path, scratch: Path, old: bool) -> None:
        self.root, self.old = root, old
        root.mkdir()
        self.source = write(scratch / "new.jsonl", NEW)
        self.index = root / "some/index"
        if old:
            crash_build.build(write(scratch / "old.jsonl", OLD), self.index, Letters())
        self.command = [sys.executable, "-B", "-m", "tests.index.crash_build", str(self.source), str(self.index)]
        crash_build.build(self.source, scratch / "whole", Letters())
        self.files = generation_files(scratch / "whole")

    def whole(self, index: Path, said: list[str]) -> bool:
        """Old or new is there, all of it, and new if that was acknowledged; which of the two?"""
        published = (index / "CURRENT").exists() and len(Generation.open(index)) == len(NEW)
        if published or self.old:
            holds(index, NEW if published else OLD)
        assert published or "published" not in said
        return published

    def check(self, index: Path, said: list[str]) -> None:
        """And to go on takes no embedding twice and ends as if nothing had happened."""
        if not self.whole(index, said):
            safe = max([int(line) // 4 * 4 for line in said if line.isdigit()], default=0)
            encode = Letters()
            crash_build.build(self.source, index, encode)
            assert set(encode.texts) <= {NEW[0], *NEW[safe:]}  # the first is the sample that is timed
            assert not list(index.rglob("*.partial"))
            holds(index, NEW)
        assert generation_files(index) == self.files

    def copy(self, name: str) -> "Scene":
        """The same in a folder of its own."""
        again = copy(self)
        again.root = self.root.with_name(name)
        again.index = again.root / "some/index"
        again.command = [*self.command[:-1], str(again.index)]
        shutil.copytree(self.root, again.root)
        return again


@pytest.fixture(params=[True, False], ids=["over an old one", "the first"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return Scene(tmp_path / "root", tmp_path, request.param)


def some(points: list, count: int) -> list:
    """All of them in a soak; else a few, from first to last."""
    return (
        points if SOAK or len(points) <= count else [points[n * (len(points) - 1) // (count - 1)] for n in range(count)]
    )


@traced
def test_killed_at_every_call_that_changes_a_file(scene: Scene) -> None:
    recording = record(scene.command, ENVIRONMENT, scene.root)
    points = recording.kills()
    assert len(points) > 40
    for number, point in enumerate(some(points, 6)):
        again = scene.copy(f"root-{number}")
        ended = killed(again.command, ENVIRONMENT, point)
        assert ended.signal == 9, f"{point} was never reached"
        again.check(again.index, ended.said)


@traced
def test_the_power_fails_after_any_change(scene: Scene) -> None:
    recording = record(scene.command, ENVIRONMENT, scene.root)
    for step in some([*recording.steps(), len(recording.calls)], 20):
        for number, state in enumerate(recording.power_cuts(step)):
            root = scene.root.with_name(f"root-{step}-{number}")
            state.write(root)
            scene.check(root / "some/index", recording.said(step))


def test_killed_at_random_times_again_and_again(scene: Scene) -> None:
    random, until, rounds = Random(1), time.monotonic() + SOAK, 0
    before = time.monotonic()
    assert run(scene.copy("timed").command, ENVIRONMENT).said[-1] == "published"
    longest = time.monotonic() - before
    while rounds < 1 or time.monotonic() < until:
        rounds += 1
        again = scene.copy(f"root-{rounds}")
        said: list[str] = []
        for _ in range(3):
            said += run(again.command, ENVIRONMENT, random.uniform(0.6, 1.0) * longest).said
            if again.index.exists() and again.whole(again.index, said):
                break
        if again.index.exists():
            again.check(again.index, said)
        shutil.rmtree(again.root)


@traced
@pytest.mark.parametrize(("synced", "left"), [("os.fsync(f.fileno())", b"word"), ("", b"")])
def test_a_missing_fsync_is_seen(tmp_path: Path, synced: str, left: bytes) -> None:
    (tmp_path / "root").mkdir()
    code = (
        f"import os, sys\nos.chdir({str(tmp_path / 'root')!r})\nroot = os.getcwd()\n"
        f"with open(root + '/a.partial', 'wb') as f:\n    f.write(b'word'); f.flush(); {synced}\n"
        "os.replace(root + '/a.partial', root + '/a')\nos.write(1, b'done\\n')\n"
    )
    recording = record([sys.executable, "-B", "-c", code], ENVIRONMENT, tmp_path / "root")
    assert [point.name for point in recording.kills()] == ["write", *(["fsync"] if synced else []), "rename"]
    assert recording.said(len(recording.calls)) == ["done"]
    strict, names, _ = recording.power_cuts(len(recording.calls))
    assert strict.disk.files() == {}  # the folder was never fsynced
    assert names.disk.files() == {"a": left}
