"""The page while an answer is under way, and when somebody no longer waits for it."""

from typing import Any

import pytest

from tests.page.visits import hold, ids, said, search


def wait_until_told(page: Any) -> None:
    """That somebody waits, and how to stop it."""
    page.wait_for_function("() => document.querySelector('#search-status').innerText.includes('Esc stops')")


def test_escape_stops_and_leaves_the_question(page: Any, address: str) -> None:
    hold(page, "**/v1/search")
    search(page, address)
    wait_until_told(page)
    page.keyboard.press("Escape")
    assert said(page, "#search-status") == "Stopped."
    assert page.input_value("#search-query") == "listen"


@pytest.mark.parametrize("opened", ["", "#search?q=listen"])
def test_escape_stops_wherever_the_focus_is(page: Any, address: str, opened: str) -> None:
    hold(page, "**/v1/search")
    page.goto(f"{address}/{opened}")
    if not opened:
        page.click("#search-examples button >> nth=0")
    wait_until_told(page)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    assert said(page, "#search-status") == "Stopped."
    assert not page.locator(".busy").count()


def test_escape_stops_only_what_is_in_sight(page: Any, address: str) -> None:
    held = hold(page, "**/v1/search")
    search(page, address)
    page.wait_for_selector("#panel-search.busy")
    page.click("#tab-pair")
    page.keyboard.press("Escape")
    page.click("#tab-search")
    held[0].continue_()
    assert ids(page)


def test_what_is_stopped_leaves_no_answer_of_another_question(page: Any, address: str) -> None:
    search(page, address)
    ids(page)
    hold(page, "**/v1/search")
    page.fill("#search-query", "banana")
    page.press("#search-query", "Enter")
    page.wait_for_selector(".busy")
    page.keyboard.press("Escape")
    assert said(page, "#search-status") == "Stopped."
    assert not page.locator(".hit").count()
    assert page.input_value("#search-query") == "banana"


def test_choosing_who_scores_while_waiting_asks_anew(page: Any, address: str) -> None:
    hold(page, "**/v1/search")
    search(page, address)
    page.wait_for_selector(".busy")
    with page.expect_request("**/v1/search") as sent:
        page.check("#search-form input[value=teacher]", force=True)
    assert sent.value.post_data_json["rerank"] == "teacher"
    assert ids(page)


def test_choosing_who_scores_after_a_problem_asks_anew(page: Any, address: str) -> None:
    page.route("**/v1/compare", lambda route: route.fulfill(status=502, body="no"))
    page.goto(f"{address}/#candidates?q=listen&candidates=silent")
    page.wait_for_selector("#candidates-problem .problem")
    page.check("#candidates-form input[value=student]", force=True)
    assert ids(page) == ["candidate 1"]
    assert not page.inner_text("#candidates-problem")


def test_texts_that_are_swapped_while_waiting_are_asked_anew(page: Any, address: str) -> None:
    hold(page, "**/v1/similarity")
    page.goto(f"{address}/#pair?a=listen&b=silent")
    page.wait_for_selector("#panel-pair.busy")
    with page.expect_request("**/v1/similarity") as sent:
        page.click("#pair-swap")
    assert sent.value.post_data_json == {"pairs": [["silent", "listen"]]}
