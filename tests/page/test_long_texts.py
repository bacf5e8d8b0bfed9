"""Documents as long as books, in a list that has others, too."""

from typing import Any

import pytest

from tests.page.visits import answer, ids, search

BOOK = "a whale, and a captain who hunts it. " * 5000


def height(page: Any) -> float:
    """Of the first hit, in pixels."""
    tall: float = page.evaluate("document.querySelector('.hit').getBoundingClientRect().height")
    return tall


@pytest.mark.parametrize("text", [BOOK, f"d: {BOOK}", "x" * 180_000, "line\n" * 1000, "\n" * 180_000])
def test_a_long_text_leaves_room_for_others_until_all_of_it_is_wanted(page: Any, address: str, text: str) -> None:
    answer(page, {"id": "d", "text": text}, {"id": "e"})
    search(page, address)
    assert ids(page) == ["d", "e"]
    assert height(page) < 600
    more = page.locator(".hit button")
    own = text.removeprefix("d: ")
    assert more.inner_text() == f"Show all {len(own):,} characters"
    assert more.get_attribute("aria-expanded") == "false"
    more.focus()
    page.keyboard.press("Enter")
    assert page.locator(".text").first.text_content().endswith(own)
    assert more.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Enter")  # the focus is where it was
    assert height(page) < 600
    assert more.is_visible()


def test_a_text_is_not_cut_within_a_character(page: Any, address: str) -> None:
    answer(page, {"text": "\N{WHALE}" * 1000}, {"text": "x" + "\N{WHALE}" * 1000})
    search(page, address)
    page.wait_for_selector(".hit")
    shown = page.locator(".text").all_text_contents()
    assert [set(text) for text in shown] == [{"\N{WHALE}", "…"}, {"x", "\N{WHALE}", "…"}]


def test_a_text_of_some_length_is_shown_whole(page: Any, address: str) -> None:
    answer(page, {"text": "word " * 200})
    search(page, address)
    page.wait_for_selector(".hit")
    assert page.text_content(".text") == "word " * 200
    assert not page.locator(".hit button").count()
