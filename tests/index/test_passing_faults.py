"""A fault that passes is over with: what is served afterwards is what was written."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from index.documents import Documents
from index.filters import Filter, parse_filter
from index.generations import Generation
from index.live import LiveIndex
from index.manifest import IndexFault
from index.view import _Delta
from tests.index.lettered import WORDS, build_letters, contents, document, embed, open_live, upsert


@pytest.mark.parametrize("passing", [OSError("disk I/O error"), MemoryError()])
def test_changes_that_could_not_be_taken_in_are_taken_in_by_the_next_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch, passing: BaseException
) -> None:
    append = _Delta.append

    def failing(*_):
        raise passing

    def failing_at_the_second(delta, found, vector):
        if found.id == "g":
            raise passing
        append(delta, found, vector)

    changed = WORDS | {"f": "tinsel", "g": "google"}
    with open_live(folder) as live, open_live(folder) as other:
        upsert(other, {"f": "tinsel", "g": "google"})
        for owner, name, instead in ((Documents, "rows_of", failing), (_Delta, "append", failing_at_the_second)):
            with monkeypatch.context() as broken:
                broken.setattr(owner, name, instead)
                with pytest.raises(type(passing)):
                    live.view()
        assert contents(live.view()) == changed
        upsert(other, {"f": "stone", "h": "hello"})
        assert contents(live.view()) == {**WORDS, "g": "google", "f": "stone", "h": "hello"}
        for id_ in "gh":
            best = live.view().search(embed([contents(live.view())[id_]])[0], 1)
            assert [hit.id for hit in live.view().documents(best.rows)] == [id_]


def test_a_generation_is_opened_beside_the_searches_once_a_thread_can_be_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    with open_live(folder) as live:
        live.open_beside()
        build_letters(folder, {"n": "novel"})
        with monkeypatch.context() as broken:
            broken.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match="can't start"):
                live.view()
        assert not live._opening.locked()
        assert contents(live.reload()) == {"n": "novel"}


def later(live: LiveIndex) -> None:
    """As if :data:`index.live.SECONDS_AFTER_A_FAULT` had passed."""
    if live._again_at is not None:
        assert live._again_at > time.monotonic() + 5
        live._again_at = time.monotonic()


@pytest.mark.parametrize(("fault", "passes"), [(OSError(24, "Too many open files"), True), (None, False)])
def test_a_generation_that_could_not_be_opened_is_opened_later_if_the_system_was_at_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError | None, passes: bool
) -> None:
    """Of one that is damaged, nothing is read again until it is asked for."""
    opened: list[Path] = []
    generation_open = Generation.open

    def failing(folder: Path, *options: object) -> Generation:
        opened.append(folder)
        raise IndexFault("metadata cannot be read") from fault

    with open_live(folder) as live:
        build_letters(folder, {"n": "novel"})
        with monkeypatch.context() as broken:
            broken.setattr(Generation, "open", failing)
            for _ in range(3):
                assert contents(live.view()) == WORDS
            assert len(opened) == 1
            assert "metadata cannot be read" in (live.stays_because or "")
            later(live)
            live.view()
            assert len(opened) == (2 if passes else 1)
        monkeypatch.setattr(Generation, "open", generation_open)
        later(live)
        assert contents(live.view()) == ({"n": "novel"} if passes else WORDS)
        assert contents(live.reload()) == {"n": "novel"}
        assert live.stays_because is None


def test_a_filter_that_takes_long_holds_up_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pending documents are asked beside each other; what is found of the most of them is remembered."""
    matches, begun, go_on = Filter.matches, threading.Event(), threading.Event()
    slow = parse_filter({"length": 6})

    def matching(self: Filter, metadata: Mapping[str, object]) -> bool:
        if self == slow and threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(60)
        return matches(self, metadata)

    monkeypatch.setattr(Filter, "matches", matching)
    with open_live(folder) as live, ThreadPoolExecutor(1) as threads:
        upsert(live, {"f": "tinsel", "g": "go"})
        delta = live.view()._delta
        waiting = threads.submit(delta.matching, slow, 1)
        assert begun.wait(60)
        assert delta.matching(parse_filter({"length": 2}), 2).tolist() == [False, True]
        assert delta.matching(slow, 2).tolist() == [True, False]
        go_on.set()
        assert waiting.result().tolist() == [True]
        monkeypatch.setattr(Filter, "matches", lambda *_: pytest.fail("it is remembered"))
        assert delta.matching(slow, 2).tolist() == [True, False]


def test_what_a_filter_says_of_pending_documents_is_asked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    matches = Filter.matches

    def counted(self, metadata):
        asked.append(metadata)
        return matches(self, metadata)

    monkeypatch.setattr(Filter, "matches", counted)
    with open_live(folder) as live:

        def found() -> set[str]:
            view = live.view()
            hits = view.search(embed(["silent"])[0], 10, parse_filter({"length": 6}))
            return {hit.id for hit in view.documents(hits.rows)}

        upsert(live, {"f": "tinsel", "g": "go"})
        for _ in range(3):
            assert (found(), len(asked)) == ({"a", "b", "e", "f"}, 2)
        upsert(live, {"h": "banana"})
        assert (found(), len(asked)) == ({"a", "b", "e", "f", "h"}, 3)


def test_the_last_few_filters_are_remembered(folder: Path) -> None:
    with open_live(folder) as live:
        live.upsert([document("f", "tinsel")], embed(["tinsel"]))
        delta = live.view()._delta
        for length in range(40):
            assert delta.matching(parse_filter({"length": length}), 1).tolist() == [length == 6]
        assert 1 < len(delta._matching) < 40
