"""Which few rows stand for many?"""

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def spaced(rows: Sequence[_T], most: int) -> list[_T]:
    """So many rows, evenly spaced from the first on; all, if there are no more."""
    if most >= len(rows):
        return list(rows)
    return [rows[number * len(rows) // most] for number in range(most)]
