from collections.abc import Callable, Sequence
from typing import Any

import pytest

from scripts.evaluation.speed import REPEATS, SINGLES, TOKENISING, Work, paces


class Clock:
    """Time that passes only when something works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def worker(self, name: str, batch: float, each: float) -> Callable[[Sequence[Any]], None]:
        def work(items: Sequence[Any]) -> None:
            self.order.append(name)
            self.now += batch + each * len(items)

        return work


def test_paces_are_per_item_and_relative_to_the_first_and_to_tokenising() -> None:
    clock = Clock()
    sentences, pairs = [f"s{n}" for n in range(100)], [("a", "b")] * 50
    found = paces(
        [
            Work("slow", "sentence", sentences, clock.worker("slow", 0.0, 0.01)),
            Work("fast", "sentence", sentences, clock.worker("fast", 0.1, 0.001)),
            Work(TOKENISING, "sentence", sentences, clock.worker("tokens", 0.0, 0.0001)),
            Work("slow", "pair", pairs, clock.worker("pairs", 0.0, 0.02)),
        ],
        clock,
    )
    assert [(pace.per_second, pace.milliseconds) for pace in found] == [
        (100, 10), (500, 101), (10_000, 0.1), (50, 20),
    ]  # fmt: skip
    assert [pace.to_first for pace in found] == [1, 5, 100, 1]
    assert [pace.to_tokenising for pace in found] == [0.01, 0.05, 1, None]


def test_models_are_timed_in_turns() -> None:
    clock = Clock()
    items = list(range(SINGLES))
    works = [Work(name, "sentence", items, clock.worker(name, 0.0, 1.0)) for name in "ab"]
    paces(works, clock)
    turn = ["a"] * (1 + SINGLES) + ["b"] * (1 + SINGLES)
    assert clock.order == ["a", "b"] + turn * REPEATS


def test_a_turn_that_was_disturbed_does_not_count() -> None:
    clock, turns = Clock(), iter(range(1000))

    def disturbed_once(items: Sequence[Any]) -> None:
        clock.now += 100.0 if next(turns) == 1 else 0.5

    (pace,) = paces([Work("a", "pair", [1], disturbed_once)], clock)
    assert pace.per_second == pytest.approx(2)
