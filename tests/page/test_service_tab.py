"""What the Service tab says when the service says nothing, or not all."""

from typing import Any

import pytest

from tests.page.conftest import DOCUMENTS
from tests.page.visits import said


def refusal(status: int, message: str) -> dict[str, Any]:
    return {"status": status, "json": {"error": {"type": "unavailable", "message": message}}}


def asked_again(page: Any) -> str:
    """What the tab says of its last question to the service."""
    page.click("#service-refresh:enabled")
    page.wait_for_selector("#service-refresh:enabled")
    return said(page, "#service-status")


def test_a_service_that_is_gone_has_no_number_of_documents_now(page: Any, address: str) -> None:
    page.goto(f"{address}/#service")
    assert asked_again(page).startswith(f"{len(DOCUMENTS)} documents, asked at ")
    page.route("**/*", lambda route: route.abort())
    assert asked_again(page).startswith("The service did not answer.")
    shown = page.inner_text("#service-facts")
    assert "The service did not answer." in shown
    assert "What follows may be old." in shown
    page.unroute("**/*")
    assert asked_again(page).startswith(f"{len(DOCUMENTS)} documents, asked at ")
    assert "may be old" not in page.inner_text("#service-facts")


@pytest.mark.parametrize("route", ["readyz", "v1/index", "v1/models"])
def test_what_could_not_be_read_is_told(page: Any, address: str, route: str) -> None:
    page.route(f"**/{route}", lambda route: route.fulfill(**refusal(503, "still loading")))
    page.goto(f"{address}/#service")
    page.wait_for_selector("#service-facts dl")
    assert asked_again(page) == "still loading"
    assert "still loading" in page.inner_text("#service-facts")


def test_only_the_service_says_that_there_is_no_index(page: Any, address: str) -> None:
    page.goto(f"{address}/#service")
    page.route("**/v1/index", lambda route: route.fulfill(**refusal(404, "no index is loaded")))
    assert asked_again(page).startswith("No index, asked at ")
    assert "Because\nno index is loaded" in page.inner_text("#service-facts")
