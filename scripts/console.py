"""How do commands talk to people and to programs?"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from index.manifest import IndexFault
from index.sources import SourceError
from model.manifest import ArtifactError
from model.training.faults import TrainingFault


class BadInput(Exception):
    """An argument or a file that a command cannot use; the message says what to do."""


Refused = (BadInput, ArtifactError, IndexFault, SourceError, TrainingFault, ValidationError)
"""What the caller can mend: answered with one line, never with a stack trace."""

errors = Console(stderr=True, soft_wrap=True, highlight=False)


def say_no(error: BaseException) -> None:
    """One line on standard error."""
    message = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        message = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    errors.print(f"dse: {message}", markup=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table for people, on standard output."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False).print(table)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error, so that standard output stays a program's."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as progress:
        yield progress
