import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.console import BadInput
from scripts.evaluation.plot import Point, pareto, points, svg
from scripts.evaluation.results import Mean, Results
from scripts.evaluation.scorers import ModelFacts
from scripts.evaluation.speed import Pace, Speed

SMALL = st.integers(1, 4)
POINTS = st.lists(st.builds(Point, st.text("xyz", max_size=2), SMALL, SMALL), max_size=8)


def beats(left: Point, right: Point) -> bool:
    at_least = left.speed >= right.speed and left.quality >= right.quality
    return at_least and (left.speed > right.speed or left.quality > right.quality)


@given(shown=POINTS)
def test_the_front_is_what_nothing_beats_and_beats_the_rest(shown: list[Point]) -> None:
    front = pareto(shown)
    assert sorted(map(str, front)) == sorted(str(one) for one in shown if not any(beats(other, one) for other in shown))
    assert all(any(beats(one, other) for one in front) for other in shown if other not in front)
    assert [point.speed for point in front] == sorted(point.speed for point in front)
    assert [point.quality for point in front] == sorted((point.quality for point in front), reverse=True)


def results(models: dict[str, tuple[float, float]]) -> Results:
    """Models with their pairs a second and their mean Spearman."""
    facts = [ModelFacts(name, "bundle", 1.0, None) for name in models]
    means = [Mean("sts", name, "score", 2, quality) for name, (_, quality) in models.items()]
    means += [Mean("sts", name, "similarity", 2, 0.0) for name in models]
    paces = [Pace(name, "pair", speed, 1.0, 1.0, None) for name, (speed, _) in models.items()]
    speed = Speed("words/test", 10, 10, 5, 1, paces)
    return Results(1, {}, 0, 0, next(iter(models)), facts, [], [], means, [], speed, None)


def test_a_model_stands_where_its_first_answer_puts_it() -> None:
    shown, label = points(results({"a": (200.0, 80.0), "b": (20.0, 85.0)}))
    assert shown == [Point("a", 200.0, 80.0), Point("b", 20.0, 85.0)]
    assert label == "S, mean of 2 sts sets"


def circles_within_the_frame(root: ElementTree.Element) -> list[ElementTree.Element]:
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    circles = root.findall("{*}circle")
    assert all(0 < float(circle.attrib["cx"]) < width for circle in circles)
    assert all(0 < float(circle.attrib["cy"]) < height for circle in circles)
    return circles


def test_the_picture_names_every_model_within_its_frame_and_no_label_covers_another() -> None:
    models = {
        "a & b": (200.0, 80.0),
        "c": (210.0, 80.1),
        "far off": (30000.0, 80.1),
        "d": (20.0, 85.0),
        "e": (15.0, 70.0),
    }
    picture = svg(results(models))
    root = ElementTree.fromstring(picture)
    labels = [text for text in root.findall("{*}text") if text.text in models]
    assert {text.text for text in labels} == set(models)
    for one, other in combinations(labels, 2):
        apart = abs(float(one.attrib["y"]) - float(other.attrib["y"])) > 14.8
        first, second = sorted((one, other), key=lambda text: float(text.attrib["x"]))
        assert apart or float(first.attrib["x"]) + 7 * len(first.text or "") < float(second.attrib["x"])
    circles = circles_within_the_frame(root)
    assert len(circles) == 5
    assert sum(circle.get("class") == "best" for circle in circles) == 2  # d and far off
    assert re.search(r"prefers-color-scheme: dark", picture)


@pytest.mark.parametrize("models", [{"a": (200.0, 80.0)}, {"a": (100.0, -3.0), "b": (1000.0, 99.9)}])
def test_one_model_or_far_apart_ones_are_within_the_frame(models: dict[str, tuple[float, float]]) -> None:
    circles = circles_within_the_frame(ElementTree.fromstring(svg(results(models))))
    by_speed = sorted(circles, key=lambda circle: float(circle.attrib["cx"]))
    heights = [float(circle.attrib["cy"]) for circle in by_speed]
    assert len(heights) == len(models)
    assert heights == sorted(heights, reverse=True)  # the faster of them is the better one, and stands higher


def test_without_speed_there_is_no_picture() -> None:
    with pytest.raises(BadInput, match="no model was both timed and measured"):
        svg(Results(1, {}, 0, 0, "a", [], [], [], [], [], None, None))
