"""Searching with the page at / in a real browser, which asks a real service."""

from typing import Any

import pytest

from tests.page.conftest import SCRIPT
from tests.page.visits import asked, ids, said, search


def test_a_search_shows_the_services_hits(page: Any, address: str) -> None:
    search(page, address)
    expected = asked(address, "/v1/search", {"query": "listen"})["hits"]
    assert ids(page) == [hit["id"] for hit in expected]
    assert page.locator(".hit-score").all_inner_texts() == [f"{hit['score']:.3f}" for hit in expected]
    assert said(page, "#search-status").startswith("7 results by tiny-student")
    assert page.evaluate("location.hash") == "#search?q=listen"


@pytest.mark.parametrize("by", ["head", "none", "teacher"])
def test_who_scores_is_who_was_chosen(page: Any, address: str, by: str) -> None:
    search(page, address, by=by)
    expected = asked(address, "/v1/search", {"query": "listen", "rerank": by})["hits"]
    assert ids(page) == [hit["id"] for hit in expected]
    assert page.locator(".hit-score").all_inner_texts() == [f"{hit['score']:.3f}" for hit in expected]


def test_results_and_depth_are_sent(page: Any, address: str) -> None:
    page.goto(address)
    page.fill("#search-k", "2")
    page.fill("#search-depth", "5")
    page.fill("#search-query", "stone")
    with page.expect_request("**/v1/search") as sent:
        page.press("#search-depth", "Enter")
    assert sent.value.post_data_json == {"query": "stone", "k": 2, "depth": 5, "rerank": "head"}
    assert len(ids(page)) == 2


def test_markup_in_documents_is_text(page: Any, address: str) -> None:
    search(page, address, query="stones")
    page.wait_for_selector(".hit")
    shown = page.inner_text("#search-results")
    assert shown.count(SCRIPT) == 4  # id, text, name and value of its metadata
    assert page.locator("#search-results :is(img, script)").count() == 0
    page.check("#search-form input[value=both]", force=True)
    page.wait_for_selector(".compared")
    assert page.inner_text("#search-results").count(SCRIPT) == 2
    assert page.locator("#search-results :is(img, script)").count() == 0


def test_a_shared_address_asks_again(page: Any, address: str) -> None:
    search(page, address, query="stone & notes?", filter='{"lang": "en"}')
    found, shared = ids(page), page.url
    page.goto("about:blank")
    page.goto(shared)
    assert ids(page) == found == page.locator(".text-id").all_inner_texts()
    assert page.input_value("#search-query") == "stone & notes?"
    assert page.input_value("#search-filter") == '{"lang": "en"}'


def test_back_returns_to_the_search_before(page: Any, address: str) -> None:
    search(page, address, query="banana")
    before = ids(page)
    page.fill("#search-query", "silent")
    with page.expect_response("**/v1/search"):
        page.click("#search-submit")
    page.click("#tab-pair")
    page.go_back()
    page.go_back()
    page.wait_for_function("() => document.querySelector('#search-query').value === 'banana'")
    page.wait_for_function("first => document.querySelector('.text-id')?.innerText === first", arg=before[0])


def test_only_the_last_question_is_answered(page: Any, address: str) -> None:
    held: list[Any] = []
    page.route("**/v1/search", lambda route: held.append(route) if not held else route.continue_())
    search(page, address, query="banana")
    page.wait_for_selector(".busy")
    page.fill("#search-query", "silent")
    page.press("#search-query", "Enter")
    assert ids(page)[0] == asked(address, "/v1/search", {"query": "silent"})["hits"][0]["id"]
    assert held[0].request.failure  # the browser hung up
    assert not page.locator(".busy").count()


def test_escape_stops_waiting(page: Any, address: str) -> None:
    held: list[Any] = []
    page.route("**/v1/search", lambda route: held.append(route))
    search(page, address)
    page.wait_for_function("() => document.querySelector('#search-status').innerText.includes('Esc stops')")
    page.press("#search-query", "Escape")
    assert said(page, "#search-status") == "Stopped."
    assert not page.locator(".busy").count()
