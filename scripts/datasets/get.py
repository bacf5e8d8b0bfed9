"""How does a data set come to lie below the data folder? Fetched, checked, written in the uniform form."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.progress import Progress

from model.training.pairs import PairFileError
from scripts.console import BadInput, written
from scripts.datasets.forms import Form, form_of
from scripts.datasets.supplies import Fetched, Supply

ROWS_PER_STEP = 5000
CUT_SHORT = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a compressed file ends in that was not copied whole."""


@dataclass(frozen=True)
class Got:
    """What became of a file. ``origin`` is None where it lay there already."""

    file: str
    rows: int
    published: int | None
    origin: str | None

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.file}: not written, no row of {self.origin} has a label"
        other = f" ({self.published:,} are published)" if self.published not in (None, self.rows) else ""
        said = f"{self.file}: {self.rows:,} rows{other}"
        if self.origin is not None:
            return f"{said} <- {self.origin}"
        return f"{said}, there already" + ("; --force gets it anew" if other else "")


def get(
    supplies: Sequence[Supply], folder: Path, progress: Progress, force: bool = False, any_count: bool = False
) -> list[Got]:
    """Write the files of a set below ``folder``; those that are there and whole stay, unless ``force`` is set.

    All that is missing is fetched before the first file is written, and a file takes its place only when it is whole.

    Raises:
        BadInput: a file cannot be fetched, read or written; one of another form is in its place; or it has another
            number of rows than published (a local copy in the uniform form, or ``any_count``: it is taken all the
            same).
    """
    there = {} if force else {s.file: count for s in supplies if (count := _rows_in(folder / s.file, s.file))}
    fetched = {s.file: s.fetch() for s in supplies if s.file not in there}
    return [
        _write(supply, fetched[supply.file], folder, progress, any_count)
        if supply.file in fetched
        else Got(supply.file, there[supply.file], supply.published, None)
        for supply in supplies
    ]


def _rows_in(path: Path, file: str) -> int | None:
    """How many rows a file has; None if there is none, or it was cut short.

    Raises:
        BadInput: it holds something else, which may be somebody's own.
    """
    try:
        return sum(1 for _ in form_of(file).read(path)) if path.is_file() else None
    except (BadInput, PairFileError) as error:
        if isinstance(error.__cause__, CUT_SHORT):
            return None
        raise BadInput(f"{error}; {path} is not of the form that is written here, and --force replaces it") from error


def _write(supply: Supply, fetched: Fetched, folder: Path, progress: Progress, any_count: bool) -> Got:
    form, path, count = form_of(supply.file), folder / supply.file, 0
    lines = _lines(fetched, form)
    first = next(lines, None)
    if first is None:
        return Got(supply.file, 0, supply.published, fetched.origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    task = progress.add_task(f"writing {path}", total=supply.published)
    with written(path, "wb") as file:
        # Without name and time, the same rows are the same bytes.
        packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else nullcontext(file)
        with packed as sink:
            if form.header is not None:
                sink.write(f"{form.header}\n".encode())
            for count, line in enumerate(chain([first], lines), 1):
                sink.write(f"{line}\n".encode())
                if count % ROWS_PER_STEP == 0:
                    progress.update(task, completed=count)
        progress.update(task, completed=count)
        if supply.exact and not any_count and supply.published not in (None, count):
            raise BadInput(
                f"{fetched.origin}: {count:,} rows for {supply.file}, {supply.published:,} are published; "
                "--any-count takes it all the same"
            )
    return Got(supply.file, count, supply.published, fetched.origin)


def _lines(fetched: Fetched, form: Form) -> Iterator[str]:
    for number, row in enumerate(fetched.rows, 1):
        try:
            uniform = fetched.to_uniform(row)
            line = None if uniform is None else form.line(uniform)
        except (KeyError, TypeError, ValueError) as error:
            problem = f"no column {error} among {sorted(row)}" if isinstance(error, KeyError) else str(error)
            raise BadInput(f"{fetched.origin}: row {number}: {problem}") from error
        if line is not None:
            yield line
