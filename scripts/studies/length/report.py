"""What did the length study find? A row for each way to read texts of each length; a page, and its pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from scripts.evaluation.bootstrap import Estimate, Samples
from scripts.markdown import table
from scripts.studies.answers import samples
from scripts.studies.cells import Cell, Found
from scripts.studies.length.plan import CONTROLS
from scripts.studies.plot import Axes, Dot, Series, lines

SOFTMAX, PIECES = "softmax", "pieces"
NAMES = {
    "truncated": "parent, cut at 512",
    "pieces": "parent, mean of pieces",
    "static": "static student",
}
"""Controls, as the page calls them."""

ACROSS = "tokens of a text"


@dataclass(frozen=True)
class Row:
    """One way to read texts of one length; of students, the mean over their seeds."""

    what: str
    tokens: int
    seeds: int
    pearson: Estimate
    spearman: Estimate
    over_softmax: Estimate  # Pearson; of linear students, over the softmax ones of this length, paired
    over_pieces: Estimate  # Pearson, over the mean of pieces at this length, paired
    microseconds: float  # of computing, for a token that is read
    mib: float | None  # that reading takes, 4,096 tokens at a time
    training: Mapping[str, float | None]  # steps, and what of it was asked; nothing of controls
    long: Mapping[str, float | None]  # by set: its figure


def rows(cells: Sequence[Cell], found: Mapping[str, Found], folder: Path) -> list[Row]:
    """A row for each control and student with a finished cell, by length."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        if cell.name in found and cell.facts["tokens"] is not None:
            groups.setdefault((cell.facts["what"], cell.facts["tokens"]), []).append(cell)
    drawn = {key: samples(folder, of_key) for key, of_key in groups.items()}
    return [
        _row(key, [found[cell.name] for cell in groups[key]], drawn)
        for key in sorted(groups, key=lambda key: (key[1], key[0] in CONTROLS))
    ]


def _row(
    key: tuple[str, int], of_seeds: Sequence[Found], drawn: Mapping[tuple[str, int], Mapping[str, Samples]]
) -> Row:
    what, tokens = key
    compared = what not in (SOFTMAX, *CONTROLS)
    return Row(
        what,
        tokens,
        len(of_seeds),
        Estimate.of(drawn[key]["pearson"]),
        Estimate.of(drawn[key]["spearman"]),
        _over(drawn[key], drawn.get((SOFTMAX, tokens)) if compared else None),
        _over(drawn[key], drawn.get((PIECES, tokens)) if what not in CONTROLS else None),
        mean(one["test"]["microseconds_per_token"] for one in of_seeds),
        _mean([one["test"]["mib"] for one in of_seeds]),
        {} if what in CONTROLS else _training(of_seeds),
        long_figures(of_seeds),
    )


def _over(mine: Mapping[str, Samples], other: Mapping[str, Samples] | None) -> Estimate:
    return Estimate(None, None, None) if other is None else Estimate.of(mine["pearson"] - other["pearson"])


def _training(of_seeds: Sequence[Found]) -> dict[str, float | None]:
    step = [one["step"] for one in of_seeds]
    tokens = mean(one["trained_tokens"] / one["steps"] for one in of_seeds)
    told: dict[str, float | None] = {
        "steps": mean(one["steps"] for one in of_seeds),
        "start": _mean([one["curve"][0]["pearson"] for one in of_seeds]),
        "seconds_a_step": mean(one["cpu_seconds"] for one in step),
        "tokens_a_second": tokens / mean(one["cpu_seconds"] for one in step),
        "mib": _mean([one["mib"] for one in step]),
    }
    for part in ("of_final", "of_gain"):
        for unit in ("step", "cpu_seconds"):
            told[f"{part}_{unit}"] = _mean([(one["converged"][part] or {}).get(unit) for one in of_seeds])
    return told


