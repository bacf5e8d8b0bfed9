"""Rows that stand for others are taken from all over them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from model.spaced import spaced


@given(rows=st.integers(0, 700), most=st.integers(0, 700))
def test_as_many_as_were_asked_for_are_evenly_spaced(rows: int, most: int) -> None:
    found = spaced(range(rows), most)
    assert len(found) == min(rows, most)
    assert found[:1] == [0][: len(found)]
    gaps = [after - before for before, after in pairwise([*found, rows])]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_half_of_an_odd_number_is_not_the_first_half() -> None:
    assert spaced(range(599), 300)[-1] == 597
