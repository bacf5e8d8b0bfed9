"""Pictures of studies: every figure stands where its axes say, and no name covers another."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.studies.plot import HEIGHT, LINE, WIDTH, Axes, Dot, Series, lines

AXES = Axes("A & B", "tokens", "P", doubling=True)
HEIGHTS = st.floats(0.001, 5000)
SERIES = st.lists(
    st.builds(
        Series,
        st.text("xyz<", min_size=1, max_size=5),
        st.lists(st.builds(Dot, st.sampled_from([128.0, 256.0, 1024.0]), HEIGHTS), min_size=1, max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=10,
)


@given(every=SERIES, doubling=st.booleans(), powers=st.booleans())
def test_all_is_within_the_picture_and_names_stand_apart(every: list[Series], doubling: bool, powers: bool) -> None:
    root = ElementTree.fromstring(lines(Axes("A & B", "tokens", "P", doubling, powers), every))
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.findall("{*}circle")]
    assert len(dots) == sum(len(series.dots) for series in every)
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in dots)
    names = sorted(float(text.attrib["y"]) for text in root.findall("{*}text") if "class" in text.attrib)
    assert len(names) == len(every)
    assert all(below - above > LINE - 0.2 for above, below in pairwise(names))
    assert all(0 < y < HEIGHT for y in names)


def test_a_figure_stands_at_its_height_between_the_ticks() -> None:
    picture = lines(AXES, [Series("a", [Dot(128, 10.0), Dot(256, 20.0), Dot(1024, 15.0, 12.5, 17.5)])])
    root = ElementTree.fromstring(picture)
    ticks = {
        float(text.text or ""): float(text.attrib["y"]) - 4
        for text in root.findall("{*}text")
        if text.attrib.get("text-anchor") == "end"
    }
    assert sorted(ticks) == [10.0, 12.0, 14.0, 16.0, 18.0, 20.0]
    (x1, y1), (x2, y2), (x3, y3) = (
        (float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.findall("{*}circle")
    )
    assert (y1, y2) == (ticks[10], ticks[20])
    assert abs(y3 - (y1 + y2) / 2) < 0.2
    assert abs((x2 - x1) * 2 - (x3 - x2)) < 0.3  # twice as many doublings
    interval = next(path.attrib["d"] for path in root.findall("{*}path") if "interval" in path.attrib["class"])
    assert re.fullmatch(rf"M{x3} .*V.*", interval)
    low, high = (float(part) for part in re.findall(r"[\d.]+", interval)[1:])
    assert low > y3 > high
    assert "A &amp; B" in picture


@pytest.mark.parametrize(
    ("heights", "told"),
    [
        ((20.0, 700.0), ["20", "50", "100", "200", "500", "1,000"]),
        ((3.0, 3.0), ["2", "5"]),
        ((0.5, 70_000.0), ["0.1", "1", "10", "100", "1,000", "10,000", "100,000"]),
    ],
)
def test_lines_of_nothing_are_left_out_and_powers_have_round_numbers(
    heights: tuple[float, float], told: list[str]
) -> None:
    axes = Axes("t", "x", "y", powers=True)
    root = ElementTree.fromstring(lines(axes, [Series("a", [Dot(1, heights[0]), Dot(2, heights[1])]), Series("b", [])]))
    assert len(root.findall("{*}polyline")) == 1
    ticks = [text.text for text in root.findall("{*}text") if text.attrib.get("text-anchor") == "end"]
    assert ticks == told


def test_places_that_are_too_near_to_be_told_each_are_told_by_round_numbers() -> None:
    def told(*places: float) -> list[str | None]:
        root = ElementTree.fromstring(lines(Axes("t", "x", "y"), [Series("a", [Dot(place, 1.0) for place in places])]))
        texts = [text for text in root.findall("{*}text") if text.attrib.get("text-anchor") == "middle"]
        return [text.text for text in texts][:-1]  # the last is what the axis is of

    assert told(1, 2, 3, 4, 6) == ["1", "2", "3", "4", "6"]
    assert told(0, 24.69, 25, 50, 100) == ["0", "20", "40", "60", "80", "100"]
