"""Whose turn is it? For work of which all would be late, or take too much memory, if all were done at once."""

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count

STILL_WANTED: ContextVar[Callable[[], None] | None] = ContextVar("still wanted", default=None)
"""Asked at each turn of long work; raises where nobody waits for it any more. Set by whoever gives work a deadline."""

Turn = Callable[[], AbstractContextManager[None]]
"""Waits for a turn, which lasts until it is left."""


class Line:
    """Work in parts, one at a time or a few: whoever came first goes on to the end, but lets far smaller work pass.

    What interleaved all would be done late, and all at the same time.
    """

    def __init__(self, patience: float, at_once: int = 1) -> None:
        """An empty line.

        Args:
            patience: how many times as long as its own work takes, somebody lets those pass who came later.
            at_once: how many may have their turn at the same time.
        """
        self._patience, self._at_once, self._free = patience, at_once, at_once
        self._change = threading.Condition()
        self._joined: list[tuple[float, int]] = []  # the least go first; whoever has a turn is among them
        self._number = count()

    @contextmanager
    def joined(self, seconds: float) -> Iterator[Turn]:
        """Stand in line until this is left, with work of about so many seconds: each part of it waits for its turn."""
        mine = time.monotonic() + self._patience * seconds, next(self._number)
        with self._change:
            self._joined.append(mine)
        try:
            yield partial(self._turn, mine)
        finally:
            with self._change:
                self._joined.remove(mine)
                self._change.notify_all()

    @contextmanager
    def _turn(self, mine: tuple[float, int]) -> Iterator[None]:
        with self._change:
            self._change.wait_for(lambda: self._free and mine in heapq.nsmallest(self._at_once, self._joined))
            self._free -= 1
        try:
            if (check := STILL_WANTED.get()) is not None:
                check()
            yield
        finally:
            with self._change:
                self._free += 1
                self._change.notify_all()
