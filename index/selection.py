"""Which rows may a search find? One flag a row, and what searches need to know of the flags, worked out once."""

from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

_library: Any = faiss  # its stubs do not know what its Python layer adds to constructors


class Selection:
    """Rows that may be found; nothing changes it any more, the flags it was made of included.

    Safe to use from several threads: what two of them work out at once is the same.
    """

    def __init__(self, flags: NDArray[np.bool_]) -> None:
        self.flags = flags.view()  # (rows,)
        self.flags.setflags(write=False)
        self._in_lists: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.flags)

    def __and__(self, other: "Selection") -> "Selection":
        return Selection(self.flags & other.flags)

    @cached_property
    def count(self) -> int:
        """How many rows may be found."""
        return int(np.count_nonzero(self.flags))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(count,) those that may be found, in order."""
        return np.flatnonzero(self.flags)

    @cached_property
    def bitmap(self) -> Any:
        """The same for FAISS: a bit a row. Packing it costs as much as a search of a million rows."""
        return _library.IDSelectorBitmap(np.packbits(self.flags, bitorder="little"))

    def in_list(self, number: int, rows: NDArray[np.int64]) -> int:
        """How many of the rows of one inverted list may be found; the same number is always the same list."""
        count = self._in_lists.get(number)
        if count is None:
            count = self._in_lists[number] = int(np.count_nonzero(self.flags[rows]))
        return count
