"""The page by keyboard, with a screen reader, on a phone, in the dark."""

import re
from pathlib import Path
from typing import Any

import pytest

TABS = ("search", "candidates", "pair", "service")


def test_keyboard_alone(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("#health[data-health=ready]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip-link"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "tab-search"
    for key, tab in (
        ("ArrowRight", "candidates"),
        ("End", "service"),
        ("ArrowRight", "search"),
        ("ArrowLeft", "service"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"tab-{tab}"
        assert page.is_visible(f"#panel-{tab}")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search-query"
    page.keyboard.type("a/b")  # a slash in a text is a slash
    assert page.input_value("#search-query") == "a/b"
    order = []
    for _ in range(5):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate("document.activeElement.id || document.activeElement.name || document.activeElement.tagName")
        )
        outline = page.evaluate(
            "const e = document.activeElement;"
            "getComputedStyle(e.matches('[type=radio]') ? e.nextElementSibling : e).outlineStyle"
        )
        assert outline != "none", order[-1]
    assert order == ["search-submit", "by", "search-k", "search-depth", "SUMMARY"]


def test_every_field_has_a_name_and_results_are_announced(page: Any, address: str) -> None:
    page.goto(address)
    for field in page.locator("input, select, textarea").all():
        assert field.evaluate("e => e.labels.length > 0 && e.labels[0].textContent.trim() !== ''"), field
    for name in TABS[:3]:
        assert page.get_attribute(f"#{name}-status", "role") == "status"
        assert page.get_attribute(f"#{name}-problem", "role") == "alert"
    found = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(found) == len(set(found))


def with_answers(page: Any, address: str, tab: str) -> None:
    """A panel of the page with something in it."""
    questions = {
        "search": '#search?q=stones&filter={"year":{"$above":1}}',
        "both": "#search?q=stone&by=both",
        "hits": "#search?q=stones",
        "candidates": f"#candidates?q=listen&by=student&candidates={'long' * 40}%0Asilent",
        "pair": f"#pair?a={'long' * 40}&b=silent",
        "service": "#service",
    }
    page.goto("about:blank")
    page.goto(f"{address}/{questions[tab]}")
    page.wait_for_selector(
        {"search": ".problem", "both": ".compared", "pair": "#pair-teacher .pair-score"}.get(
            tab, ".hit, .facts-card dd"
        )
    )


ANSWERED = ("search", "hits", "both", "candidates", "pair", "service")


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_a_phone(page: Any, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    for tab in ANSWERED:
        with_answers(page, address, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab


CONTRAST = Path(__file__).with_name("contrast.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(page: Any, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for tab in ANSWERED:
        with_answers(page, address, tab)
        page.wait_for_timeout(400)  # what fades in has done so
        assert page.evaluate(CONTRAST) == [], tab
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 64) == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_the_mouse_is_on_stands_out_too(page: Any, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for tab in ANSWERED:
        with_answers(page, address, tab)
        for one in page.locator("main button:visible, .segments label:visible, summary:visible").all():
            one.hover()
            page.wait_for_timeout(20)
            assert page.evaluate(CONTRAST) == [], (tab, one.inner_text())
