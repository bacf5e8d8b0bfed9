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
