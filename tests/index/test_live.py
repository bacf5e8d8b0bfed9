"""Changes are durable, visible at once, and the same to whoever looks.

``DSE_HISTORIES=1000`` tries that many random histories.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from index.build import build
from index.candidates import CandidateIndex
from index.changes import ChangeLog, _translated
from index.compaction import fold
from index.filters import parse_filter
from index.generations import Generation, current_name, new_generation
from index.live import LiveIndex
from index.manifest import BusyFault, EncoderIdentity, GenerationManifest, IndexFault, ReadOnlyFault, Verify
from index.nearest import HeadVectors
from index.recall import Aim
from index.sources import SourcedDocument
from index.view import View
from tests.index.lettered import (
    ENCODER,
    WORDS,
    build_letters,
    check_search,
    contents,
    document,
    embed,
    open_live,
    upsert,
)

IDS = st.sampled_from([f"id/{n}" for n in range(12)] + ["a", "b", "ü ?#%"])
TEXTS = st.text("abcdef", min_size=1, max_size=6)


class Machine(RuleBasedStateMachine):
    """Random operations by two handles, against a dict that remembers the order in which rows came."""

    @initialize(texts=st.dictionaries(IDS, TEXTS, min_size=1, max_size=6))
    def built(self, texts: dict[str, str]) -> None:
        import tempfile

        self.home = Path(tempfile.mkdtemp())
        self.folder = build_letters(self.home / "index", texts)
        self.oracle = dict(texts)
        self.handles = [open_live(self.folder), open_live(self.folder)]
        self.kept: list[tuple[View, dict[str, str]]] = []

    @rule(who=st.integers(0, 1), texts=st.dictionaries(IDS, TEXTS, max_size=4))
    def upserted(self, who: int, texts: dict[str, str]) -> None:
        expected = ["updated" if id_ in self.oracle else "created" for id_ in texts]
        assert upsert(self.handles[who], texts) == expected
        for id_, text in texts.items():
            self.oracle.pop(id_, None)  # what is replaced goes to the end
            self.oracle[id_] = text

    @rule(who=st.integers(0, 1), ids=st.lists(IDS, max_size=4))
    def deleted(self, who: int, ids: list[str]) -> None:
        there = set(ids) & self.oracle.keys()
        assert self.handles[who].delete(ids) == len(there)
        for id_ in there:
            del self.oracle[id_]

    @rule(who=st.integers(0, 1), query=TEXTS, depth=st.integers(1, 20))
    def searched(self, who: int, query: str, depth: int) -> None:
        check_search(self.handles[who].view(), self.oracle, query, depth)

    @rule(who=st.integers(0, 1), id_=IDS)
    def got(self, who: int, id_: str) -> None:
        found = self.handles[who].view().get(id_)
        assert (found and found.text) == self.oracle.get(id_)

    @rule(who=st.integers(0, 1), query=TEXTS, most=st.integers(1, 6), depth=st.integers(1, 20))
    def searched_with_a_filter(self, who: int, query: str, most: int, depth: int) -> None:
        view = self.handles[who].view()
        allowed = {id_: text for id_, text in self.oracle.items() if len(text) <= most}
        found = view.search(embed([query])[0], depth, parse_filter({"length": {"$lte": most}}))
        assert all(len(hit.text) <= most for hit in view.documents(found.rows))
        assert len(found.rows) == min(depth, len(allowed))
        if allowed:
            best = np.sort(embed(list(allowed.values())) @ embed([query])[0])[::-1][:depth]
            np.testing.assert_allclose(found.similarities, best, atol=2e-5)

    @rule(who=st.integers(0, 1))
    def compacted(self, who: int) -> None:
        view = self.handles[who].compact()
        assert view.pending == 0
        embeddings = np.load(self.folder / "generations" / view.name / "embeddings.npy")
        np.testing.assert_array_equal(embeddings, embed(list(self.oracle.values())))

    @rule(who=st.integers(0, 1))
    def reopened(self, who: int) -> None:
        self.handles[who].close()
        self.handles[who] = open_live(self.folder)

    @precondition(lambda self: len(self.kept) < 3)
    @rule(who=st.integers(0, 1))
    def keep_a_view(self, who: int) -> None:
        self.kept.append((self.handles[who].view(), dict(self.oracle)))

    @invariant()
    def every_handle_agrees(self) -> None:
        for handle in getattr(self, "handles", []):
            assert contents(handle.view()) == self.oracle
            assert list(contents(handle.view())) == list(self.oracle)

    @invariant()
    def a_view_never_changes(self) -> None:
        for view, expected in getattr(self, "kept", []):
            assert contents(view) == expected

    def teardown(self) -> None:
        for handle in getattr(self, "handles", []):
            handle.close()
        if hasattr(self, "home"):
            shutil.rmtree(self.home)


TestAnyHistory = Machine.TestCase
TestAnyHistory.settings = settings(
    max_examples=int(os.environ.get("DSE_HISTORIES", "25")), stateful_step_count=20, deadline=None
)


def test_nothing_is_created_before_something_changes(folder: Path) -> None:
    with open_live(folder) as live:
        assert contents(live.view()) == WORDS
        assert live.delete(["nobody"]) == 0
    with open_live(folder, writable=False) as live:
        assert contents(live.view()) == WORDS


def test_a_write_is_in_the_very_next_view_of_every_handle(folder: Path) -> None:
    with open_live(folder) as one, open_live(folder, writable=False) as other:
        before = other.view()
        assert upsert(one, {"f": "tinsel", "a": "google"}) == ["created", "updated"]
        for live in (one, other):
            assert contents(live.view()) == {**{id_: WORDS[id_] for id_ in "bcde"}, "f": "tinsel", "a": "google"}
        assert one.delete(["f", "b", "f", "nobody"]) == 2
        assert list(contents(other.view())) == ["c", "d", "e", "a"]
        assert contents(before) == WORDS


def test_a_write_during_a_look_at_the_log_is_in_the_next_view(folder: Path, monkeypatch) -> None:
    with open_live(folder) as live, open_live(folder) as other:
        upsert(other, {"f": "tinsel"})
        read = ChangeLog.read

        def read_and_write(log: ChangeLog, *arguments):
            found = read(log, *arguments)
            monkeypatch.setattr(ChangeLog, "read", read)
            upsert(other, {"g": "google"})
            return found

        monkeypatch.setattr(ChangeLog, "read", read_and_write)
        assert contents(live.view()) == WORDS | {"f": "tinsel"}
        assert contents(live.view()) == WORDS | {"f": "tinsel", "g": "google"}


def test_an_older_view_is_not_changed_by_what_comes_after(folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"a": "first", "f": "tinsel"})
        view = live.view()
        expected = {id_: WORDS[id_] for id_ in "bcde"} | {"a": "first", "f": "tinsel"}
        upsert(live, {"a": "second", "f": "second", "g": "google"} | {f"n{n}": "many" for n in range(100)})
        live.delete(["b", "c", "n7"])
        live.view()
        assert contents(view) == expected
        assert {id_: found and found.text for id_ in [*expected, "g"] for found in [view.get(id_)]} == expected | {
            "g": None
        }
        for depth in range(1, 7):
            check_search(view, expected, "tonsil", depth)


def test_the_changes_alone_are_searched_to_any_depth(folder: Path) -> None:
    texts = {f"n{n}": "abcdef"[: n % 6 + 1] for n in range(60)}  # each ten times, so that every depth cuts through ties
    with open_live(folder) as live:
        upsert(live, texts)
        for depth in (1, 5, 15, 59, 65, 80):
            check_search(live.view(), WORDS | texts, "abc", depth)


def test_what_is_replaced_takes_no_place_of_the_depth(folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"a": "banana"})
        live.delete(["b"])
        view = live.view()
        found = view.search(embed(["tinsel"])[0], 3)
        assert [hit.id for hit in view.documents(found.rows)] == ["c", "d", "e"]


def test_of_equals_a_delete_elsewhere_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.narrowed.EXACT_ROWS", 10)  # few are gone: FAISS is asked for some more than are wanted
    texts = {f"d{n:04}": "listen" if n % 20 == 0 else f"bcd{'fghjk'[n % 5]}" for n in range(1000)}
    with open_live(build_letters(tmp_path / "index", texts)) as live:
        for k in (5, 10, 49):
            wanted = [f"d{20 * n:04}" for n in range(k)]
            for gone in ([], ["d0999"], ["d0998", "d0997"]):
                live.delete(gone)
                view = live.view()
                found = view.search(embed(["listen"])[0], k)
                assert [hit.id for hit in view.documents(found.rows)] == wanted


def test_any_depth_may_be_asked_for(folder: Path) -> None:
    with open_live(folder) as live:
        assert len(live.view().search(embed(["listen"])[0], 10**12).rows) == len(WORDS)


def test_a_generation_that_goes_while_it_is_opened_is_looked_for_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CandidateIndex.load.__func__  # type: ignore[attr-defined]
    tried = []

    def load(path: Path) -> CandidateIndex:
        tried.append(path)
        if len(tried) == 1:
            with open_live(folder) as writer:
                upsert(writer, {"z": "tonsil"})
                writer.compact()
            raise FileNotFoundError(path)
        return whole(CandidateIndex, path)

    monkeypatch.setattr(CandidateIndex, "load", load)
    with open_live(folder) as live:
        assert live.view().name == "000002"
        monkeypatch.setattr(CandidateIndex, "load", lambda path: Path("nowhere").read_bytes())
        with pytest.raises(IndexFault, match=r"000002 cannot be read: .* No such file"):
            open_live(folder)


@pytest.mark.parametrize("recipe", ["Flat", "SQ8", "HNSW8"])
def test_deletes_are_honoured_by_every_recipe(tmp_path: Path, recipe: str) -> None:
    rng = random.Random(5)
    texts = {f"d{n}": "".join(rng.choices("abcdefgh", k=7)) for n in range(200)}
    with open_live(build_letters(tmp_path / "index", texts, recipe)) as live:
        gone = set(rng.sample(sorted(texts), 120))
        assert live.delete(gone) == 120
        view = live.view()
        found = view.search(embed(["abcabc"])[0], 60)
        assert len(found.rows) == 60
        assert not gone & {hit.id for hit in view.documents(found.rows)}
        compacted = live.compact()
        assert compacted.manifest.recipe == recipe
        assert len(compacted) == 80


def test_an_id_twice_in_a_batch(folder: Path) -> None:
    with open_live(folder) as live:
        twice = [document("n", "first"), document("n", "second")]
        assert live.upsert(twice, embed(["first", "second"])) == ["created", "updated"]
        found = live.view().get("n")
        assert found is not None
        assert found.text == "second"
        assert len(live.view()) == 6


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((1, 25), np.float32), r"embeddings of \(1, 25\); this index holds rows of 26"),
        (np.ones((2, 26), np.float32), r"1 documents came with embeddings of \(2, 26\)"),
        (np.full((1, 26), np.nan, np.float32), "not finite"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(folder: Path, embeddings: np.ndarray, message: str) -> None:
    with open_live(folder) as live:
        with pytest.raises(IndexFault, match=message):
            live.upsert([document("x", "x")], embeddings)
        assert contents(live.view()) == WORDS


def test_another_encoder_cannot_open_it(folder: Path) -> None:
    with pytest.raises(IndexFault, match="was built with encoder letters"):
        LiveIndex.open(folder, EncoderIdentity(name="other", digest="e" * 64))


def test_a_handle_for_reading_does_not_write(folder: Path) -> None:
    with open_live(folder, writable=False) as live:
        for write in (lambda: upsert(live, {"x": "x"}), lambda: live.delete(["a"]), live.compact):
            with pytest.raises(ReadOnlyFault, match="opened for reading only"):
                write()


def test_a_writer_that_waited_too_long_is_told_so(folder: Path) -> None:
    with open_live(folder) as one, open_live(folder, busy_seconds=0.05) as other:
        upsert(one, {"f": "tinsel"})
        with one._writer().transaction(), pytest.raises(BusyFault, match=r"by another process, for more than 0\.05 s"):
            upsert(other, {"g": "google"})
        assert upsert(other, {"g": "google"}) == ["created"]


def test_writers_who_wait_beside_each_other_are_told_so_at_the_same_time(folder: Path) -> None:
    """Not one after the other, each after a wait of its own."""
    with open_live(folder) as one, open_live(folder, busy_seconds=0.5) as other, ThreadPoolExecutor(6) as threads:
        upsert(one, {"f": "tinsel"})
        upsert(other, {"f": "tinsel"})

        def late(number: int) -> float:
            began = time.monotonic()
            with pytest.raises(BusyFault, match="nothing of this was written"):
                upsert(other, {f"g{number}": "google"})
            return time.monotonic() - began

        with one._writer().transaction():
            taken = list(threads.map(late, range(6)))
        assert min(taken) >= 0.4
        assert max(taken) < 1.9  # in turns it would be three seconds
        assert upsert(other, {"g": "google"}) == ["created"]


@pytest.mark.parametrize("writable", [True, False])
def test_a_log_that_cannot_be_opened_for_now_is_no_log_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    fault = sqlite3.OperationalError("unable to open database file")
    fault.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    monkeypatch.setattr(os, "access", lambda *_: writable)
    kind = IndexFault if writable else ReadOnlyFault
    with pytest.raises(IndexFault, match="unable to open") as told, _translated(tmp_path / "changes.sqlite", 1.0):
        raise fault
    assert type(told.value) is kind


def test_letters_in_letters_out_while_others_write_and_compact(folder: Path) -> None:
    """Each searcher's own document is always its best hit, whatever is written beside it."""
    stop = threading.Event()
    own = {f"own{n}": letter * 3 for n, letter in enumerate("qwzx")}

    def write(live: LiveIndex, seed: int) -> int:
        rng, written = random.Random(seed), 0
        while not stop.is_set():
            upsert(live, {f"w{seed}-{rng.randrange(30)}": "".join(rng.choices("abcde", k=5))})
            live.delete([f"w{seed}-{rng.randrange(30)}"])
            written += 1
        return written

    def search(live: LiveIndex, id_: str) -> int:
        query, searches = embed([own[id_]])[0], 0
        while not stop.is_set():
            view = live.view()
            found = view.search(query, 10)
            documents = view.documents(found.rows)
            assert documents[0].id == id_
            np.testing.assert_allclose(embed([hit.text for hit in documents]) @ query, found.similarities, atol=2e-5)
            assert len(view.rows()) == len(view)
            searches += 1
        return searches

    with open_live(folder) as one, open_live(folder) as other, ThreadPoolExecutor(8) as pool:
        upsert(one, own)
        writers = [pool.submit(write, one, 1), pool.submit(write, other, 2)]
        searchers = [pool.submit(search, live, id_) for live, id_ in zip((one, other) * 2, own, strict=True)]
        compactions = []
        until = time.monotonic() + 2
        try:
            while time.monotonic() < until:
                compactions.append(one.compact().name)
        finally:
            stop.set()
        assert all(job.result() for job in writers + searchers)
        assert len(set(compactions)) > 1
        assert contents(one.view()) == contents(other.view())