def long_figures(of_seeds: Sequence[Found]) -> dict[str, float | None]:
    """The last figure of each set of long texts (average precision, nDCG@10), the mean over seeds."""
    names = of_seeds[0].get("long", {})
    return {
        f"{name} {(figure := list(figures)[-1])}": _mean([one["long"][name][figure]["value"] for one in of_seeds])
        for name, figures in names.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def markdown(
    found_rows: Sequence[Row],
    controls: Mapping[str, Mapping[str, float | None]],
    budget: str,
    pictures: Mapping[str, str],
) -> str:
    """The page: what was asked and how, its tables, and its pictures.

    Args:
        found_rows: of :func:`rows`.
        controls: by name, their figures on sets of long texts.
        budget: what the study was allowed, and what it took.
        pictures: by file name, what each shows.
    """

    def page() -> Iterator[str]:
        yield "# Length and attention\n"
        yield budget + "\n"
        yield HOW
        for file, title in pictures.items():
            yield f"![{title}]({file})\n"
        yield "## Pairs in context\n"
        yield from table(
            ["tokens", "reads", "seeds", "Pearson", "Spearman", "over softmax", "over pieces", "CPU µs/token", "MiB"],
            [
                [
                    f"{row.tokens:,}",
                    NAMES.get(row.what, row.what),
                    row.seeds if row.training else "",
                    *map(_interval, (row.pearson, row.spearman, row.over_softmax, row.over_pieces)),
                    f"{row.microseconds:.0f}",
                    _number(row.mib, 0),
                ]
                for row in found_rows
            ],
        )
        yield "\n## Training\n"
        yield from table(
            [
                "tokens", "attention", "steps", "Pearson at first", "95 % of the final figure: steps", "CPU s",
                "95 % of the gain: steps", "CPU s", "CPU s/step", "tokens/CPU s", "MiB",
            ],
            [
                [f"{row.tokens:,}", row.what, *(_number(row.training[name], digits) for name, digits in TRAINING)]
                for row in found_rows
                if row.training
            ],
        )  # fmt: skip
        names = list(dict.fromkeys(name for row in found_rows for name in row.long))
        if names or controls:
            names = names or list(next(iter(controls.values())))
            yield "\n## Sets of long texts\n"
            yield from table(
                ["reads", "tokens", *names],
                [
                    [NAMES[name], "", *(_number(figures.get(column), 2) for column in names)]
                    for name, figures in controls.items()
                ]
                + [
                    [row.what, f"{row.tokens:,}", *(_number(row.long.get(column), 2) for column in names)]
                    for row in found_rows
                    if row.long
                ],
            )

    return "\n".join(page()) + "\n"


TRAINING = (
    ("steps", 0),
    ("start", 2),
    ("of_final_step", 1),
    ("of_final_cpu_seconds", 0),
    ("of_gain_step", 1),
    ("of_gain_cpu_seconds", 0),
    ("seconds_a_step", 2),
    ("tokens_a_second", 0),
    ("mib", 0),
)
"""What the page tells of training, and to how many decimals."""

HOW = """\
Both sentences of an STS-B pair stand at the same place of the same context: sentences of English Wikinews, drawn at
random, none of which is a sentence of an evaluation split. Both texts say what the context says, so they differ in the
pair's sentences alone, and pairs keep the order that people gave them. Each split has context sentences of its own.
Figures are of pairs of the test split, in points, with 95 % bootstrap intervals over pairs; *over* is a difference of
Pearson, paired. Of students, the mean over seeds. A student of n tokens reads n tokens of a text, and was trained on
texts of n tokens; controls are its softmax parent, not trained further, and a table of token rows. Reading is timed
with one text or more at a time, up to 4,096 tokens in all. A student counts as converged from where it stays above 95 %
of its final dev Pearson, or above 95 % of the way there from where it began (none, where it did not gain).

STS-B cannot show what long inputs are good for: of each text one sentence of about 14 words matters. It shows what a
reader loses of that sentence as the text around it grows. Sets of long texts ask what whole texts are about.
"""


def _interval(estimate: Estimate) -> str:
    return "" if estimate.value is None else f"{estimate.value:.2f} [{estimate.low}, {estimate.high}]"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def pictures(found_rows: Sequence[Row], curves: Mapping[str, Sequence[Series]]) -> dict[str, tuple[str, str]]:
    """By file name, what a picture shows, and the picture; those for which there is nothing to draw are left out.

    Args:
        found_rows: of :func:`rows`.
        curves: of :func:`learning_curves`.
    """
    whats = sorted({row.what for row in found_rows}, key=lambda what: (what in CONTROLS, what != SOFTMAX))

    def series(value: Callable[[Row], Dot | None], students_alone: bool = False) -> list[Series]:
        return [
            Series(
                NAMES.get(what, what),
                [dot for row in found_rows if row.what == what and (dot := value(row)) is not None],
                dashed=what in CONTROLS,
            )
            for what in whats
            if what not in CONTROLS or not students_alone
        ]

    def pearson(row: Row) -> Dot | None:
        found = row.pearson
        return None if found.value is None else Dot(row.tokens, found.value, found.low, found.high)

    def told(name: str) -> Callable[[Row], Dot | None]:
        return lambda row: None if (y := row.training.get(name)) is None else Dot(row.tokens, y)

    def memory(row: Row) -> Dot | None:
        return Dot(row.tokens, row.mib) if row.mib else None

    every = [
        ("pearson", "Pearson on pairs in context", "Pearson", series(pearson), False),
        (
            "converged",
            "Seconds of computing until 95 % of the final Pearson",
            "CPU seconds",
            series(told("of_final_cpu_seconds"), students_alone=True),
            False,
        ),
        ("training", "Tokens trained on in a second", "tokens/CPU s", series(told("tokens_a_second"), True), False),
        ("memory", "Memory of reading", "MiB", series(memory), True),
    ]
    drawn = {
        f"length-{name}.svg": (title, lines(Axes(title, ACROSS, upwards, doubling=True, powers=powers), shown))
        for name, title, upwards, shown, powers in every
        if any(one.dots for one in shown)
    }
    for kind, shown in curves.items():
        title = f"Learning curves, {kind}"
        drawn[f"length-curves-{kind}.svg"] = title, lines(Axes(title, "% of the steps", "Pearson, dev"), shown)
    return drawn


def learning_curves(cells: Sequence[Cell], found: Mapping[str, Found]) -> dict[str, list[Series]]:
    """By attention, a line for each length: Pearson on dev over the share of the steps, the mean over seeds."""
    groups: dict[str, dict[int, list[Found]]] = {}
    for cell in cells:
        if "curve" in found.get(cell.name, {}):
            of_kind = groups.setdefault(cell.facts["what"], {})
            of_kind.setdefault(cell.facts["tokens"], []).append(found[cell.name])
    curves: dict[str, list[Series]] = {}
    for kind, by_length in groups.items():
        for tokens, of_seeds in sorted(by_length.items()):
            steps = of_seeds[0]["steps"]
            looks = zip(*(one["curve"] for one in of_seeds), strict=True)
            dots = [
                Dot(100 * look[0]["step"] / steps, y)
                for look in looks
                if (y := _mean([one["pearson"] for one in look])) is not None
            ]
            curves.setdefault(kind, []).append(Series(f"{tokens:,} tokens", dots))
    return curves
