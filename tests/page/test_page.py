"""The page at / in a real browser, asking a real service."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from index.filters import FilterError, parse_filter
from tests.page.conftest import DOCUMENTS, KEY, SCRIPT

TABS = ("search", "candidates", "pair", "service")
ALL_TEXTS = {document.text for document in DOCUMENTS}
OWN = "silent notes\nbanana split\nlisten"


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


def said(page: Any, selector: str) -> str:
    """The text of an element, once there is some."""
    page.wait_for_function("s => document.querySelector(s)?.innerText.trim()", arg=selector)
    return page.inner_text(selector)


def ids(page: Any) -> list[str]:
    page.wait_for_selector(".hit, .compared")
    return page.locator(".text-id").all_inner_texts()


# ---- search


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


# ---- filters


def test_a_filter_narrows_and_says_what_it_finds(page: Any, address: str) -> None:
    search(page, address, filter='{"lang": "en", "year": {"$gte": 2020}}')
    assert ids(page) == ["w/silent"]
    assert said(page, "#filter-told") == 'Finds: lang is "en" and year ≥ 2020'


def test_choosing_a_value_of_a_result_narrows(page: Any, address: str) -> None:
    search(page, address)
    page.click("button.value:text-is('music') >> nth=0")
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 2")
    assert json.loads(page.input_value("#search-filter")) == {"tags": "music"}
    page.click("button.value:text-is('2019')")
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 1")
    assert json.loads(page.input_value("#search-filter")) == {"tags": "music", "year": 2019}


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


# ---- student and teacher, pairs, own candidates


def test_side_by_side_shows_scores_ranks_agreement_and_time(page: Any, address: str) -> None:
    with page.expect_response("**/v1/compare") as answered:
        search(page, address, by="both", filter='{"lang": "en"}')
    page.wait_for_selector(".compared")
    expected = answered.value.json()
    assert page.locator(".compared").count() == len(expected["results"]) == 2
    for shown, result in zip(page.locator(".compared").all(), expected["results"], strict=True):
        assert shown.locator(".student-rank").inner_text() == str(result["student"]["rank"])
        assert shown.locator(".teacher-rank").inner_text() == str(result["teacher"]["rank"])
        assert shown.locator(".student-score").inner_text() == f"{result['student']['score']:.3f}"
        assert shown.locator(".teacher-score").inner_text() == f"{result['teacher']['score']:.3f}"
    spearman = f"{expected['agreement']['spearman']:.2f}".replace("-", "\N{MINUS SIGN}")
    assert page.inner_text("[data-fact=spearman]") == spearman
    for side in ("student", "teacher"):
        assert re.fullmatch(r"[\d.]+ m?s", page.inner_text(f"[data-fact=milliseconds-{side}]"))
    page.click("[data-order=teacher]")
    ranks = [int(rank) for rank in page.locator("td.teacher-rank").all_inner_texts()]
    assert ranks == sorted(ranks)


def test_a_pair_is_scored_by_both(page: Any, address: str) -> None:
    page.goto(f"{address}/#pair")
    page.fill("#pair-first", "silent notes")
    page.fill("#pair-second", "listen")
    page.press("#pair-second", "Enter")
    page.wait_for_selector("#pair-teacher .pair-score")
    body = {"pairs": [["silent notes", "listen"]]}
    for side, path in (("student", "/v1/similarity"), ("teacher", "/v1/teacher/similarity")):
        score = asked(address, path, body)["results"][0]["score"]
        assert page.inner_text(f"#pair-{side} .pair-score") == f"{score:.3f}"


@pytest.mark.parametrize(("by", "path"), [("student", "/v1/similarity"), ("teacher", "/v1/teacher/similarity")])
def test_own_candidates_are_ranked(page: Any, address: str, by: str, path: str) -> None:
    page.goto(f"{address}/#candidates")
    page.fill("#candidates-query", "listen")
    page.fill("#candidates-list", f"\n  {OWN}\n\n")
    assert page.inner_text("#candidates-count") == "3 candidates"
    page.check(f"#candidates-form input[value={by}]", force=True)
    page.press("#candidates-list", "Control+Enter")
    page.wait_for_selector(".hit")
    results = asked(address, path, {"query": "listen", "candidates": OWN.split("\n")})["results"]
    best_first = sorted(results, key=lambda result: -result["score"])
    assert page.locator(".hit-score").all_inner_texts() == [f"{result['score']:.3f}" for result in best_first]
    assert ids(page) == [f"candidate {result['index'] + 1}" for result in best_first]


def test_own_candidates_side_by_side(page: Any, address: str) -> None:
    page.goto(f"{address}/#candidates?q=listen&candidates={OWN.replace(chr(10), '%0A')}")
    page.wait_for_selector(".compared")
    assert sorted(page.locator(".text").all_inner_texts()) == sorted(OWN.split("\n"))


def test_the_service_says_what_it_runs(page: Any, address: str) -> None:
    page.goto(f"{address}/#service")
    shown = said(page, "#service-facts")
    recall = f"Recall@10\n1.000, shown with {len(DOCUMENTS)} queries"
    for fact in ("tiny-student", "tiny-teacher", "000001", "Flat", "accepted", f"Documents\n{len(DOCUMENTS)}", recall):
        assert fact in shown
    with urlopen(f"{address}/v1/index") as answer:
        assert json.load(answer)["encoder_digest"] in shown
    page.click("#service-refresh")
    page.wait_for_function("() => document.querySelector('#service-status').innerText.includes('asked at')")


# ---- what goes wrong


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


def test_a_shared_comparison_without_a_teacher_offers_the_students_order(page: Any, bare: str) -> None:
    page.add_init_script(f"sessionStorage.setItem('dse-key', '{KEY}')")
    page.goto(f"{bare}/#candidates?q=listen&candidates=silent&by=both")
    assert "No teacher is served" in said(page, "#candidates-problem")
    page.click("[data-student]")
    page.wait_for_selector("#candidates-results .hit")


# ---- everybody can use it


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