def test_a_write_by_another_process_is_in_the_next_view(folder: Path) -> None:
    code = f"""
from pathlib import Path
from tests.index.crash_build import small_shards
from tests.index.lettered import open_live, upsert
with open_live(Path({str(folder)!r})) as live:
    upsert(live, {{"f": "tinsel"}})
    live.delete(["a"])
    live.compact()
    upsert(live, {{"g": "google"}})
"""
    with open_live(folder) as live:
        assert contents(live.view()) == WORDS
        subprocess.run([sys.executable, "-c", code], check=True)
        assert contents(live.view()) == {id_: WORDS[id_] for id_ in "bcde"} | {"f": "tinsel", "g": "google"}
        assert live.view().name == current_name(folder) == "000002"


def test_a_manifest_of_before_changes_existed_still_opens(folder: Path) -> None:
    path = folder / "generations/000001/manifest.json"
    manifest = GenerationManifest.model_validate_json(path.read_text())
    path.write_text(manifest.model_dump_json(exclude={"changes_through"}))
    with open_live(folder) as live:
        assert live.view().pending == 0


def test_a_commit_waits_for_the_disk(folder: Path) -> None:
    with open_live(folder) as live:
        connection = live._writer()._connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_write_between_two_generations_goes_to_neither_blindly(folder: Path, monkeypatch) -> None:
    """Another generation becomes live after the writer looked, and before it has its transaction."""

    other = EncoderIdentity(name="other", digest="e" * 64)
    with open_live(folder) as live:
        look, looked = live._follow, []

        def published_just_after(wait: bool) -> None:
            look(wait)
            if not looked:
                looked.append(build([SourcedDocument(document("x", "onset"), "x")], embed, 26, other, folder))

        monkeypatch.setattr(live, "_follow", published_just_after)
        with pytest.raises(ReadOnlyFault, match="built with encoder other"):
            upsert(live, {"f": "tinsel"})
    with LiveIndex.open(folder, other) as live:
        assert contents(live.view()) == {"x": "onset"}


