"""Who goes first, of those who wait for the same thing?"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.line import STILL_WANTED, Line
from model.tokens import ALONE, SLICE, SentenceTokenizer
from tests import tiny
from tests.waiting import until


def in_order(line: Line, works: list[float]) -> list[int]:
    """Who has a turn after whom, if all come, in this order, while somebody else has one."""
    order: list[int] = []

    def one(number: int) -> None:
        with line.joined(works[number]) as turn:
            for _ in range(2):
                with turn():
                    order.append(number)

    with ThreadPoolExecutor(len(works)) as threads, line.joined(-1.0) as turn, turn():
        for number in range(len(works)):
            threads.submit(one, number)
            until(lambda there=number + 2: len(line._joined) == there)
        assert order == []
    return order


@given(works=st.lists(st.integers(0, 3).map(float), min_size=1, max_size=8))
def test_the_smallest_work_is_done_first_and_of_like_ones_who_came_first(works: list[float]) -> None:
    """To its end: no other has a turn between."""
    places = sorted(range(len(works)), key=works.__getitem__)
    assert in_order(Line(1e6), works) == [number for number in places for _ in range(2)]


@pytest.mark.parametrize(("later", "first"), [(18.0, "small"), (20.0, "large")])
def test_small_work_passes_large_work_until_that_has_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, later: float, first: str
) -> None:
    line, now, order = Line(patience=10), [100.0], list[str]()
    monkeypatch.setattr("model.line.time", SimpleNamespace(monotonic=lambda: now[0]))

    def one(name: str, work: float) -> None:
        with line.joined(work) as turn, turn():
            order.append(name)

    with ThreadPoolExecutor(2) as threads, line.joined(-1.0) as turn, turn():
        threads.submit(one, "large", 2.0)
        until(lambda: len(line._joined) == 2)
        now[0] += later
        threads.submit(one, "small", 0.1)
        until(lambda: len(line._joined) == 3)
    assert order[0] == first
    assert len(order) == 2


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_have_their_turn_at_the_same_time(at_once: int) -> None:
    line, inside, go = Line(16, at_once), list[int](), threading.Event()

    def one(number: int) -> None:
        with line.joined(number) as turn, turn():
            inside.append(number)
            go.wait(60)

    with ThreadPoolExecutor(5) as threads:
        for number in range(5):
            threads.submit(one, number)
        until(lambda: len(inside) == at_once and len(line._joined) == 5)
        time.sleep(0.02)
        assert len(inside) == at_once
        go.set()
    assert sorted(inside) == list(range(5))


def test_who_fails_or_is_no_longer_waited_for_leaves_the_line() -> None:
    line = Line(16)
    with pytest.raises(ZeroDivisionError), line.joined(1.0) as turn, turn():
        1 / 0  # noqa: B018

    def gone() -> None:
        raise TimeoutError

    token = STILL_WANTED.set(gone)
    try:
        with pytest.raises(TimeoutError), line.joined(1.0) as turn, turn():
            pytest.fail("it is not wanted")
    finally:
        STILL_WANTED.reset(token)
    with line.joined(1.0) as turn, turn():
        assert len(line._joined) == 1


class Reading:
    """A tokenizer that tells who reads, and is slow enough for all to meet."""

    def __init__(self, tokenizer: SentenceTokenizer, told: Callable[[str], None]) -> None:
        self._inner, self._told = tokenizer._tokenizer, told
        self.token_to_id = self._inner.token_to_id

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> object:
        self._told(texts[0][0])
        time.sleep(0.01)
        return self._inner.encode_batch_fast(texts, add_special_tokens=add_special_tokens)


@pytest.fixture
def reads() -> list[str]:
    return []


@pytest.fixture
def tokenizer(tmp_path: Path, reads: list[str]) -> SentenceTokenizer:
    tiny.tokenizer().save(str(tmp_path / "tokenizer.json"))
    tokenizer = SentenceTokenizer.load(tmp_path / "tokenizer.json", 16)
    tokenizer._tokenizer = Reading(tokenizer, reads.append)  # type: ignore[assignment]
    return tokenizer


def test_long_calls_are_tokenised_one_after_the_other_and_short_ones_pass(
    tokenizer: SentenceTokenizer, reads: list[str]
) -> None:
    """Interleaved, all of them would be done at the end."""
    many = {letter: [letter + " b" * 200] * 900 for letter in "acd"}
    assert sum(map(len, many["a"])) > 10 * SLICE
    few = ["e" + " b" * 200] * 25
    assert ALONE < sum(map(len, few)) < SLICE
    with ThreadPoolExecutor(4) as threads:
        for number, letter in enumerate("acd", 1):
            threads.submit(tokenizer.tokenize, many[letter])
            until(lambda there=number: len(tokenizer._line._joined) == there)
        threads.submit(tokenizer.tokenize, few)
    assert "".join(reads).replace("e", "") == "".join(sorted(reads)).replace("e", "")
    assert reads.index("e") < len(reads) // 3


def test_a_call_that_nobody_waits_for_is_given_up_after_a_slice(tokenizer: SentenceTokenizer, reads: list[str]) -> None:
    def until_the_second() -> None:
        if len(reads) == 2:
            raise TimeoutError

    texts = ["a" + " b" * 200] * 900
    token = STILL_WANTED.set(until_the_second)
    try:
        with pytest.raises(TimeoutError):
            tokenizer.tokenize(texts)
    finally:
        STILL_WANTED.reset(token)
    assert len(reads) == 2
    assert len(tokenizer.tokenize(texts)) == 900
