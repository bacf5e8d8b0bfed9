"""Links to a question: as they were shared, as somebody changed them, and while the service is asked what it has."""

from typing import Any

import pytest

from tests.page.conftest import DOCUMENTS
from tests.page.visits import hold, ids


@pytest.mark.parametrize("unusable", ["k=abc", "k=0", "k=-1", "k=1.5", "k=", "depth=none", "depth=0", "by=nobody"])
def test_what_a_link_cannot_ask_for_is_as_usual(page: Any, address: str, unusable: str) -> None:
    page.goto(f"{address}/#search?q=listen&{unusable}")
    assert len(ids(page)) == len(DOCUMENTS)
    assert page.input_value("#search-query") == "listen"
    assert page.input_value("#search-k") == "10"
    assert page.input_value("#search-depth") == ""
    assert page.is_checked("#search-form input[value=head]")


def test_a_link_with_numbers_asks_for_them(page: Any, address: str) -> None:
    with page.expect_request("**/v1/search") as sent:
        page.goto(f"{address}/#search?q=listen&k=2&depth=5")
    assert sent.value.post_data_json == {"query": "listen", "k": 2, "depth": 5, "rerank": "head"}


def test_a_number_that_was_cleared_comes_back_with_its_link(page: Any, address: str) -> None:
    page.goto(f"{address}/#search?q=listen&k=2")
    assert len(ids(page)) == 2
    page.fill("#search-k", "3")
    page.press("#search-k", "Enter")
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 3")
    page.fill("#search-k", "")
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 2")
    assert page.input_value("#search-k") == "2"


def test_what_is_written_before_the_service_answers_stays(page: Any, address: str) -> None:
    held = hold(page, "**/readyz")
    page.goto(f"{address}/#search?q=listen")
    page.fill("#search-query", "banana")
    held[0].continue_()
    page.wait_for_selector("#health[data-health=ready]")
    page.wait_for_function("size => document.querySelector('#index-size').innerText === size", arg=str(len(DOCUMENTS)))
    assert page.input_value("#search-query") == "banana"
    assert not page.locator(".busy, .hit").count()
    page.press("#search-query", "Enter")
    assert ids(page)
    page.go_back()  # to the link, which nobody wrote over since
    page.wait_for_function("() => document.querySelector('#search-query').value === 'listen'")


def test_what_is_asked_before_the_service_answers_is_answered_once(page: Any, address: str) -> None:
    held = hold(page, "**/readyz")
    searches: list[str] = []
    page.on("request", lambda request: searches.append(request.url) if "/v1/search" in request.url else None)
    page.goto(f"{address}/#search?q=listen")
    page.fill("#search-query", "banana")
    page.press("#search-query", "Enter")
    assert ids(page)
    for each in held:
        each.continue_()
    page.wait_for_selector("#health[data-health=ready]")
    assert page.evaluate("location.hash") == "#search?q=banana"
    assert page.input_value("#search-query") == "banana"
    assert len(searches) == 1
