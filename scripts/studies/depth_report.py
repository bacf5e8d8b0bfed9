"""What do the runs of the depth study say? A table, linear students beside softmax ones, what correlates, pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from scripts.evaluation.bootstrap import Estimate, Samples
from scripts.evaluation.metrics import pearson
from scripts.markdown import table
from scripts.studies.answers import samples
from scripts.studies.cells import Cell, Found
from scripts.studies.depth import Student
from scripts.studies.plot import Axes, Dot, Series, lines


@dataclass(frozen=True)
class Judged:
    """A student's finished cells, a seed each, and samples of the mean of their figures on the test split."""

    spearman: list[float]  # of each seed
    drawn: Mapping[str, Samples]


def judged(cells: Sequence[Cell], found: Mapping[str, Found], folder: Path) -> dict[Student, Judged]:
    """Every student with a finished cell, in the order of the cells."""
    groups: dict[Student, list[Cell]] = {}
    for cell in cells:
        if cell.name in found:
            groups.setdefault(Student.of(cell), []).append(cell)
    return {
        student: Judged([found[cell.name]["test"]["spearman"] for cell in of_student], samples(folder, of_student))
        for student, of_student in groups.items()
    }


@dataclass(frozen=True)
class Row:
    """What was found of a student: mean over its seeds on the test split, with 95 % bootstrap intervals over pairs."""

    student: Student
    seeds: int
    pearson: Estimate
    spearman: Estimate
    behind: Estimate  # Spearman below the deepest softmax student of the dse style; paired
    spread: float | None  # standard deviation of Spearman over seeds, points


def rows(students: Mapping[Student, Judged]) -> list[Row]:
    """A row for each student."""
    softmax = [student for student in students if (student.style, student.attention) == ("dse", "softmax")]
    reference = max(softmax, key=lambda student: student.layers, default=None)
    return [
        Row(
            student,
            len(found.spearman),
            Estimate.of(found.drawn["pearson"]),
            Estimate.of(found.drawn["spearman"]),
            Estimate(None, None, None) if reference is None else _above(students[reference], found),
            _spread(found.spearman),
        )
        for student, found in students.items()
    ]


@dataclass(frozen=True)
class Beside:
    """How much higher a student's Spearman is than another's of the same depth; paired, with a 95 % interval."""

    student: Student
    other: Student
    above: Estimate


def beside(students: Mapping[Student, Judged]) -> list[Beside]:
    """Each student that is linear in all its layers beside each softmax student of its depth, in whatever style."""
    linear = [each for each in students if each.attention != "softmax" and each.top == each.layers]
    softmax = [each for each in students if each.attention == "softmax"]
    return [
        Beside(student, other, _above(students[student], students[other]))
        for student in linear
        for other in softmax
        if other.layers == student.layers
    ]


def _above(one: Judged, other: Judged) -> Estimate:
    return Estimate.of(one.drawn["spearman"] - other.drawn["spearman"])


def _spread(figures: Sequence[float]) -> float | None:
    return round(float(np.std(figures, ddof=1)), 2) if len(figures) > 1 else None


@dataclass(frozen=True)
class Correlated:
    """Pearson's correlation, its 95 % bootstrap interval, and of how many students; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    students: int

    @classmethod
    def of(cls, drawn: Samples, students: int) -> Self:
        """The correlation of the students as they are, then of each resample."""
        estimate = Estimate.of(drawn)  # in points
        in_points = estimate.value, estimate.low, estimate.high
        value, low, high = (None if one is None else round(one / 100, 4) for one in in_points)
        return cls(value, low, high, students)

    def __str__(self) -> str:
        return "none" if self.value is None else f"{self.value:.3f} [{self.low}, {self.high}]"


def depth_correlations(cells: Sequence[Cell], found: Mapping[str, Found], folder: Path) -> dict[str, Correlated]:
    """By style and attention: how a student's layers correlate with its Spearman on test, over all seeds.

    The interval is of resamples of the test pairs: in each, every student is judged on the same pairs.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        student = Student.of(cell)
        if cell.name in found and student.top == student.layers:
            groups.setdefault(f"{student.style}-{student.attention}", []).append(cell)
    told = {}
    for name, of_name in groups.items():
        layers = np.array([Student.of(cell).layers for cell in of_name], np.float64)
        if len(set(layers)) > 1:
            drawn = np.array([samples(folder, [cell])["spearman"] for cell in of_name])  # (cells, samples)
            ones = np.ones((1, len(layers)), np.int64)
            correlated = np.array([pearson(layers, figures)(ones)[0] for figures in drawn.T])
            told[name] = Correlated.of(correlated, len(of_name))
    return told


