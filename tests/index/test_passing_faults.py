"""A fault that passes is over with: what is served afterwards is what was written."""

import threading
from pathlib import Path

import pytest

from index.documents import Documents
from index.filters import Filter, parse_filter
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
