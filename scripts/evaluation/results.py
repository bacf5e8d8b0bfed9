"""What was found? One document: which models, which sets, every figure, and who fell behind."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from scripts.console import BadInput
from scripts.evaluation.bootstrap import RESAMPLES, SEED, Estimate
from scripts.evaluation.scorers import ModelFacts
from scripts.evaluation.sets import Kind, SetFacts
from scripts.evaluation.speed import Speed

MAIN: dict[Kind, str] = {"sts": "spearman", "classification": "average_precision", "retrieval": "ndcg@10"}
"""The figure that stands for a set in means, in the guard and in the plot."""

PACKAGES = ("dse", "numpy", "onnxruntime", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Row:
    """Figures of one answer of one model on one set."""

    set: str
    kind: Kind
    model: str
    by: str  # score, similarity, teacher, ...
    figures: dict[str, Estimate]
    thresholds: dict[str, float | None]  # from which score on a pair is accepted; classification only
    over_baseline: dict[str, Estimate]  # each figure less the baseline's, in points; of the baseline, nothing

    @property
    def shortened(self) -> bool:
        """By embeddings that were cut, which are known to lose something."""
        return "@" in self.by

    @property
    def main(self) -> float | None:
        """The figure that stands for the set."""
        return self.figures[MAIN[self.kind]].value


@dataclass(frozen=True)
class Agreement:
    """Rank correlations (points) of a model's answers with a teacher's, on the pairs of a set."""

    set: str
    model: str
    by: str
    teacher: str
    spearman: float | None
    kendall: float | None


@dataclass(frozen=True)
class Mean:
    """The mean over the sets of a kind of the figure that stands for each; None where one is not defined."""

    kind: Kind
    model: str
    by: str
    sets: int
    value: float | None


@dataclass(frozen=True)
class Behind:
    """A guarded set on which an answer is further behind the baseline than the margin."""

    set: str
    model: str
    by: str
    value: float | None
    difference: float | None


@dataclass(frozen=True)
class Guard:
    """Whether no guarded set was lost: every other model's answers against the baseline's."""

    baseline: str
    margin: float
    checked: int
    behind: list[Behind]

    @property
    def holds(self) -> bool:
        """Something was checked, and nothing is behind."""
        return self.checked > 0 and not self.behind


@dataclass(frozen=True)
class Results:
    """Everything that a run of dse evaluate found. Figures and differences are in points: 100 times themselves."""

    format: Literal[1]
    versions: dict[str, str]
    seed: int
    resamples: int
    baseline: str
    models: list[ModelFacts]
    sets: list[SetFacts]
    rows: list[Row]
    means: list[Mean]
    agreement: list[Agreement]
    speed: Speed | None
    guard: Guard | None

    @classmethod
    def of(
        cls,
        baseline: str,
        models: Sequence[ModelFacts],
        sets: Sequence[SetFacts],
        rows: Sequence[Row],
        agreement: Sequence[Agreement],
        speed: Speed | None,
        guard: Guard | None,
    ) -> "Results":
        """The document of what was measured just now, by these versions."""
        return cls(
            1, _versions(), SEED, RESAMPLES, baseline, list(models), list(sets), list(rows), means(rows, sets),
            list(agreement), speed, guard,
        )  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> "Results":
        """A document that an earlier run wrote.

        Raises:
            BadInput: it is not one.
        """
        try:
            return TypeAdapter(Results).validate_json(path.read_bytes())
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(
                f"{path} is not a result of dse evaluate: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error

    def as_json(self) -> dict[str, Any]:
        """The document."""
        return asdict(self)

    def dumped(self) -> str:
        """The document as it is written to a file."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"


def means(rows: Sequence[Row], sets: Sequence[SetFacts]) -> list[Mean]:
    """The mean of each kind of set, for every answer that was measured.

    Sets that are kept apart do not count, unless there are no others of their kind.
    """
    plain = {facts.kind for facts in sets if not facts.apart}
    counted = {facts.name for facts in sets if not facts.apart or facts.kind not in plain}
    grouped: dict[tuple[Kind, str, str], list[float | None]] = {}
    for row in (row for row in rows if row.set in counted):
        grouped.setdefault((row.kind, row.model, row.by), []).append(row.main)
    return [
        Mean(*who, len(values), None if None in values else round(mean(v for v in values if v is not None), 2))
        for who, values in grouped.items()
    ]


def guard(rows: Sequence[Row], sets: Sequence[SetFacts], baseline: str, margin: float) -> Guard:
    """Which answers are more than ``margin`` points behind the baseline's on a guarded set.

    Embeddings that were cut are not guarded. A difference that is not defined, because a figure is not or the baseline
    gave no answer, does not pass.
    """
    guarded = {facts.name for facts in sets if facts.guarded}
    checked = [row for row in rows if row.set in guarded and row.model != baseline and not row.shortened]
    found = [(row, row.over_baseline[MAIN[row.kind]].value if row.over_baseline else None) for row in checked]
    return Guard(
        baseline,
        margin,
        len(found),
        [
            Behind(row.set, row.model, row.by, row.main, difference)
            for row, difference in found
            if difference is None or difference < -margin
        ],
    )


def _versions() -> dict[str, str]:
    """Of this program, and of what decides the numbers: of torch only where it had a part."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        if package == "dse" or package in sys.modules:
            try:
                found[package] = version(package)
            except PackageNotFoundError:  # run from a folder, not installed
                found[package] = "unknown"
    return found
