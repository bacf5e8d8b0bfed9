"""Student and teacher beside each other, pairs, candidates of one's own, and what the service says of itself."""

import json
import re
from typing import Any
from urllib.request import urlopen

import pytest

from tests.page.conftest import DOCUMENTS
from tests.page.visits import asked, ids, said, search

OWN = "silent notes\nbanana split\nlisten"


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


@pytest.mark.parametrize(("swapped", "words"), [(False, "the same"), (True, "almost the same")])
def test_orders_are_the_same_only_if_every_place_is(page: Any, address: str, swapped: bool, words: str) -> None:
    texts = 40
    students = list(range(1, texts + 1))
    teachers = [2, 1, *students[2:]] if swapped else students
    spearman = 1 - 6 * sum((a - b) ** 2 for a, b in zip(students, teachers, strict=True)) / (texts * (texts**2 - 1))
    assert spearman > 0.999
    results = [
        {
            "index": row,
            "id": f"d{row}",
            "text": f"text {row}",
            "student": {"score": 1 / student, "rank": student},
            "teacher": {"score": 1 / teacher, "rank": teacher},
        }
        for row, (student, teacher) in enumerate(zip(students, teachers, strict=True))
    ]
    answer = {
        "student": "s",
        "teacher": "t",
        "results": results,
        "agreement": {"spearman": spearman, "kendall": 1.0 if not swapped else 1 - 4 / (texts * (texts - 1))},
        "milliseconds": {"student": 1.0, "teacher": 10.0},
        "truncated": False,
    }
    page.route("**/v1/compare", lambda route: route.fulfill(json=answer))
    search(page, address, by="both")
    page.wait_for_selector(".compared")
    assert f"their orders are {words}," in said(page, "#search-status")
    assert page.locator(".agreement .hint").all_inner_texts() == [words, words, "than the teacher"]


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
