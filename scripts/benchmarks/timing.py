"""How long do calls take? One beside the other in turns, because a machine's speed wanders; alone or many at once."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np

CALLS_PER_TURN = 20


@dataclass(frozen=True)
class Pace:
    """Of so many calls: milliseconds of one, and calls a second of all clients together.

    What a call waits for another client, or another process, is in ``p50`` and ``p99``, and not in ``cpu_p50``: that is
    what its own thread computed, which is all of it where there is one thread to compute with.
    """

    calls: int
    p50: float
    p99: float
    cpu_p50: float | None
    per_second: float

    @classmethod
    def of(cls, seconds: Sequence[float], elapsed: float, cpu: Sequence[float] = ()) -> Self:
        """Of one call or more, that took so long each, and together; and that computed so long, if that is known."""
        p50, p99 = 1000 * np.percentile(seconds, [50, 99])
        computed = round(1000 * float(np.median(cpu)), 3) if cpu else None
        return cls(len(seconds), round(float(p50), 3), round(float(p99), 3), computed, round(len(seconds) / elapsed, 1))


def in_turns(calls: Mapping[str, Callable[[int], object]], items: int, clients: int, least: int) -> dict[str, Pace]:
    """The pace of each kind of call, in one run: a few calls of the first by every client, of the next, and so on.

    Args:
        calls: by name, each given the number of an item.
        items: how many there are. Every kind of call goes through them in an order of its own, so that none finds
            caches warmed by another.
        clients: callers at once, a thread each.
        least: calls of each kind, at least.
    """
    turns = -(-least // (CALLS_PER_TURN * clients))
    orders = {name: np.random.default_rng(number).permutation(items).tolist() for number, name in enumerate(calls)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    elapsed = dict.fromkeys(calls, 0.0)
    with ThreadPoolExecutor(clients) as threads:

        def turn(name: str, first: int) -> list[tuple[float, float]]:
            """Seconds, and seconds of computing, of each of one turn's calls, by all clients."""
            numbers = [orders[name][place % items] for place in range(first, first + CALLS_PER_TURN * clients)]
            parts = [numbers[client::clients] for client in range(clients)]
            return [each for part in threads.map(lambda part: _timed(calls[name], part), parts) for each in part]

        for name in calls:
            turn(name, -CALLS_PER_TURN * clients)  # does not count, and warms what is asked last
        for number in range(turns):
            for name in calls:
                started = time.perf_counter()
                taken[name] += turn(name, number * CALLS_PER_TURN * clients)
                elapsed[name] += time.perf_counter() - started
    return {
        name: Pace.of([seconds for seconds, _ in taken[name]], elapsed[name], [cpu for _, cpu in taken[name]])
        for name in calls
    }


def _timed(call: Callable[[int], object], numbers: Sequence[int]) -> list[tuple[float, float]]:
    taken = []
    for number in numbers:
        started, computed = time.perf_counter(), time.thread_time()
        call(number)
        taken.append((time.perf_counter() - started, time.thread_time() - computed))
    return taken
