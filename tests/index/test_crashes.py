"""A process that writes an index is killed, or loses power, at any point: the index opens, and nothing was lost.

``DSE_SOAK=SECONDS`` (``make soak``) takes every point there is, kills at random for that long, and writes what it
counted to ``DSE_SOAK_REPORT``.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import pytest

from index.exact import exact_search
from index.generations import Generation, current_name, similarities_of
from index.manifest import EncoderIdentity, IndexFault
from tests.index import crash_build
from tests.index.crash_build import Letters, live_files
from tests.index.crash_operations import ADDED, DELETED, Prepared, Texts, after, embed_as, open_any
from tests.index.crashes import killed, record, why_not
from tests.index.lettered import ENCODER, HALVED, build_letters, check_search, contents, document, open_live, upsert
from tests.index.nursery import Child, Nursery

SOAK = float(os.environ.get("DSE_SOAK", 0))
REPORT = os.environ.get("DSE_SOAK_REPORT")
OLD_TEXTS = ["listen", "silent", "banana"]
NEW_TEXTS = ["stone", "notes", "onset", "google", "cabana", "tinsel", "enlist", "abba", "lemon", "melon", "apple"]

traced = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@dataclass
class Tally:
    """What was done to indexes, and what became of them."""

    kills: Counter[str] = field(default_factory=Counter)
    power_cuts: Counter[str] = field(default_factory=Counter)
    corrupt_opens: int = 0
    lost_or_half_written: int = 0
    """Acknowledged writes that are not there, or others of which a part is."""
    wrong_answers: int = 0
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def counts(self, counter: Counter[str], operation: str, where: object) -> Iterator[None]:
        """Count one kill or cut, and what is found wrong after it."""
        counter[operation] += 1
        try:
            yield
        except (IndexFault, Lost, AssertionError) as fault:
            if isinstance(fault, IndexFault):
                self.corrupt_opens += 1
            elif isinstance(fault, Lost):
                self.lost_or_half_written += 1
            else:
                self.wrong_answers += 1
            self.faults.append(f"{operation}, {where}: {type(fault).__name__}: {fault}")
            if not SOAK:
                raise

    def summary(self) -> dict[str, object]:
        """As JSON can hold it."""
        return {
            "kills": self.kills.total(),
            "kills_by_operation": dict(self.kills),
            "power_cuts": self.power_cuts.total(),
            "power_cuts_by_operation": dict(self.power_cuts),
            "corrupt_opens": self.corrupt_opens,
            "lost_or_half_written": self.lost_or_half_written,
            "wrong_answers": self.wrong_answers,
            "faults": self.faults,
        }


class Lost(Exception):
    """A write that was acknowledged is not there, or one that was not is there in part."""


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    counted = Tally()
    yield counted
    if REPORT:
        Path(REPORT).parent.mkdir(parents=True, exist_ok=True)
        Path(REPORT).write_text(json.dumps(counted.summary(), indent=2) + "\n")


@pytest.fixture(autouse=True)
def _nothing_is_wrong(tally: Tally) -> Iterator[None]:
    before = len(tally.faults)
    yield
    assert not tally.faults[before:]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as opened:
        yield opened


class BuildScene:
    """A folder with an input, and an index of other documents or none, in which a build is to die."""

    random_kills = 3  # before it is let to end

    def __init__(self, nursery: Nursery, scratch: Path, old: bool) -> None:
        self.root, self.old, self._nursery = scratch / "root", old, nursery
        self.name = "build over an index" if old else "build"
        self.root.mkdir()
        self.source = _write(scratch / "new.jsonl", NEW_TEXTS)
        self.index = self.root / "some/index"
        if old:
            crash_build.build(_write(scratch / "old.jsonl", OLD_TEXTS), self.index, Letters())
        crash_build.build(self.source, scratch / "whole", Letters())
        self.files = _generation_files(scratch / "whole")

    def child(self) -> Child:
        return self._nursery.child("build", self.source, self.index)

    def dies(self, said: Sequence[str]) -> bool:
        """Between two deaths: what there is is whole. May it go on, to die again?"""
        return not self._whole(self.index, said)

    def check(self, said: Sequence[str]) -> None:
        """What there is is whole, and to go on takes no embedding twice and ends as if nothing had happened."""
        if not self._whole(self.index, said):
            safe = max([int(line) // 4 * 4 for line in said if line.isdigit()], default=0)
            encode = Letters()
            crash_build.build(self.source, self.index, encode)
            assert set(encode.texts) <= {NEW_TEXTS[0], *NEW_TEXTS[safe:]}  # the first is the sample that is timed
            assert not list(self.index.rglob("*.partial"))
            _holds(self.index, NEW_TEXTS)
        assert _generation_files(self.index) == self.files

    def _whole(self, index: Path, said: Sequence[str]) -> bool:
        """Old or new is there, all of it, and new if that was acknowledged; which of the two?"""
        if not (index / "CURRENT").exists():
            if self.old or "published" in said:
                raise Lost("no index is there")
            return False
        published = len(Generation.open(index)) == len(NEW_TEXTS)
        if published < ("published" in said):
            raise Lost("the index before is there")
        _holds(index, NEW_TEXTS if published else OLD_TEXTS)
        return published

    def again(self, name: str) -> "BuildScene":
        """The same in a folder of its own."""
        return _again(self, name)


class Story:
    """An index, an operation of one or more steps on it, and what it holds after each."""

    random_kills = 1

    def __init__(self, nursery: Nursery, scratch: Path, name: str) -> None:
        operation, prepare, steps = STORIES[name]
        self.name, self.operation, self._nursery = name, operation, nursery
        self.root = scratch / "root"
        self.root.mkdir()
        self.index = self.root / "index"
        self.states: list[tuple[Texts, EncoderIdentity]] = [(prepare(self.index), ENCODER)]
        for step in steps:
            self.states.append((after(self.states[-1][0], step), HALVED if operation == "rebuild" else ENCODER))

    def child(self) -> Child:
        return self._nursery.child(self.operation, self.index)

    def dies(self, said: Sequence[str]) -> bool:
        """It is not begun again: its steps would not be the same."""
        return False

    def check(self, said: Sequence[str]) -> None:
        """What was acknowledged is there, and all or nothing of the step after; it is found, and more can be done."""
        with open_any(self.index) as live:
            view = live.view()
            encoder, embed = view.manifest.encoder, embed_as(view.manifest.encoder)
            found = {hit.id: hit.text for hit in view.documents(view.rows())}
            allowed = self.states[len(said) : len(said) + 2]
            if (list(found.items()), encoder) not in [(list(texts.items()), made_by) for texts, made_by in allowed]:
                raise Lost(f"after {len(said)} steps it holds {found}, by {encoder.name}")
            np.testing.assert_array_equal(view.embeddings(view.rows()), embed(list(found.values())))
            for query in embed(["stone", "banana"]):
                near = view.search(query, 4)
                every = similarities_of(embed(list(found.values())), query)
                np.testing.assert_allclose(near.similarities, np.sort(every)[::-1][:4], atol=2e-5)
            if self.operation == "compact" and said:
                assert view.pending == 0
        with open_any(self.index) as live:
            live.upsert([document("after", "after")], embed(["after"]))
            assert {hit.id: hit.text for hit in live.compact().documents(live.view().rows())} == found | {
                "after": "after"
            }
        assert not list(self.index.rglob("*.partial*"))

    def again(self, name: str) -> "Story":
        """The same in a folder of its own."""
        return _again(self, name)


Step = Texts | list[str] | None
STORIES: dict[str, tuple[str, Callable[[Path], Texts], list[Step]]] = {
    "the first add": ("add", Prepared.fresh, [*ADDED]),
    "add": ("add", Prepared.changed, [*ADDED]),
    "delete": ("delete", Prepared.changed, [*DELETED]),
    "compact": ("compact", Prepared.changed, [None]),
    "rebuild": ("rebuild", Prepared.changed, [None]),
    "reload": ("reload", Prepared.changed, [ADDED[0], None, None, ADDED[1]]),
}
SCENES = ["build", "build over an index", *STORIES]
Scene = BuildScene | Story


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest, nursery: Nursery, tmp_path: Path) -> Scene:
    if request.param not in STORIES:
        return BuildScene(nursery, tmp_path, request.param != "build")
    return Story(nursery, tmp_path, request.param)


def some(points: list, count: int) -> list:
    """All of them in a soak; else a few, from first to last."""
    return (
        points if SOAK or len(points) <= count else [points[n * (len(points) - 1) // (count - 1)] for n in range(count)]
    )


@traced
def test_killed_at_every_call_that_changes_a_file(scene: Scene, tally: Tally) -> None:
    points = record(scene.child(), scene.root).kills()
    assert len(points) > 10
    for point in some(points, 4):
        again = scene.again("killed")
        ended = killed(again.child(), point)
        assert ended.signal == 9, f"{point} was never reached"
        with tally.counts(tally.kills, scene.name, point):
            again.check(ended.said)
        shutil.rmtree(again.root)


@traced
def test_the_power_fails_after_any_change(scene: Scene, tally: Tally) -> None:
    recording = record(scene.child(), scene.root)
    for step in some([*recording.steps(), len(recording.calls)], 6):
        for state in recording.power_cuts(step):
            again = copy(scene)
            again.root = scene.root.with_name("cut")
            again.index = again.root / scene.index.relative_to(scene.root)
            state.write(again.root)
            with tally.counts(tally.power_cuts, scene.name, f"step {step}, {state.kind}"):
                again.check(recording.said(step))
            shutil.rmtree(again.root)


def test_killed_at_random_times(scene: Scene, tally: Tally) -> None:
    random = Random(1)
    timed = scene.again("timed").child()
    before = time.monotonic()
    timed.go()
    assert not timed.ended().signal
    longest = time.monotonic() - before
    until, rounds = time.monotonic() + SOAK / (len(SCENES) + 1), 0
    while rounds < 1 or time.monotonic() < until:
        rounds += 1
        again = scene.again("killed")
        said: list[str] = []
        for number in range(scene.random_kills):
            child = again.child()
            child.go()
            ended = child.ended(random.uniform(0, 1) * longest)
            said += ended.said
            if not ended.signal:
                break
            with tally.counts(tally.kills, scene.name, f"round {rounds}"):
                if number + 1 == scene.random_kills or not again.dies(said):
                    again.check(said)
                    break
        shutil.rmtree(again.root)


def test_killed_again_and_again(nursery: Nursery, tmp_path: Path, tally: Tally) -> None:
    """One index through many deaths, while another process has it open and searches it."""
    state, random = {"keep": "listen"}, Random(1)
    folder = build_letters(tmp_path / "index", state)
    until, rounds = time.monotonic() + SOAK / (len(SCENES) + 1), 0
    with open_live(folder, writable=False) as searcher:
        while rounds < 6 or time.monotonic() < until:
            rounds += 1
            child = nursery.child("history", folder, random.randrange(10**9))
            child.go()
            said = [json.loads(line) for line in child.ended(random.uniform(0.02, 0.2)).said]
            begun = None
            for kind, *what in said:
                if kind == "done":
                    state, begun = after(state, begun), None
                elif kind != "ready":
                    begun = what[0]
            with tally.counts(tally.kills, "history", f"round {rounds}"):
                with open_live(folder) as live:
                    found = contents(live.view())
                    if found not in (state, after(state, begun)):
                        raise Lost(f"{found} is neither {state} nor that after {begun}")
                    state = found
                    check_search(live.view(), state, "abcdef", 5)
                assert contents(searcher.view()) == state
    with open_live(folder) as live:
        # A write that was killed while it was synced shows at the latest when nobody else has the log open, or never.
        found = contents(live.view())
        assert found in (state, after(state, begun))
        upsert(live, {"keep": "listen"})
        assert contents(live.compact()) == found | {"keep": "listen"}
    assert not list(folder.glob("generations/*.partial"))


@traced
@pytest.mark.parametrize(("synced", "left"), [(True, b"word"), (False, b"")])
def test_a_missing_fsync_is_seen(nursery: Nursery, tmp_path: Path, synced: bool, left: bytes) -> None:
    root = tmp_path / "root"
    root.mkdir()
    recording = record(nursery.child("one word", root, synced), root)
    assert [point.name for point in recording.kills()] == ["write", *(["fsync"] if synced else []), "rename"]
    assert recording.said(len(recording.calls)) == ["done"]
    strict, names, _ = recording.power_cuts(len(recording.calls))
    assert strict.disk.files() == {}  # the folder was never fsynced
    assert names.disk.files() == {"a": left}


def test_what_goes_wrong_is_counted() -> None:
    counted = Tally()
    for fault in (IndexFault("cannot be opened"), Lost("not there"), AssertionError("another"), None):
        with suppress(IndexFault, Lost, AssertionError), counted.counts(counted.kills, "add", 7):
            if fault:
                raise fault
    summary = json.loads(json.dumps(counted.summary()))
    faults = ["IndexFault: cannot be opened", "Lost: not there", "AssertionError: another"]
    assert summary == {
        "kills": 4,
        "kills_by_operation": {"add": 4},
        "power_cuts": 0,
        "power_cuts_by_operation": {},
        "corrupt_opens": 1,
        "lost_or_half_written": 1,
        "wrong_answers": 1,
        "faults": [f"add, 7: {fault}" for fault in faults],
    }


def _write(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"id": text, "text": text}) + "\n" for text in texts))
    return path


def _generation_files(folder: Path) -> dict[str, object]:
    """What must be equal, however often the build was interrupted."""
    manifest = json.loads((folder / "generations" / current_name(folder) / "manifest.json").read_text())
    del manifest["measured"]
    return live_files(folder) | {"manifest": manifest}


def _holds(folder: Path, texts: Sequence[str]) -> None:
    """The index has exactly these documents, and finds them as exhaustive search does."""
    generation = Generation.open(folder)
    found = [document.text for document in generation.documents(np.arange(len(generation)))]
    if found != list(texts):
        raise Lost(f"it holds {found}")
    embeddings = Letters()(texts)
    for query in Letters()(["stone", "banana"]):
        near = generation.search(query, 4)
        np.testing.assert_allclose(
            near.similarities, (embeddings @ query)[exact_search(embeddings, query, 4)], atol=1e-5
        )


def _again(scene, name: str):
    again = copy(scene)
    again.root = scene.root.with_name(name)
    again.index = again.root / scene.index.relative_to(scene.root)
    shutil.copytree(scene.root, again.root)
    return again