def markdown(
    found_rows: Sequence[Row],
    compared: Sequence[Beside],
    correlations: Mapping[str, Correlated],
    budget: str,
    pictures: Mapping[str, str],
) -> str:
    """The page: its tables, what correlates, what the study was allowed to cost, and its pictures by file name."""
    shown = [f"\n![{title}]({file})" for file, title in pictures.items()]
    return "\n".join([*_figures(found_rows, correlations, budget), *_comparison(compared), *shown]) + "\n"


def _figures(found_rows: Sequence[Row], correlations: Mapping[str, Correlated], budget: str) -> Iterator[str]:
    yield "# Depth and attention on STS-B\n"
    yield budget + "\n"
    yield "Test split, mean over seeds; in brackets, 95 % bootstrap intervals over pairs. `behind`: Spearman below"
    yield "the deepest softmax student, paired.\n"
    columns = ["student", "layers", "linear", "seeds", "Pearson", "Spearman", "behind", "sd over seeds"]
    yield from table(columns, list(map(_cells, found_rows)))
    yield "\nPearson's correlation of layers with Spearman, over all seeds: "
    yield "; ".join(f"{name} {value}" for name, value in correlations.items()) + "."


def _comparison(compared: Sequence[Beside]) -> Iterator[str]:
    if not compared:
        return
    yield "\n## Linear students beside softmax students of their depth\n"
    yield "How much higher the Spearman of a student with linear attention in all its layers is than that of a softmax"
    yield "student that learned in the style of the column; paired.\n"
    styles = list(dict.fromkeys(one.other.style for one in compared))
    above = {(one.student, one.other.style): _interval(one.above) for one in compared}
    students = sorted({one.student for one in compared}, key=lambda each: (each.attention, each.layers))
    rows = [[each.attention, each.layers, *(above.get((each, style), "") for style in styles)] for each in students]
    yield from table(["attention", "layers", *styles], rows)


def _cells(row: Row) -> list[object]:
    student = row.student
    linear = 0 if student.attention == "softmax" else student.top
    intervals = [_interval(estimate) for estimate in (row.pearson, row.spearman, row.behind)]
    spread = "" if row.spread is None else row.spread
    return [f"{student.style}, {student.attention}", student.layers, linear, row.seeds, *intervals, spread]


def _interval(estimate: Estimate) -> str:
    return "" if estimate.value is None else f"{estimate.value:.2f} [{estimate.low}, {estimate.high}]"


def pictures(found_rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """By file name, what a picture shows, and the picture; those for which there is nothing to draw are left out."""
    whole: dict[str, list[Dot]] = {}
    mixed: dict[str, list[Dot]] = {}
    deepest = max((row.student.layers for row in found_rows), default=0)
    for row in sorted(found_rows, key=lambda row: (row.student.layers, row.student.top)):
        student, figure = row.student, row.spearman
        if figure.value is None:
            continue
        name = student.attention if student.style == "dse" else f"softmax, as {student.style}"
        if student.top == student.layers:
            dots = whole.setdefault(name, [])
            dots.append(Dot(student.layers, figure.value, figure.low, figure.high))
        if student.style == "dse" and student.layers == deepest and student.attention != "softmax":
            mixed.setdefault(name, []).append(Dot(student.top, figure.value, figure.low, figure.high))
        if (student.style, student.attention, student.layers) == ("dse", "softmax", deepest):
            mixed["softmax"] = [Dot(0, figure.value, figure.low, figure.high)]
    every = [
        ("depth-layers.svg", "Spearman on STS-B test, by depth", "layers", whole),
        (
            "depth-top.svg",
            f"Spearman on STS-B test, by how many of {deepest} layers are linear",
            "linear layers",
            {name: mixed[name] for name in whole | mixed if name in mixed},  # in the colours of the other picture
        ),
    ]
    return {
        file: (title, lines(Axes(title, across, "Spearman"), [Series(name, dots) for name, dots in of.items()]))
        for file, title, across, of in every
        if of
    }
