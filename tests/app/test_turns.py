"""Turns against equal shares, which are simulated step by step."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.turns import Turns

ARRIVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=12).map(sorted)
"""When each comes, and its size; one unit of work is done in one unit of time."""


def shared(arrivals: list[tuple[int, int]]) -> list[Fraction]:
    """When each is done if all who are there are served at once, in equal shares."""
    left = {}
    ends: dict[int, Fraction] = {}
    now = Fraction(0)
    coming = list(enumerate(arrivals))
    while coming or left:
        while coming and coming[0][1][0] <= now:
            number, (_, size) = coming.pop(0)
            left[number] = Fraction(size)
        step = coming[0][1][0] - now if coming else None
        if left:
            first = min(left.values()) * len(left)
            step = first if step is None else min(step, first)
        assert step is not None
        left = {number: rest - step / len(left) for number, rest in left.items()}
        now += step
        for number in [number for number, rest in left.items() if rest == 0]:
            ends[number] = now
            del left[number]
    return [ends[number] for number in range(len(arrivals))]


def by_turns(arrivals: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Who is done when, if each unit of time belongs to the lowest turn."""
    turns = Turns()
    left: dict[int, int] = {}
    taken: dict[int, float] = {}
    coming = list(enumerate(arrivals))
    now = 0
    while coming or left:
        while coming and coming[0][1][0] == now:
            number, (_, size) = coming.pop(0)
            left[number], taken[number] = size, turns.take(size)
        if left:
            first = min(left, key=lambda number: (taken[number], number))
            left[first] -= 1
            turns.work(1)
            if not left[first]:
                del left[first]
                yield first, now + 1
        now += 1


@given(arrivals=ARRIVALS)
def test_nobody_is_done_later_than_by_equal_shares(arrivals: list[tuple[int, int]]) -> None:
    done = dict(by_turns(arrivals))
    assert all(done[number] <= end for number, end in enumerate(shared(arrivals)))


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_of_those_that_came_together_the_smallest_is_first(sizes: list[int]) -> None:
    order = [number for number, _ in by_turns([(0, size) for size in sizes])]
    assert order == sorted(range(len(sizes)), key=lambda number: (sizes[number], number))


def test_who_gives_up_has_no_share_any_more() -> None:
    turns = Turns()
    one = turns.take(10)
    other = turns.take(100)
    turns.give_up(one)
    turns.work(50)
    assert turns.of(0) == 50
    turns.give_up(one)  # again, and of one that was done: nothing is left to give up
    turns.give_up(other)
    turns.give_up(other)
    turns.work(10)
    assert turns.of(7) == 57


def test_work_for_nobody_is_not_owed_to_who_comes_later() -> None:
    turns = Turns()
    turns.work(1000)
    turns.take(5)
    turns.work(3)
    assert turns.of(1) == pytest.approx(4)
    turns.work(1000)
    assert turns.of(1) == pytest.approx(6)
