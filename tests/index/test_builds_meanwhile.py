"""A build keeps what was changed while it ran, whatever ends it."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index import shards
from index.build import build
from index.changes import CHANGES_FILE, ChangeLog, Extent
from index.generations import new_generation
from index.live import LiveIndex
from index.manifest import BusyFault, EncoderIdentity, IndexFault, ReadOnlyFault
from index.sources import SourcedDocument
from tests.index.crash_build import small_shards
from tests.index.lettered import ENCODER, WORDS, build_letters, contents, document, embed, many, open_live, upsert


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


def test_compacting_what_is_being_built(folder: Path) -> None:
    with open_live(folder) as live:
        upsert(live, {"f": "tinsel"})
        with pytest.raises(BusyFault, match="being written by another process"), new_generation(folder):
            live.compact()
        assert contents(live.compact()) == WORDS | {"f": "tinsel"}