def test_no_change_is_made_while_a_generation_takes_its_place(folder: Path) -> None:
    with open_live(folder) as one, open_live(folder, busy_seconds=0.05) as other:
        upsert(one, {"f": "tinsel"})
        refused = []

        def settle(home: Path) -> None:
            with pytest.raises(BusyFault):
                upsert(other, {"g": "google"})
            refused.append(home)

        with new_generation(folder, settle) as home:
            view = one.view()
            fold(view, home, ENCODER, 26, view.embeddings, Aim())
        assert refused
        assert contents(one.view()) == contents(other.view()) == WORDS | {"f": "tinsel"}


def test_a_search_goes_on_while_a_generation_is_being_opened(folder: Path, monkeypatch) -> None:
    """One thread opens what another process published; those beside it do not wait for that."""
    opening, go_on = threading.Event(), threading.Event()
    read = Generation.read

    def slowly(home: Path, head: HeadVectors | None, verify: Verify) -> Generation:
        opening.set()
        assert go_on.wait(10)
        return read(home, head, verify)

    with open_live(folder) as live, open_live(folder) as other, ThreadPoolExecutor(1) as pool:
        upsert(other, {"f": "tinsel"})
        other.compact()
        monkeypatch.setattr(Generation, "read", slowly)
        first = pool.submit(live.view)
        try:
            assert opening.wait(10)
            # The log no longer has what this handle has not read; so it may only wait. It had read it, had it looked.
            waiting = threading.Thread(target=live.view)
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
        finally:
            go_on.set()
        assert first.result().name == "000002"
        waiting.join(10)

        monkeypatch.setattr(Generation, "read", read)
        upsert(other, {"g": "google"})
        live.view()
        other.compact()
        opening.clear(), go_on.clear()
        monkeypatch.setattr(Generation, "read", slowly)
        first = pool.submit(live.view)
        try:
            assert opening.wait(10)
            monkeypatch.setattr(Generation, "read", read)
            upsert(other, {"h": "hello"})
            assert live.view().name == "000002"
            assert contents(live.view()) == WORDS | {"f": "tinsel", "g": "google", "h": "hello"}
        finally:
            go_on.set()
        assert first.result().name == "000003"
        assert contents(first.result()) == WORDS | {"f": "tinsel", "g": "google", "h": "hello"}


def test_no_search_waits_for_a_generation_that_another_process_publishes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_open, opened = threading.Event(), Generation.open

    def slowly(*arguments: Any) -> Generation:
        assert may_open.wait(10)
        return opened(*arguments)

    with open_live(folder) as service, open_live(folder) as other:
        service.open_beside()
        build_letters(folder, {"n": "novel"})
        with monkeypatch.context() as slow:
            slow.setattr(Generation, "open", slowly)
            assert service.view().name == service.view().name == "000001"
            assert contents(service.view()) == WORDS
            may_open.set()
            deadline = time.monotonic() + 10
            while service.latest.name == "000001" and time.monotonic() < deadline:
                time.sleep(0.001)
        assert contents(service.view()) == contents(other.view()) == {"n": "novel"}
        build_letters(folder, {"o": "other"})
        assert contents(service.reload()) == {"o": "other"}  # who asks for it has it
