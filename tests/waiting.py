"""Waiting for what happens in another thread or process."""

import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds: a slow machine is no failure


def until(condition: Callable[[], bool]) -> float:
    """How many seconds it takes until something is so."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE, "it never is"
        time.sleep(0.002)
    return time.monotonic() - began
