"""How does a figure change with depth, or with length? Lines, as a picture that is readable in light and dark."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 32, 52  # margins; a line's name stands to the right of its end
LINE = 16  # height of a line of text
COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989")
IN_THE_DARK = ("#4493f8", "#ff7b72", "#3fb950", "#d29922", "#ab7df8", "#9198a1", "#f778ba")
DASHES = ("none", "7 4", "2 4")  # where there are more lines than colours, and for lines that are not solid
MOST_PLACES = 12  # that could stand side by side, each with its own number below it
STEPS = (1.0, 2.0, 5.0, 10.0)
MOST_ROUND = 7  # heights with a number each, between powers of ten
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.axis { stroke: #8c959f; fill: none } .grid { stroke: #8c959f; stroke-opacity: .25 }
.line { fill: none; stroke-width: 2 } .interval { stroke-width: 1; stroke-opacity: .6 }
"""


@dataclass(frozen=True)
class Dot:
    """A figure at some place of the axis, and its interval where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A line: its name, and its dots from left to right; ``dashed`` where it is there for comparison."""

    name: str
    dots: Sequence[Dot]
    dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """What is drawn over what."""

    title: str
    across: str
    upwards: str
    doubling: bool = False  # places that double are as far from each other as others that do
    powers: bool = False  # the same upwards, for powers of ten


def lines(axes: Axes, every: Sequence[Series]) -> str:
    """The picture, as SVG; lines without a dot are left out."""
    shown = [series for series in every if series.dots]
    frame = _Frame(axes, [dot for series in shown for dot in series.dots])
    body = "\n".join([*frame.grid(), *_drawn(shown, frame)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>{escape(axes.title)}</title>\n<style>{STYLE}{_colours()}</style>\n{body}\n</svg>\n"
    )


def _colours() -> str:
    """The classes c0, c1, ... of lines, in light and in dark."""

    def rules(colours: Sequence[str]) -> str:
        return " ".join(f".c{n} {{ stroke: {c} }} .f{n} {{ fill: {c} }}" for n, c in enumerate(colours))

    dark = f"text {{ fill: #d1d9e0 }} {rules(IN_THE_DARK)}"
    return f"{rules(COLOURS)}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"


class _Frame:
    """The part of the plane that is shown."""

    def __init__(self, axes: Axes, dots: Sequence[Dot]) -> None:
        self._axes = axes
        places = sorted({dot.x for dot in dots})
        apart = all(right - left >= (places[-1] - places[0]) / MOST_PLACES for left, right in pairwise(places))
        self.places = places if axes.doubling or apart else _even(places)
        heights = [y for dot in dots for y in (dot.y, dot.low, dot.high) if y is not None]
        self.ticks = _powers(heights) if axes.powers else _even(heights)

    def x(self, place: float) -> float:
        first, last, at = (math.log2(p) if self._axes.doubling else p for p in (*self._ends, place))
        share = (at - first) / (last - first) if last > first else 0.5
        return LEFT + 14 + share * (WIDTH - LEFT - RIGHT - 28)

    @property
    def _ends(self) -> tuple[float, float]:
        return self.places[0], self.places[-1]

    def y(self, height: float) -> float:
        low, high, at = (
            math.log10(max(h, self.ticks[0])) if self._axes.powers else h
            for h in (self.ticks[0], self.ticks[-1], height)
        )
        return HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def grid(self) -> Iterator[str]:
        floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick in self.ticks:
            y = self.y(tick)
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{end}"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,.10g}</text>'
        for place in self.places:
            yield f'<path class="grid" d="M{self.x(place):.1f} {TOP}V{floor}"/>'
            yield f'<text x="{self.x(place):.1f}" y="{floor + 20}" text-anchor="middle">{place:,g}</text>'
        yield f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{end}"/>'
        yield f'<text x="{(LEFT + end) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(self._axes.across)}</text>'
        yield f'<text x="{LEFT}" y="{TOP - 14}">{escape(self._axes.upwards)}</text>'


def _even(heights: Sequence[float]) -> list[float]:
    """Round numbers, equally far apart, that hold all heights between the first and the last."""
    low, high = min(heights), max(heights)
    least = max(high - low, abs(high) * 1e-3, 1e-9) / 5
    decade = 10.0 ** math.floor(math.log10(least))
    step = decade * next(step for step in STEPS if step * decade >= least)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _powers(heights: Sequence[float]) -> list[float]:
    """Powers of ten around all heights, which are above 0; where they are few, with twos and fives between."""
    low, high = min(heights), max(heights)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    rounded = [step * 10.0**power for power in range(first, last + 1) for step in STEPS[:3]]
    begin = max(number for number, tick in enumerate(rounded) if tick <= low)
    end = next(number for number, tick in enumerate(rounded) if tick >= high and number > begin)
    if end - begin < MOST_ROUND:
        return rounded[begin : end + 1]
    return [10.0**power for power in range(first, last + 1)]


def _drawn(shown: Sequence[Series], frame: _Frame) -> Iterator[str]:
    """The lines; the name of each to the right of all, at the height of its end or as near as there is room."""
    order = sorted(range(len(shown)), key=lambda number: -shown[number].dots[-1].y)
    heights = _apart([frame.y(shown[number].dots[-1].y) + 4 for number in order])
    for number, height in zip(order, heights, strict=True):
        series, colour = shown[number], number % len(COLOURS)
        dash = DASHES[max(number // len(COLOURS), int(series.dashed)) % len(DASHES)]
        path = " ".join(f"{frame.x(dot.x):.1f},{frame.y(dot.y):.1f}" for dot in series.dots)
        yield f'<polyline class="line c{colour}" stroke-dasharray="{dash}" points="{path}"/>'
        for dot in series.dots:
            x, y = frame.x(dot.x), frame.y(dot.y)
            yield f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
            if dot.low is not None and dot.high is not None:
                yield f'<path class="interval c{colour}" d="M{x:.1f} {frame.y(dot.low):.1f}V{frame.y(dot.high):.1f}"/>'
        yield f'<text class="f{colour}" x="{WIDTH - RIGHT + 8}" y="{height:.1f}">{escape(series.name)}</text>'


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights from the top down, moved as little as lets a line of text stand at each, above the picture's end."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + LINE) if moved else height)
    for number in range(len(moved)):
        moved[-1 - number] = min(moved[-1 - number], HEIGHT - 6 - number * LINE)
    return moved
