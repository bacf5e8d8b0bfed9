"""How do commands talk to people and to programs?"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from app.settings import Settings, misspelt
from index.manifest import IndexFault
from index.sources import SourceError
from model.faults import DimensionsError, TrainingFault
from model.manifest import ArtifactError

if TYPE_CHECKING:
    from model.bundle import Graph, Student

SECONDS_PER_LINE = 30.0
WIDE = 100_000
"""Characters of a line that nobody looks at."""

_OBEYED = dict.fromkeys(
    {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {*map(ord, "\t\n")}, "\ufffd"
)

T = TypeVar("T")


class BadInput(Exception):
    """An argument or a file that a command cannot use; the message says what to do."""


REFUSALS = (BadInput, ArtifactError, DimensionsError, IndexFault, SourceError, TrainingFault, OSError)
"""What the caller can mend: answered with one line, never with a stack trace."""

errors = Console(stderr=True, soft_wrap=True, highlight=False)


def say_no(error: BaseException) -> None:
    """One line on standard error."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    errors.print(f"dse: {printable(message)}", markup=False)


def read_settings(**given: Any) -> Settings:
    """The settings, from options and ``DSE_*`` variables.

    Raises:
        BadInput: one of them cannot be used; the message names it.
    """
    for variable, meant in misspelt(os.environ).items():
        raise BadInput(f"{variable} is not a setting; did you mean {meant}? Unset it, or name it so")
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        option = f"--{name.replace('_', '-')} or DSE_{name.upper()}: " if name else ""
        raise BadInput(option + str(first["msg"]).removeprefix("Value error, ")) from error


def settings_with(**options: Any) -> Settings:
    """The settings, with those of the options that were given, the others being None.

    Raises:
        BadInput: as for :func:`read_settings`.
    """
    return read_settings(**{name: value for name, value in options.items() if value is not None})


def student_of(settings: Settings, graph: "Graph | None" = None) -> "Student":
    """The student that the settings name, as it is served.

    Raises:
        ArtifactError: no student's bundle, or a damaged one.
    """
    from model.bundle import load_student

    return load_student(settings.bundle, settings.threads, graph, settings.long_text)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items, ``size`` at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, each with its number from 1, without what ends it.

    Raises:
        BadInput: the file cannot be read, or there are none.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
    found = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadInput(f"{path}: no {what} in it")
    return found


@contextmanager
def written(path: Path, mode: Literal["w", "wb"]) -> Iterator[IO[Any]]:
    """A file to write that takes its place only when it is whole; until then, what was there stays.

    A link stays a link, and what it leads to is written; a device or a pipe is written to as it is.

    Raises:
        BadInput: the place cannot be written to. Said at once, before any work is done.
    """
    place = _place(path)
    if _is_no_file(place):
        with _begun(place, mode, path) as file:
            yield file
        return
    partial = _partial(place)
    file = _begun(partial, mode, path)
    try:
        with file:
            yield file
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Make the folder of a file that is to be written, and see that it can be; what is there stays.

    Raises:
        BadInput: the place cannot be written to.
    """
    place = _place(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
    if _is_no_file(place):
        if place.is_dir() or not os.access(place, os.W_OK):
            raise BadInput(f"{path} cannot be written: {'it is a folder' if place.is_dir() else 'Permission denied'}")
        return
    _begun(_partial(place), "w", path).close()
    _partial(place).unlink()


def _place(path: Path) -> Path:
    """Where a path leads to."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{path} cannot be written: its links lead nowhere ({error})") from error


def _is_no_file(place: Path) -> bool:
    return place.exists() and not place.is_file()


def _partial(place: Path) -> Path:
    return place.with_name(f"{place.name}.{os.getpid()}.partial")


def _begun(place: Path, mode: Literal["w", "wb"], named: Path) -> IO[Any]:
    try:
        return place.open(mode, encoding=None if mode == "wb" else "utf-8", newline=None if mode == "wb" else "\n")
    except OSError as error:
        raise BadInput(f"{named} cannot be written: {error.strerror}") from error


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table for people, on standard output; nothing of it is cut where that is no terminal."""
    table = Table(*map(escape, columns), box=None, header_style="bold", pad_edge=False)
    for row in rows:
        # as text: a document may hold what rich would take for markup
        table.add_row(*(Text(printable(cell)) for cell in row))
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        Console(soft_wrap=False).print(table)
        return
    wide = Console(width=WIDE)
    with wide.capture() as shown:
        wide.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in shown.get().split("\n")))


def printable(text: str) -> str:
    """A text without what a terminal would obey: control characters but tab and line break, and turned directions.

    >>> printable("\x1b[31mred\u202e")
    '\ufffd[31mred\ufffd'
    """
    return text.translate(_OBEYED)


class LoggedProgress(Progress):
    """Progress for a log: a line now and then instead of a bar."""

    _said = -SECONDS_PER_LINE

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As for a bar."""
        super().update(task_id, **changes)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As for a bar."""
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if time.monotonic() - self._said < SECONDS_PER_LINE:
            return
        self._said = time.monotonic()
        task = self.tasks[task_id]
        total = "" if task.total is None else f" of {task.total:,.0f}"
        errors.print(f"{task.description}: {task.completed:,.0f}{total}", markup=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error, so that standard output stays a program's; lines where that is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    kind = Progress if errors.is_terminal else LoggedProgress
    with kind(*columns, console=errors, disable=not errors.is_terminal) as progress:
        yield progress
