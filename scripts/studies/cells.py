"""Which runs is a study made of, and which are still to do? Each is a folder with its result."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.console import BadInput

RESULT = "result.json"
"""In a cell's folder, once it has run: what it is, and what was found."""

FACTS = "cell.json"
"""In a cell's folder, once it was begun: what it is."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a study: its folder's name, and all that decides what is found."""

    name: str
    facts: Mapping[str, Any]


def digest(said: str) -> str:
    """What a cell remembers of something that is too long to write down."""
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    measure: Callable[[Cell, Path], Found],
    minutes: float | None,
    progress: Callable[[str, int, int], None],
) -> dict[str, Found]:
    """What was found in each cell, by name; those that have a result are only read.

    Args:
        cells: in the order in which they run.
        folder: a folder for each is made below it.
        measure: runs a cell in its folder, and goes on with what an earlier call that stopped left there.
        minutes: no cell is begun once so many have passed; those that remain are not in what is returned.
        progress: told the cell, how many are done, and how many there are.

    Raises:
        BadInput: a folder holds the result, or the beginning, of a cell with other facts.
    """
    began, found = time.monotonic(), {}
    for number, cell in enumerate(cells):
        progress(cell.name, number, len(cells))
        path = folder / cell.name / RESULT
        if path.exists():
            found[cell.name] = _read(path, cell)
        elif minutes is None or time.monotonic() - began < 60 * minutes:
            path.parent.mkdir(parents=True, exist_ok=True)
            _claim(path.with_name(FACTS), cell)
            found[cell.name] = measure(cell, path.parent)
            write(path, {"cell": dict(cell.facts), "found": found[cell.name]})
    progress("done", len(found), len(cells))
    return found


def _read(path: Path, cell: Cell) -> Found:
    held = json.loads(path.read_text("utf-8"))
    _check(path, held["cell"], cell)
    found: Found = held["found"]
    return found


def _claim(path: Path, cell: Cell) -> None:
    """Write what a cell is before it begins, or see that it was begun as the same."""
    if path.exists():
        _check(path, json.loads(path.read_text("utf-8")), cell)
    else:
        write(path, dict(cell.facts))


def _check(path: Path, held: Any, cell: Cell) -> None:
    if held != json.loads(json.dumps(dict(cell.facts))):
        raise BadInput(f"{path} is of another study ({held}, not {dict(cell.facts)}); name another --output")


def write(path: Path, value: Any) -> None:
    """Write a file of a cell's folder, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2), "utf-8")
    partial.replace(path)
