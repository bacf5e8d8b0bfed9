"""How slow is the slowest of many? A query that is sent to every shard is answered when the last of them has answered.

A simulation, not a measurement: shards are alike and independent, each with replicas that have a queue each; a query
goes, in every shard, to the replica with the least before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z99 = 2.3263478740408408  # of a normal distribution: 99 % lie below so many deviations above the mean
WARM = 0.1  # of the queries, whose queues are still filling up


@dataclass(frozen=True)
class Shard:
    """How many milliseconds one shard takes for a query: lognormal, and now and then a pause on top."""

    p50: float
    p99: float
    pause: float = 0.0
    pauses: float = 0.0  # share of the queries that meet one

    def mean(self) -> float:
        """Milliseconds of a query, on average."""
        return exp(log(self.p50) + self._deviation() ** 2 / 2) + self.pause * self.pauses

    def draw(self, random: np.random.Generator, queries: int) -> Floats:
        """(queries,) milliseconds."""
        taken: Floats = random.lognormal(log(self.p50), self._deviation(), queries)
        return taken + self.pause * (random.random(queries) < self.pauses)

    def _deviation(self) -> float:
        return log(self.p99 / self.p50) / Z99


@dataclass(frozen=True)
class Tail:
    """What queries to so many shards take, in milliseconds."""

    shards: int
    p50: float
    p99: float
    p999: float
    slow: float  # share of the queries that take longer than 99 % of those to one shard


def answers(
    draw: Callable[[int], Floats], mean: float, shards: int, replicas: int, load: float, queries: int, gaps: Floats
) -> Floats:
    """(queries,) how long each takes from being asked until its last shard has answered, queues included.

    Args:
        draw: so many times of service.
        mean: of them.
        shards: that every query is sent to.
        replicas: of each shard.
        load: share of the time that a replica is busy, below 1; 0: nobody ever waits.
        queries: how many.
        gaps: (queries,) between one query and the next, of mean 1.
    """
    between = gaps * (mean / (load * replicas)) if load else np.full(queries, np.inf)
    before = np.zeros((shards, replicas))  # milliseconds of work that each replica still has
    every, taken = np.arange(shards), np.empty(queries)
    for query in range(queries):
        before = np.maximum(before - between[query], 0)
        chosen = before.argmin(axis=1)
        before[every, chosen] += draw(shards)
        taken[query] = before[every, chosen].max()
    return taken


def tails(
    shard: Shard,
    counts: Sequence[int],
    replicas: int,
    load: float,
    queries: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Tail]:
    """The tail at each number of shards; the same seed, the same numbers.

    Args:
        shard: what one takes.
        counts: of shards.
        replicas, load, queries: as for :func:`answers`.
        seed: of the simulation.
        progress: told how many counts are done.
    """
    found: list[Tail] = []
    alone = _after_warming(shard, 1, replicas, load, queries, seed)
    bound = float(np.percentile(alone, 99))
    for done, shards in enumerate(counts, 1):
        taken = alone if shards == 1 else _after_warming(shard, shards, replicas, load, queries, seed)
        p50, p99, p999 = (float(value) for value in np.percentile(taken, (50, 99, 99.9)))
        found.append(Tail(shards, p50, p99, p999, float((taken > bound).mean())))
        progress(done)
    return found


def _after_warming(shard: Shard, shards: int, replicas: int, load: float, queries: int, seed: int) -> Floats:
    random = np.random.default_rng([seed, shards])
    gaps = random.exponential(1.0, queries)
    taken = answers(lambda count: shard.draw(random, count), shard.mean(), shards, replicas, load, queries, gaps)
    return taken[int(queries * WARM) :]
