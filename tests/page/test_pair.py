"""A pair whose teacher does not answer: what the student said stays."""

from typing import Any

import pytest

from tests.page.visits import hold, said

BUSY = {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": {"type": "overloaded", "message": "later"}}}


@pytest.fixture
def waiting(page: Any, address: str) -> Any:
    """A pair that the student has scored and the teacher reads: the request it waits for."""
    held = hold(page, "**/v1/teacher/similarity")
    page.goto(f"{address}/#pair?a=listen&b=silent")
    page.wait_for_selector("#pair-student .pair-score")
    while not held:
        page.wait_for_timeout(20)
    return held[0]


def test_a_busy_teacher_leaves_the_students_answer(page: Any, waiting: Any) -> None:
    score = page.inner_text("#pair-student .pair-score")
    waiting.fulfill(**BUSY)
    page.wait_for_selector("#pair-teacher .problem")
    assert "later" in page.inner_text("#pair-teacher .problem")
    assert page.inner_text("#pair-student .pair-score") == score
    assert said(page, "#pair-status") == f"Student {score}. The service is busy."
    page.click("#pair-teacher [data-retry]")  # waits until it may
    page.wait_for_selector("#pair-teacher .pair-score")
    assert page.inner_text("#pair-student .pair-score") == score


def test_stopping_the_teacher_leaves_the_students_answer(page: Any, waiting: Any) -> None:
    score = page.inner_text("#pair-student .pair-score")
    page.keyboard.press("Escape")
    assert said(page, "#pair-status") == f"Student {score}. Stopped."
    assert page.inner_text("#pair-teacher").split() == ["Teacher", "Stopped."]
    assert page.inner_text("#pair-student .pair-score") == score


def test_a_pair_that_fails_leaves_no_answer_of_another(page: Any, waiting: Any) -> None:
    waiting.continue_()
    page.wait_for_selector("#pair-teacher .pair-score")
    page.route("**/v1/similarity", lambda route: route.fulfill(status=502, body="no"))
    page.click("#pair-swap")
    assert "502" in said(page, "#pair-problem")
    assert not page.locator(".pair-card").count()
