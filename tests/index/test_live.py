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
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from index import shards
from index.build import build
from index.changes import CHANGES_FILE, ChangeLog, Extent
from index.compaction import fold
from index.filters import parse_filter
from index.finish import SearchWanted
from index.generations import Generation, current_name, new_generation
from index.live import LiveIndex
from index.manifest import (
    BusyFault,
    EncoderIdentity,
    GenerationManifest,
    IndexFault,
    ReadOnlyFault,
    RecipeFault,
    Verify,
)
from index.nearest import HeadVectors
from index.recipes import plan
from index.sources import SourcedDocument
from index.view import View
from tests.index.crash_build import small_shards
from tests.index.lettered import ENCODER, build_letters, check_search, contents, document, embed, open_live, upsert

WORDS = {"a": "listen", "b": "silent", "c": "stone", "d": "notes", "e": "banana"}
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_letters(tmp_path / "index", WORDS)


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


def test_a_compacted_generation_is_a_fresh_build_row_by_row(tmp_path: Path, folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel", "a": "google"})
        live.delete(["c"])
        view = live.compact()
        assert (view.name, view.pending, view.manifest.changes_through) == ("000002", 0, 3)
        assert view.rows().tolist() == list(range(5))
        fresh = build_letters(tmp_path / "fresh", contents(view))
    ours, theirs = folder / "generations/000002", fresh / "generations/000001"
    for name in ("embeddings.npy", "candidates.faiss"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    rows = np.arange(5)
    assert Generation.read(ours).documents(rows) == Generation.read(theirs).documents(rows)


def test_writes_during_a_compaction_survive_it(folder: Path, monkeypatch) -> None:
    import index.live as live_module

    with open_live(folder) as live, open_live(folder) as other:
        upsert(live, {"f": "tinsel"})

        def fold_while_others_write(*arguments):
            upsert(live, {"a": "google"})
            other.delete(["b", "f"])
            return fold(*arguments)

        monkeypatch.setattr(live_module, "fold", fold_while_others_write)
        view = live.compact()
        assert (view.name, len(view.generation), view.pending) == ("000002", 6, 3)
        expected = {id_: WORDS[id_] for id_ in "cde"} | {"a": "google"}
        assert contents(view) == contents(other.view()) == expected
    with open_live(folder) as live:
        assert contents(live.view()) == expected


def test_sequence_numbers_are_never_given_twice(folder: Path) -> None:
    with open_live(folder) as live:
        for word in ("one", "two"):
            upsert(live, {word: word})
            live.compact()
        assert live.view().through == 2
    with open_live(folder) as live:
        upsert(live, {"three": "three"})
        assert live.view().through == 3


def test_an_index_whose_last_document_was_deleted(folder: Path) -> None:
    with open_live(folder) as live, open_live(folder, writable=False) as other:
        assert live.delete(WORDS) == 5
        for _ in range(2):
            for view in (live.view(), other.view()):
                assert len(view) == 0
                assert len(view.search(embed(["listen"])[0], 10).rows) == 0
            live.compact()
    with open_live(folder) as live:
        assert len(live.view().search(embed(["listen"])[0], 10).rows) == 0
        upsert(live, {"x": "stone"})
        check_search(live.view(), {"x": "stone"}, "notes", 5)
        live.compact()
        assert contents(live.view()) == {"x": "stone"}


@pytest.mark.parametrize("recipe", ["SQ8", "HNSW8"])
def test_a_recipe_that_needs_training_survives_an_empty_generation(tmp_path: Path, recipe: str) -> None:
    with open_live(build_letters(tmp_path / "index", WORDS, recipe)) as live:
        live.delete(WORDS)
        empty = live.compact()
        assert (len(empty), empty.manifest.recipe, empty.manifest.named) == (0, "Flat", recipe)
        upsert(live, WORDS)
        assert live.compact().manifest.recipe == recipe
        assert contents(live.view()) == WORDS


def many(count: int) -> dict[str, str]:
    rng = random.Random(7)
    return {f"d{n}": "".join(rng.choices("abcdefgh", k=7)) for n in range(count)}


@pytest.mark.parametrize(
    ("recipe", "left"),
    [("IVF16,Flat", 0), ("IVF16,Flat", 15), ("IVF4,PQ13x4fs", 3), ("PCA8,IVF8,SQ8", 1), ("HNSW8_PQ13x4", 1)],
)
def test_an_index_that_shrank_below_its_recipe_is_compacted_and_grows_again(
    tmp_path: Path, recipe: str, left: int
) -> None:
    texts = many(60)
    few = dict(list(texts.items())[:left])
    with open_live(build_letters(tmp_path / "index", texts, recipe)) as live:
        assert live.delete(set(texts) - set(few)) == 60 - left
        view = live.compact()
        assert (view.pending, view.manifest.named) == (0, recipe)
        assert contents(view) == few
        if few:
            check_search(view, few, "abcabc", 5)
    with open_live(tmp_path / "index") as live:
        upsert(live, texts)
        assert live.compact().manifest.recipe == recipe
        assert contents(live.view()) == texts


def test_a_named_recipe_that_is_proven_no_longer_is_left_for_one_that_is(tmp_path: Path, monkeypatch, caplog) -> None:
    import index.compaction as compaction

    def unproven(embeddings, path, recipe, wanted):
        if recipe == "HNSW8":
            raise RecipeFault("recall@10 of 0.95 is not proven for HNSW8")
        return make_search(embeddings, path, recipe, wanted)

    make_search = compaction.make_search
    with open_live(build_letters(tmp_path / "index", WORDS, "HNSW8")) as live:
        monkeypatch.setattr(compaction, "make_search", unproven)
        upsert(live, {"f": "tinsel"})
        view = live.compact()
        assert (view.manifest.recipe, view.manifest.named) == ("Flat", "HNSW8")
        assert view.manifest.proof is not None
        assert "HNSW8 is left for now" in caplog.text
        assert "is not proven for HNSW8" in caplog.text


def test_a_recipe_that_was_chosen_is_chosen_again_for_the_rows_there_are(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("index.recipes.FLAT_ROWS", 50)
    texts = many(200)
    build_letters(tmp_path / "index", texts, None)
    with open_live(tmp_path / "index") as live:
        assert live.view().manifest.recipe == "IVF4,SQ8"
        live.delete(list(texts)[40:])
        view = live.compact()
        assert (view.manifest.recipe, view.manifest.named) == ("Flat", None)
        check_search(view, dict(list(texts.items())[:40]), "abcabc", 5)
        upsert(live, texts)
        assert live.compact().manifest.recipe == "IVF4,SQ8"


def test_a_recipe_that_is_chosen_again_keeps_to_the_memory_where_it_can(tmp_path: Path, monkeypatch) -> None:

    monkeypatch.setattr("index.recipes.TRAINING_ROWS", 64)
    texts = many(300)
    memory = plan("IVF4,SQ8", 300, 26).build_bytes
    assert memory < plan("Flat", 300, 26).build_bytes
    sourced = [SourcedDocument(document(*item), item[0]) for item in texts.items()]
    build(sourced, embed, 26, ENCODER, tmp_path / "index", None, search=SearchWanted(memory=memory))
    with open_live(tmp_path / "index") as live:
        assert live.view().manifest.recipe == "IVF4,SQ8"
        live.delete(["d0"])
        assert live.compact().manifest.recipe == "IVF4,SQ8"
        upsert(live, {f"more{n}": text for n, text in enumerate(texts.values())})  # which nothing fits any more
        view = live.compact()
        assert view.manifest.memory == memory
        assert len(view) == 599


def test_a_manifest_of_before_recipes_were_chosen_again_keeps_its_own(folder: Path) -> None:
    path = folder / "generations/000001/manifest.json"
    manifest = GenerationManifest.model_validate_json(path.read_text())
    path.write_text(manifest.model_dump_json(exclude={"named", "memory"}))
    with open_live(folder) as live:
        assert live.view().manifest.named == "Flat"


def test_a_build_replaces_the_documents_and_keeps_what_came_meanwhile(folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"before": "before"})
        view = live.view()

        class Slow:
            """An encoder during whose work something is added."""

            def encode(self, texts: list[str]) -> np.ndarray:
                if len(live.view()) == len(view):
                    upsert(live, {"meanwhile": "meanwhile"})
                return embed(texts)

        build([SourcedDocument(document("x", "onset"), "x")], Slow().encode, 26, ENCODER, folder)
        assert live.view().name == "000002"
        assert contents(live.view()) == {"x": "onset", "meanwhile": "meanwhile"}


class Meanwhile:
    """An encoder during whose first work something is done."""

    def __init__(self, do) -> None:
        self._do, self.done = do, False

    def __call__(self, texts: list[str]) -> np.ndarray:
        if not self.done:
            self.done = True
            self._do()
        return embed(texts)


def new_documents() -> list[SourcedDocument]:
    return [SourcedDocument(document(id_, text), id_) for id_, text in {"x": "onset", "a": "enlist"}.items()]


def test_a_build_keeps_what_was_changed_and_compacted_meanwhile(folder: Path) -> None:
    with open_live(folder) as live, open_live(folder, writable=False) as other:
        upsert(live, {"before": "before"})
        live.compact()

        def changed_and_compacted() -> None:
            upsert(live, {"meanwhile": "meanwhile", "x": "replaced"})
            live.compact()
            live.delete(["a", "b"])
            live.compact()
            upsert(live, {"last": "last"})

        build(new_documents(), Meanwhile(changed_and_compacted), 26, ENCODER, folder)
        expected = {"meanwhile": "meanwhile", "x": "replaced", "last": "last"}
        assert contents(live.view()) == contents(other.view()) == expected
        assert (live.view().through, live.view().pending) == (6, 5)
        assert live.compact().pending == 0
        with closing(ChangeLog(folder / CHANGES_FILE, writable=False)) as log:
            assert log.extent() == Extent(6, 6)


def test_an_interrupted_build_keeps_them_too_and_its_changes_are_dropped_once_it_is_published(folder: Path) -> None:
    def dies() -> None:
        raise KeyboardInterrupt

    with open_live(folder) as live, small_shards():
        words = [SourcedDocument(document(id_, text), id_) for id_, text in many(9).items()]
        encode = Meanwhile(lambda: None)
        with pytest.raises(KeyboardInterrupt):
            build(
                words, lambda texts: dies() if words[8].document.text in texts else encode(texts), 26, ENCODER, folder
            )
        upsert(live, {"meanwhile": "meanwhile"})
        live.compact()
        live.delete(["d0", "meanwhile"])
        upsert(live, {"d1": "replaced"})
        live.compact()
        build(words, embed, 26, ENCODER, folder)
        expected = many(9) | {"d1": "replaced"}
        assert contents(live.view()) == expected
        assert live.view().pending == 3


def test_a_build_that_is_given_up_keeps_no_change_in_the_log(folder: Path) -> None:
    with open_live(folder) as live, small_shards():
        words = [SourcedDocument(document(id_, text), id_) for id_, text in many(9).items()]
        with pytest.raises(ZeroDivisionError):
            build(words, lambda texts: 1 / 0 if words[8].document.text in texts else embed(texts), 26, ENCODER, folder)
        upsert(live, {"meanwhile": "meanwhile"})
        live.compact()
        build(new_documents(), embed, 26, ENCODER, folder, resume=False)
        assert contents(live.view()) == {"x": "onset", "a": "enlist"}


def test_an_unfinished_build_of_before_the_log_was_replaced_is_refused_at_once(folder: Path) -> None:
    words = [SourcedDocument(document(id_, text), id_) for id_, text in many(9).items()]
    with small_shards():
        with pytest.raises(ZeroDivisionError):
            build(words, lambda texts: 1 / 0 if words[8].document.text in texts else embed(texts), 26, ENCODER, folder)
        ChangeLog.create(folder / CHANGES_FILE, 3)
        with pytest.raises(
            IndexFault, match=r"began after change 0, and the changes through 3 are no longer .*--fresh"
        ):
            build(words, lambda texts: pytest.fail("something is embedded"), 26, ENCODER, folder)


def test_changes_that_are_dropped_as_a_build_begins_are_part_of_what_it_replaces(folder: Path, monkeypatch) -> None:
    """Between the moment a build looks for the last change, and the moment it says so, all is changed and compacted."""
    with open_live(folder) as live:
        begin = shards.write_durably

        def late(path: Path, content: bytes) -> None:
            monkeypatch.undo()
            upsert(live, {"early": "early"})
            live.compact()
            begin(path, content)

        monkeypatch.setattr(shards, "write_durably", late)
        build(new_documents(), Meanwhile(lambda: upsert(live, {"late": "late"})), 26, ENCODER, folder)
        assert contents(live.view()) == {"x": "onset", "a": "enlist", "late": "late"}


def test_what_a_build_left_when_it_died_after_publishing_holds_no_change_back(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("index.shards.shutil.rmtree", lambda *_, **__: None)
        build(new_documents(), embed, 26, ENCODER, folder)
    with open_live(folder) as live:
        for text in ("one", "two"):
            upsert(live, {text: text})
            live.compact()
        with closing(ChangeLog(folder / CHANGES_FILE, writable=False)) as log:
            assert log.extent() == Extent(2, 2)
        build(new_documents(), embed, 26, ENCODER, folder)
        assert contents(live.view()) == {"x": "onset", "a": "enlist"}


def test_a_build_with_another_encoder_refuses_to_lose_what_came_meanwhile(folder: Path) -> None:

    other = EncoderIdentity(name="other", digest="e" * 64)
    with open_live(folder) as live:

        def encode(texts: list[str]) -> np.ndarray:
            upsert(live, {"meanwhile": "meanwhile"})
            return embed(texts)

        with pytest.raises(IndexFault, match="dse index rebuild"):
            build([SourcedDocument(document("x", "onset"), "x")], encode, 26, other, folder)
        assert contents(live.view()) == WORDS | {"meanwhile": "meanwhile"}


def test_a_service_of_the_encoder_before_goes_on_serving_and_may_not_write(folder: Path) -> None:

    other = EncoderIdentity(name="other", digest="e" * 64)
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        build([SourcedDocument(document("x", "onset"), "x")], embed, 26, other, folder)
        assert contents(live.view()) == WORDS | {"f": "tinsel"}
        with pytest.raises(ReadOnlyFault, match=r"built with encoder other .*can no longer be changed"):
            upsert(live, {"g": "google"})
        assert live.stays_because is not None
        assert "was built with encoder other" in live.stays_because
        with pytest.raises(ReadOnlyFault, match="built with encoder other"):
            live.reload()
        with LiveIndex.open(folder, other, writable=True) as theirs:
            theirs.upsert([document("y", "stone")], embed(["stone"]))
            assert contents(theirs.view()) == {"x": "onset", "y": "stone"}
        assert contents(live.view()) == WORDS | {"f": "tinsel"}
        build_letters(folder, {"z": "again"})
        assert contents(live.view()) == {"z": "again"}
        assert live.stays_because is None


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


def test_compacting_what_is_being_built(folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        with pytest.raises(BusyFault, match="being written by another process"), new_generation(folder):
            live.compact()
        assert contents(live.compact()) == WORDS | {"f": "tinsel"}


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
            fold(view, home, ENCODER, 26, view.embeddings)
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
