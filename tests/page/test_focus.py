"""Where the focus goes when a button does away with itself: never to the top of the page."""

from typing import Any

import pytest

from tests.page.conftest import KEY
from tests.page.visits import ids, search


def press(page: Any, selector: str) -> None:
    """Choose a button as somebody does who has no mouse."""
    page.focus(selector)
    page.keyboard.press("Enter")


def has_focus(page: Any, name: str) -> None:
    """Wait until it has, and see that the browser leaves it there when it has drawn the page."""
    page.wait_for_function("id => document.activeElement.id === id", arg=name)
    page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert page.evaluate("document.activeElement.id") == name


def test_a_value_that_was_chosen_gives_the_focus_to_the_results(page: Any, address: str) -> None:
    search(page, address)
    page.wait_for_selector(".hit")
    press(page, "button.value >> nth=0")
    has_focus(page, "search-results")


def test_searching_without_the_filter_gives_it_to_the_results(page: Any, address: str) -> None:
    search(page, address, filter='{"lang": "tlh"}')
    page.wait_for_selector("#search-unfiltered")
    press(page, "#search-unfiltered")
    has_focus(page, "search-results")
    assert ids(page)


@pytest.mark.parametrize("tab", ["search", "candidates", "pair"])
def test_an_example_gives_it_to_the_results(page: Any, address: str, tab: str) -> None:
    page.goto(f"{address}/#{tab}")
    page.wait_for_selector("#health[data-health=ready]")
    press(page, f"#{tab}-examples button >> nth=0")
    page.wait_for_selector(f"#{tab}-results :is(.hit, .compared, #pair-teacher .pair-score)")
    has_focus(page, f"{tab}-results")


def test_trying_again_gives_it_to_the_results(page: Any, address: str) -> None:
    page.route("**/v1/search", lambda route: route.fulfill(status=502, body="no"), times=2)
    search(page, address)
    for _ in range(2):  # also where it fails again
        page.wait_for_selector("[data-retry]")
        press(page, "[data-retry]")
        has_focus(page, "search-results")
    assert ids(page)


def test_typing_goes_on_where_it_was_when_an_answer_comes(page: Any, address: str) -> None:
    search(page, address)
    ids(page)
    has_focus(page, "search-query")


def test_a_key_gives_it_back_to_what_had_it(page: Any, address: str) -> None:
    locked = {"status": 401, "json": {"error": {"type": "unauthorized", "message": "a key, please"}}}
    page.route("**/v1/search", lambda route: route.fulfill(**locked), times=1)
    search(page, address)
    has_focus(page, "lock-key")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    assert ids(page)
    has_focus(page, "search-query")


def test_a_key_that_the_page_begins_with_gives_it_to_the_open_tab(page: Any, bare: str) -> None:
    page.goto(f"{bare}/#pair?a=listen&b=silent")
    has_focus(page, "lock-key")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#pair-student .pair-score")
    has_focus(page, "tab-pair")


def test_an_index_that_is_there_at_last_gives_it_to_the_query(page: Any, address: str) -> None:
    missing = {"status": 404, "json": {"error": {"type": "not_found", "message": "no index is loaded"}}}
    page.route("**/v1/index", lambda route: route.fulfill(**missing), times=1)
    page.goto(address)
    page.wait_for_selector("#no-index:visible")
    press(page, "#no-index-retry")
    has_focus(page, "search-query")
