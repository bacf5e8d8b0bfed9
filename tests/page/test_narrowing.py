"""Values of a result's metadata, and the filter that choosing one makes."""

import json
from typing import Any

import pytest

from tests.page.visits import answer, ids, search

LARGE = 12345678901234567891  # not a number that JavaScript has


def narrowed(page: Any, text: str, field: str, value: object) -> str:
    """What the page makes of a filter when a value is chosen."""
    script = """async ([text, field, value]) => (await import("/ui/filter.js")).narrowed(text, field, value)"""
    written: str = page.evaluate(script, [text, field, value])
    return written


def test_choosing_a_value_of_a_result_narrows(page: Any, address: str) -> None:
    search(page, address)
    page.click("button.value:text-is('music') >> nth=0")
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 2")
    assert json.loads(page.input_value("#search-filter")) == {"tags": "music"}
    page.click("button.value:text-is('2019')")
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 1")
    assert json.loads(page.input_value("#search-filter")) == {"tags": "music", "year": 2019}


def test_two_values_of_one_field_are_both_asked_for(page: Any, address: str) -> None:
    search(page, address)
    page.click("button.value:text-is('music') >> nth=0")
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 2")
    page.click("button.value:text-is('news')")
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 1")
    assert json.loads(page.input_value("#search-filter")) == {"$and": [{"tags": "music"}, {"tags": "news"}]}
    assert ids(page) == ["w/listen"]


@pytest.mark.parametrize(
    ("written", "then"),
    [
        ("", {"a": 1}),
        (" {} ", {"a": 1}),
        ('\n{"b": 2\n}\n', {"b": 2, "a": 1}),
        ('{"$or": [{"a": 2}, {"a": 1}]}', {"$or": [{"a": 2}, {"a": 1}], "a": 1}),
        ('{"a": 1, "b": 2}', {"a": 1, "b": 2}),
        ('{"a": {"$gte": 0}}', {"$and": [{"a": {"$gte": 0}}, {"a": 1}]}),
        ('{"$and": [{"a": 1}, {"a": 2}]}', {"$and": [{"a": 1}, {"a": 2}]}),
        ('{"$and": [{"a": 2}, {"a": 3}]}', {"$and": [{"a": 2}, {"a": 3}], "a": 1}),
        (f'{{"a": {LARGE}}}', {"$and": [{"a": LARGE}, {"a": 1}]}),
        (f'{{"$not": {{"b": {LARGE}}}}}', {"$not": {"b": LARGE}, "a": 1}),
    ],
)
def test_what_a_filter_asks_for_stays_as_it_was(page: Any, address: str, written: str, then: object) -> None:
    page.goto(address)
    assert json.loads(narrowed(page, written, "a", 1)) == then


def test_a_number_that_the_page_would_round_cannot_be_chosen(page: Any, address: str) -> None:
    numbers = {"large": LARGE, "endless": 10**400, "most": 2**53 - 1, "share": 0.1, "many": [1, LARGE]}
    answer(page, {"metadata": numbers})
    search(page, address)
    page.wait_for_selector(".hit")
    assert page.locator("button.value").all_inner_texts() == ["9007199254740991", "0.1", "1"]
    about = "≈ 12345678901234567000"
    assert page.locator("span.value").all_inner_texts() == [about, "≈ Infinity", about]


def test_a_filter_in_words_does_not_pass_a_rounded_number_off_as_the_one_that_is_sent(page: Any, address: str) -> None:
    search(page, address, filter=f'{{"year": {LARGE}}}')
    assert page.inner_text("#filter-told") == "Finds: year is ≈ 12345678901234567000"


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_value_can_be_seen_and_chosen(page: Any, address: str, blank: str) -> None:
    answer(page, {"metadata": {"lang": blank}})
    search(page, address)
    assert page.text_content("button.value") == f'"{blank}"'
    page.click("button.value")
    assert json.loads(page.input_value("#search-filter")) == {"lang": blank}
