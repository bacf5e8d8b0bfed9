"""The page's field for a filter: what it reads, explains and sends."""

import json
from typing import Any

import pytest

from index.filters import FilterError, parse_filter
from tests.page.conftest import DOCUMENTS, SCRIPT
from tests.page.visits import ids, said, search

ALL_TEXTS = {document.text for document in DOCUMENTS}


def test_a_filter_narrows_and_says_what_it_finds(page: Any, address: str) -> None:
    search(page, address, filter='{"lang": "en", "year": {"$gte": 2020}}')
    assert ids(page) == ["w/silent"]
    assert said(page, "#filter-told") == 'Finds: lang is "en" and year ≥ 2020'


def test_a_filter_that_finds_nothing_offers_to_go_without(page: Any, address: str) -> None:
    search(page, address, filter='{"lang": "tlh"}')
    page.click("#search-unfiltered")
    assert set(page.locator(".text").all_inner_texts()) <= ALL_TEXTS | {f"stones {SCRIPT}"}
    assert len(ids(page)) == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("{'lang': 'en'}", "double quotes"),
        ('{"lang": "en"', "still open"),
        ('{"lang": "en",}', "comma"),
        ("lang = en", "object such as"),
        ('{lang: "en"}', "names are in double quotes"),
        ("{“lang”: “en”}", "curly"),
        ('{"draft": True}', "small letters"),
    ],
)
def test_what_is_no_json_is_explained_and_not_sent(page: Any, address: str, written: str, mistake: str) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    search(page, address, filter=written)
    assert mistake in said(page, "#filter-told")
    assert page.get_attribute("#search-filter", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "search-filter"
    assert not [url for url in sent if url.endswith("/v1/search")]


def test_what_the_service_has_against_a_filter_is_shown_at_the_filter(page: Any, address: str) -> None:
    search(page, address, filter='{"year": {"$above": 2020}}')
    page.wait_for_selector("#search-problem .problem")
    for place in ("#search-problem", "#filter-told"):
        assert "year.$above: no such operator" in said(page, place)
    assert page.get_attribute("#search-filter", "aria-invalid") == "true"


def test_large_numbers_in_a_filter_arrive_whole(page: Any, address: str) -> None:
    with page.expect_request("**/v1/search") as sent:
        search(page, address, filter='{"year": 12345678901234567891}')
    assert json.loads(sent.value.post_data)["filter"] == {"year": 12345678901234567891}


FILTERS = [
    {}, {"lang": "en"}, {"lang": None, "draft": True}, {"year": {"$gte": 2020, "$lt": 2024}}, {"year": 1.5},
    {"tags": {"$in": ["a", 1, None]}}, {"tags": {"$in": []}}, {"tags": {"$in": "a"}}, {"tags": {"$nin": [["a"]]}},
    {"tags": ["a"]}, {"author": {"name": "Ada"}}, {"author": {}}, {"author.name": {"$exists": True}},
    {"author": {"$exists": 1}}, {"year": {"$gt": None}}, {"year": {"$gt": False}}, {"year": {"$gt": [1]}},
    {"year": {"$gt": "b"}}, {"$or": [{"lang": "en"}, {"year": {"$ne": 1}}]}, {"$or": []}, {"$or": {"lang": "en"}},
    {"$and": [1]}, {"$and": [{"$or": [{"a": {"$foo": 1}}]}]}, {"$not": {"lang": "en"}}, {"$not": ["a"]},
    {"year": {"constructor": 5}}, {"year": {"toString": "a"}},
    {"lang": {"$not": {"$eq": "en"}}}, {"lang": {"$not": "en"}}, {"lang": {"$not": {}}}, {"$in": ["a"]}, {"$foo": 1},
    [], "en", None, 3, {"lang": {"$eq": {"a": 1}}}, {"lang": {"$ne": ["a"]}}, {"": ""}, {"a": {"$not": {"b": 1}}},
    json.loads('{"$not": ' * 20 + "{}" + "}" * 20), json.loads('{"$not": ' * 15 + "{}" + "}" * 15),
    json.loads('{"a": {"$not": ' + '{"$not": ' * 20 + "{}" + "}" * 22),
]  # fmt: skip


def test_the_page_reads_filters_as_the_service_does(page: Any, address: str) -> None:
    def place(value: Any) -> str | None:
        try:
            parse_filter(value)
        except FilterError as error:
            return error.place
        return None

    page.goto(address)
    told = page.evaluate(
        """async filters => {
            const { faultOf, inWords } = await import("/ui/filter.js");
            return filters.map(each => {
                const fault = faultOf(each);
                return [fault && fault.place, fault ? "" : inWords(each)];
            });
        }""",
        FILTERS,
    )
    assert [fault for fault, _ in told] == [place(value) for value in FILTERS]
    assert all(words for fault, words in told if fault is None)
