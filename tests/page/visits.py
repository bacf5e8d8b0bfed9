"""What tests of the page do with it."""

import json
from typing import Any
from urllib.request import Request, urlopen


def asked(address: str, path: str, body: object) -> Any:
    """What the service itself answers."""
    request = Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)


def search(page: Any, address: str, query: str = "listen", **options: str) -> None:
    """Open the page and search as a person does: type, and press Enter."""
    page.goto(address)
    page.wait_for_selector("#health[data-health=ready]")
    if by := options.get("by"):
        page.check(f"#search-form input[value={by}]", force=True)
    if filter_ := options.get("filter"):
        page.click("#filter-box > summary")
        page.fill("#search-filter", filter_)
    page.fill("#search-query", query)
    page.press("#search-query", "Enter")


def answer(page: Any, *hits: dict[str, Any]) -> None:
    """Let every search from now on find these hits, of which a test says what matters to it."""
    usual = {"id": "d", "text": "a text", "score": 0.5, "similarity": 0.5, "metadata": {}}
    found = {"hits": [usual | hit for hit in hits], "truncated": False, "model": "m", "generation": "000001"}
    page.route("**/v1/search", lambda route: route.fulfill(json=found))


def hold(page: Any, routes: str) -> list[Any]:
    """The next request to these routes waits, in this list, until the test lets it go."""
    held: list[Any] = []
    page.route(routes, lambda route: held.append(route), times=1)
    return held


def said(page: Any, selector: str) -> str:
    """The text of an element, once it is shown and has some."""
    shown = "s => document.querySelector(s)?.checkVisibility() && document.querySelector(s).innerText.trim()"
    page.wait_for_function(shown, arg=selector)
    return page.inner_text(selector)


def ids(page: Any) -> list[str]:
    """Of the texts that are shown, once there are some."""
    page.wait_for_selector(".hit, .compared")
    return page.locator(".text-id").all_inner_texts()
