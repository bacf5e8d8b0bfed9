"""Who is worth having? Quality against speed, and the Pareto front: a picture that is readable in light and dark."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from scripts.console import BadInput
from scripts.evaluation.results import MAIN, Results
from scripts.evaluation.sets import KINDS
from scripts.evaluation.tables import HEADINGS

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 24, 52  # margins; labels stand to the right of their points
LINE, LETTER = 15, 7.5  # height of a line of text, and about the width of a letter
STEPS = (0.5, 1, 2, 5, 10, 25, 50)  # from one figure on the axis to the next; there are five
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; stroke: #fff; stroke-width: 3px; paint-order: stroke }
.axis { stroke: #8c959f; fill: none } .grid { stroke: #8c959f; stroke-opacity: .25 }
.front { fill: none; stroke: #0969da; stroke-width: 2; stroke-dasharray: 5 4 }
circle { fill: #8c959f } circle.best { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #d1d9e0; stroke: #0d1117 } .front { stroke: #4493f8 } circle.best { fill: #4493f8 }
}
"""


@dataclass(frozen=True)
class Point:
    """A model: how many pairs it scores in a second, and its mean figure."""

    name: str
    speed: float
    quality: float


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other equals in both and beats in one, slowest first."""
    return sorted(
        (
            point
            for point in points
            if not any(
                other.speed >= point.speed
                and other.quality >= point.quality
                and (other.speed, other.quality) != (point.speed, point.quality)
                for other in points
            )
        ),
        key=lambda point: point.speed,
    )


def points(results: Results) -> tuple[list[Point], str]:
    """Each model by its first answer on the first kind of set that was measured, and what that figure is.

    Raises:
        BadInput: nothing was timed, or no timed model has a figure.
    """
    paces = {pace.model: pace for pace in results.speed.paces if pace.unit == "pair"} if results.speed else {}
    for kind in KINDS:
        found: dict[str, Point] = {}
        sets = 0
        for one in results.means:
            if one.kind == kind and one.model in paces and one.model not in found and one.value is not None:
                found[one.model] = Point(one.model, paces[one.model].per_second, one.value)
                sets = one.sets
        if found:
            return list(found.values()), f"{HEADINGS[kind][MAIN[kind]]}, mean of {sets} {kind} sets"
    raise BadInput("--plot: no model was both timed and measured; give --speed and a set of pairs")


def svg(results: Results) -> str:
    """The picture."""
    shown, label = points(results)
    frame = _Frame.around(shown)
    front = pareto(shown)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.at, front))
    drawn = [*frame.axes(label), f'<polyline class="front" points="{line}"/>', *_marks(shown, front, frame)]
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>Quality against speed</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


@dataclass(frozen=True)
class _Frame:
    """The part of the plane that is shown: powers of ten across, figures upwards."""

    slow: int
    fast: int
    low: float
    high: float

    @classmethod
    def around(cls, shown: Sequence[Point]) -> "_Frame":
        speeds, qualities = [point.speed for point in shown], [point.quality for point in shown]
        slow, fast = math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)))
        step = next(step for step in STEPS if math.floor(min(qualities) / step) * step + 4 * step >= max(qualities))
        low = math.floor(min(qualities) / step) * step
        return cls(slow, max(fast, slow + 1), low, low + 4 * step)

    def at(self, point: Point) -> tuple[float, float]:
        return self._x(math.log10(point.speed)), self._y(point.quality)

    def _x(self, decade: float) -> float:
        return LEFT + (decade - self.slow) / (self.fast - self.slow) * (WIDTH - LEFT - RIGHT)

    def _y(self, quality: float) -> float:
        return HEIGHT - BOTTOM - (quality - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def axes(self, label: str) -> Iterator[str]:
        floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
        for decade in range(self.slow, self.fast + 1):
            x = self._x(decade)
            yield f'<path class="grid" d="M{x:.1f} {TOP}V{floor}"/>'
            yield f'<text x="{x:.1f}" y="{floor + 20}" text-anchor="middle">{10.0**decade:,g}</text>'
        for step in range(5):
            quality = self.low + (self.high - self.low) * step / 4
            y = self._y(quality)
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{end}"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{quality:g}</text>'
        yield f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{end}"/>'
        yield f'<text x="{(LEFT + end) / 2}" y="{HEIGHT - 10}" text-anchor="middle">pairs a second</text>'
        yield f'<text x="{LEFT}" y="{TOP - 8}">{escape(label)}</text>'


def _marks(shown: Sequence[Point], front: Sequence[Point], frame: _Frame) -> Iterator[str]:
    """A dot and a label each, from the bottom up; a label moves up until it covers no other."""
    labels: list[tuple[float, float, float]] = []  # where each begins and ends, and its height
    for point in sorted(shown, key=lambda point: point.quality):
        x, y = frame.at(point)
        best = ' class="best"' if point in front else ""
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"{best}/>'
        left, right, height = x + 10, x + 10 + LETTER * len(point.name), y + 4
        while any(left < end and begin < right and abs(height - other) < LINE for begin, end, other in labels):
            height -= 1
        labels.append((left, right, height))
        yield f'<text x="{left:.1f}" y="{height:.1f}">{escape(point.name)}</text>'
