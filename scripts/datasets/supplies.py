"""A file of a set that can be had: whence, how many rows it should have, and how to get them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scripts.datasets.forms import Row, ToUniform


@dataclass(frozen=True)
class Fetched:
    """The rows of a file as its source has them, what makes them uniform, and a name of that source for people."""

    rows: Iterable[Row]
    to_uniform: ToUniform
    origin: str


@dataclass(frozen=True)
class Supply:
    """A file of a set, by its name below the set's folder. ``published`` is its row count, None if not known.

    ``fetch`` downloads where that is needed; the rows are read later. An ``exact`` supply is refused unless it has as
    many rows as published; a copy in the uniform form may be a sample that somebody made.
    """

    file: str
    published: int | None
    fetch: Callable[[], Fetched]
    exact: bool = True
