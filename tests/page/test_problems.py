"""The page when the service refuses, is busy, or is not there, and where it lacks a part."""

from typing import Any

import pytest

from tests.page.conftest import DOCUMENTS, KEY
from tests.page.visits import hold, ids, said, search


def test_a_refusal_is_told_with_its_reason(page: Any, address: str) -> None:
    page.goto(f"{address}/#candidates")
    page.fill("#candidates-query", "listen")
    page.fill("#candidates-list", "stone\n" * 11)
    page.press("#candidates-query", "Enter")
    assert "DSE_MAX_TEACHER_PAIRS" in said(page, "#candidates-problem")
    assert "HTTP 413" in page.inner_text("#candidates-problem")
    assert page.get_attribute("#candidates-problem", "role") == "alert"
    assert not page.locator("#candidates-ways button").count()  # it would be refused again


@pytest.mark.parametrize(("status", "kind"), [(429, "overloaded"), (503, "unavailable")])
def test_busy_and_unready_say_when_to_come_back(page: Any, address: str, status: int, kind: str) -> None:
    refusal = {"status": status, "headers": {"Retry-After": "2"}, "json": {"error": {"type": kind, "message": "later"}}}
    page.route("**/v1/search", lambda route: route.fulfill(**refusal), times=1)
    search(page, address)
    assert "later" in said(page, "#search-problem")
    again = page.locator("[data-retry]")
    assert again.inner_text() in ("Try again in 2 seconds", "Try again in 1 second")
    assert again.is_disabled()
    again.click()  # waits until it may
    assert len(ids(page)) == len(DOCUMENTS)
    assert not page.inner_text("#search-problem")


def test_no_answer_is_told_and_passes(page: Any, address: str) -> None:
    search(page, address)
    ids(page)
    page.route("**/*", lambda route: route.abort())
    page.press("#search-query", "Enter")
    assert "did not answer" in said(page, "#search-problem")
    page.wait_for_selector("#health[data-health=silent]")
    page.unroute("**/*")
    page.click("[data-retry]")
    assert len(ids(page)) == len(DOCUMENTS)
    page.wait_for_selector("#health[data-health=ready]")


def test_what_is_no_answer_of_the_service_is_told(page: Any, address: str) -> None:
    page.route("**/v1/search", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
    search(page, address)
    assert "502" in said(page, "#search-problem")
    page.route("**/v1/search", lambda route: route.fulfill(status=200, body="{"))
    page.click("[data-retry]")
    page.wait_for_function("() => document.querySelector('#search-problem').innerText.includes('not JSON')")


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(page: Any, bare: str) -> None:
    page.goto(f"{bare}/#pair?a=listen&b=silent")
    page.wait_for_selector("#lock:visible")
    page.wait_for_selector("#health[data-health=locked]")
    assert page.evaluate("document.activeElement.id") == "lock-key"
    page.keyboard.type("not-the-key-0123456789")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#lock-said').innerText.includes('not known')")
    page.fill("#lock-key", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#pair-student .pair-score")  # what the address asked is asked now
    assert page.is_hidden("#lock")
    kept = "[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie, location.href]"
    session, *elsewhere = page.evaluate(kept)
    assert KEY in session
    assert not [place for place in elsewhere if KEY in place]
    page.reload()
    page.wait_for_selector("#pair-student .pair-score")
    page.click("#lock-forget")
    page.wait_for_selector("#lock:visible")
    assert page.evaluate("sessionStorage.length") == 0


def test_without_teacher_and_index_the_rest_works(page: Any, bare: str) -> None:
    page.add_init_script(f"sessionStorage.setItem('dse-key', '{KEY}')")
    page.goto(f"{bare}/#search?q=listen")
    assert "no index" in said(page, "#no-index")
    assert page.is_hidden("#search-form")
    page.click("#tab-pair")
    page.fill("#pair-first", "silent notes")
    page.fill("#pair-second", "listen")
    page.press("#pair-first", "Enter")
    page.wait_for_selector("#pair-student .pair-score")
    page.wait_for_function("() => document.querySelector('#pair-teacher').innerText.includes('No teacher is served')")
    page.click("#tab-candidates")
    assert page.is_checked("#candidates-form input[value=student]")
    assert page.is_disabled("#candidates-form input[value=both]")
    page.click("#candidates-examples button >> nth=0")
    page.wait_for_selector("#candidates-results .hit")


def test_without_a_teacher_nothing_is_done_to_what_somebody_writes(page: Any, bare: str) -> None:
    page.add_init_script(f"sessionStorage.setItem('dse-key', '{KEY}')")
    held = hold(page, "**/v1/models")
    page.goto(f"{bare}/#candidates")
    page.fill("#candidates-list", "first line\nsecond\n")
    page.evaluate("document.querySelector('#candidates-list').setSelectionRange(3, 3)")
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    page.wait_for_selector("#candidates-form input[value=both]:disabled", state="attached")
    assert page.is_checked("#candidates-form input[value=student]")
    assert page.input_value("#candidates-list") == "first line\nsecond\n"
    assert page.evaluate("document.querySelector('#candidates-list').selectionStart") == 3


def test_a_shared_comparison_without_a_teacher_offers_the_students_order(page: Any, bare: str) -> None:
    page.add_init_script(f"sessionStorage.setItem('dse-key', '{KEY}')")
    page.goto(f"{bare}/#candidates?q=listen&candidates=silent&by=both")
    assert "No teacher is served" in said(page, "#candidates-problem")
    page.click("[data-student]")
    page.wait_for_selector("#candidates-results .hit")
