"""How is a cell of the length study run? A student is trained, watched as it learns, and judged at the end."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from model.training.networks import BiEncoder, load_network, make_network, save_network
from model.training.trainer import Progress, check_aims, train_stage
from scripts.studies.answers import keep
from scripts.studies.cells import Cell, Found
from scripts.studies.length.ground import Ground
from scripts.studies.length.judge import Encode, control_reader, in_context, on_long_sets, reader_of, reading
from scripts.studies.length.plan import Plan
from scripts.studies.memory import beside, forget_peak, peak_mib

COURSE, TRAINED = "course.json", "run"
"""In a cell's folder: how training went so far, and the trained network."""

REACHED = 0.95
"""Of the final figure, or of the way to it: from there on a student counts as converged."""


class Course:
    """How a student's training goes: its quality after some steps, and what a step takes.

    It is written down at every look, so that training may stop and go on. The time of looking is not counted.
    """

    def __init__(self, path: Path, looks: Sequence[int], look: Callable[[], Mapping[str, Any]]) -> None:
        self._path, self._looks, self._look = path, looks, look
        self.told: Found = json.loads(path.read_text("utf-8")) if path.exists() else {"curve": {}, "step": {}}
        self._computed: list[float] = []
        self._taken: list[float] = []
        self._mib: float | None = None

    def begin(self) -> None:
        """Look once before the first step, unless that was done; time runs from here."""
        if "0" not in self.told["curve"]:
            self._look_after(0)
        forget_peak()
        self._before = peak_mib()
        self._resume()

    def step(self, done: int) -> None:
        """A step was done."""
        self._computed.append(time.process_time() - self._began[0])
        self._taken.append(time.perf_counter() - self._began[1])
        if len(self._taken) == 1:
            self._mib = beside(self._before)  # every step is of the same size
        if done in self._looks:
            self._look_after(done)
        self._resume()

    def _resume(self) -> None:
        self._began = time.process_time(), time.perf_counter()

    def _look_after(self, done: int) -> None:
        self.told["curve"][str(done)] = dict(self._look())
        if self._taken:
            seconds = {"cpu_seconds": median(self._computed), "seconds": median(self._taken)}
            self.told["step"] = {name: round(value, 4) for name, value in seconds.items()} | {"mib": self._mib}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.told), "utf-8")
        partial.replace(self._path)


def run_student(plan: Plan, cell: Cell, ground: Ground, folder: Path, shared: Path, progress: Progress) -> Found:
    """Train a student in its cell's folder, or go on with it, and judge it.

    Args:
        plan: of the study.
        cell: which student.
        ground: what it learns from and is judged by.
        folder: the cell's.
        shared: where the parent's embeddings are kept.
        progress: told the stage and its steps.
    """
    attention, tokens, seed = (cell.facts[fact] for fact in ("what", "tokens", "seed"))
    recipe, steps, path = plan.recipe(attention, tokens, seed), plan.steps(tokens), folder / COURSE
    if (folder / TRAINED / "network.json").exists():
        student, _ = load_network(folder / TRAINED)
    else:
        material = ground.material(recipe, steps, shared, progress)
        student = make_network(recipe, plan.start(attention)).eval()
        assert isinstance(student, BiEncoder)  # the plan's recipe is of one
        encode, dev = reader_of(student), ground.judged("dev", tokens)
        check_aims(student, plan.stage, material)
        course = Course(path, plan.looks(tokens), lambda: in_context(encode, dev)[0])
        course.begin()

        def step(stage: str, done: int, total: int) -> None:
            course.step(done)
            progress(stage, done, total)

        checkpoint = folder / "stage.safetensors"
        train_stage(student, recipe, plan.stage, material, checkpoint, step)
        save_network(student, recipe, plan.start(attention), folder / TRAINED)
        checkpoint.unlink(missing_ok=True)
    assert isinstance(student, BiEncoder)  # what was saved is what was made
    course_told = json.loads(path.read_text("utf-8"))
    judged = _judged(cell, ground, reader_of(student), tokens, folder)
    trained = steps * tokens * (2 * plan.stage.batch + plan.stage.text_batch)
    curve = [{"step": int(step)} | figures for step, figures in course_told["curve"].items()]
    return {
        "steps": steps,
        "trained_tokens": trained,
        "step": course_told["step"],
        "curve": curve,
        "converged": converged(curve, course_told["step"]["cpu_seconds"]),
        "test": judged,
        "long": on_long_sets(reader_of(student), ground.long_sets),
    }


def run_control(plan: Plan, cell: Cell, ground: Ground, folder: Path) -> Found:
    """Judge a control: on pairs in context, or on the sets of long texts."""
    encode, most = control_reader(cell.facts["what"], plan)
    if cell.facts["tokens"] is None:
        return {"long": on_long_sets(encode, ground.long_sets)}
    return {"test": _judged(cell, ground, encode, most, folder)}


def _judged(cell: Cell, ground: Ground, encode: Encode, most: int | None, folder: Path) -> Found:
    """What is found of the test pairs in context by a reader of ``most`` tokens a text; the cosines are kept."""
    pairs = ground.judged("test", cell.facts["tokens"])
    lengths = ground.lengths([*{text for pair in pairs for text in (pair.left, pair.right)}])
    found, answers = reading(encode, pairs, sum(min(length, most or length) for length in lengths))
    keep(folder, {"test": answers, "test_gold": np.array([pair.gold for pair in pairs])})
    return found


def converged(curve: Sequence[Found], cpu_seconds: float) -> Found:
    """After how many steps, and seconds of computing, a student is as good as it stays: 95 % of its final Pearson.

    ``of_final``: from there on it is never below 95 % of the final figure. ``of_gain``: nor below 95 % of the way from
    where it began to where it ended; None where it ended no better than it began. Between two looks at the curve, it
    is taken for straight.
    """
    steps = [float(look["step"]) for look in curve]
    figures = [float("nan") if look["pearson"] is None else look["pearson"] for look in curve]
    first, last = figures[0], figures[-1]
    return {
        "of_final": _since(steps, figures, REACHED * last, cpu_seconds),
        "of_gain": _since(steps, figures, first + REACHED * (last - first), cpu_seconds) if last > first else None,
    }


def _since(steps: Sequence[float], figures: Sequence[float], target: float, cpu_seconds: float) -> Found | None:
    """From where on a curve, straight between its points, is at least at the target; None if it does not end there."""
    if not figures[-1] >= target:
        return None
    at = len(figures) - 1
    while at > 0 and figures[at - 1] >= target:
        at -= 1
    step = steps[at]
    if at > 0:
        below, above = figures[at - 1], figures[at]
        step -= (steps[at] - steps[at - 1]) * (above - target) / (above - below)
    return {"step": round(step, 2), "cpu_seconds": round(step * cpu_seconds, 1)}
