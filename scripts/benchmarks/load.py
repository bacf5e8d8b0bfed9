"""What does a service bear? Requests a second and latency, beside others in turns; overload; and hours of use."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any, Protocol

import numpy as np

from scripts.benchmarks.client import (
    Answered,
    Exchange,
    Latency,
    closed_loop,
    connect,
    open_loop,
    request_of,
)
from scripts.benchmarks.encode import Spread
from scripts.console import BadInput

SECONDS_TO_RECOVER = 60.0
RECOVERED = 3
"""Answers in a row, as fast as before, after which a service has recovered."""
CROWDS = (32, 16, 8, 4)
"""Clients that ask for what a service can answer: as many as it lets wait, since one refused asks again at once."""
SAMPLES = 10
"""Of memory, a second apart, whose median is taken."""
CALM = 3.0
"""As fast as before: within so many times the median of a single client."""

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Usage:
    """What a process has used: seconds of computing since it began, and resident bytes; None where it does not say."""

    cpu: float | None
    memory: float | None


@dataclass(frozen=True)
class Turn:
    """One turn of asking."""

    answered: list[Answered]
    seconds: float
    server_cpu: float | None
    client_cpu: float | None  # of the asking process

    @property
    def per_second(self) -> float:
        """Answers, of those that were as asked."""
        return len(self.good) / self.seconds

    @property
    def good(self) -> list[Answered]:
        """What was answered as asked."""
        return [each for each in self.answered if each.status == 200]

    @property
    def cpu_per_answer(self) -> float | None:
        """Seconds that the server computed an answer, where it says so."""
        return None if self.server_cpu is None or not self.good else self.server_cpu / len(self.good)


class Target(Protocol):
    """Something that is asked."""

    name: str

    def turn(self, kind: str, clients: int, seconds: float) -> Turn:
        """Ask for so long."""
        ...


class Served:
    """A service at an address."""

    def __init__(self, name: str, address: str, requests: Mapping[str, Sequence[bytes]]) -> None:
        self.name, self.address, self._requests = name, address, requests

    def turn(self, kind: str, clients: int, seconds: float) -> Turn:
        """Ask for so long."""
        return asyncio.run(self._turn(kind, clients, seconds))

    async def _turn(self, kind: str, clients: int, seconds: float) -> Turn:
        before = await usage(self.address)
        began, computed = time.perf_counter(), time.process_time()
        answered = await closed_loop(self.address, self._requests[kind], clients, seconds)
        took, client = time.perf_counter() - began, time.process_time() - computed
        after = await usage(self.address)
        used = None if before.cpu is None or after.cpu is None else after.cpu - before.cpu
        return Turn(answered, took, used, client)


@dataclass(frozen=True)
class Result:
    """How one target did with one kind of request, and what the first target did in the same rounds."""

    target: str
    kind: str
    clients: int
    per_second: float
    latency: Latency | None
    server_cpu: float | None  # milliseconds of computing an answer
    client_share: float | None  # of one CPU, that the asking took
    failed: dict[str, int]  # by status
    ahead: Spread | None  # the first target's answers a second / these
    cpu_ahead: Spread | None  # computing an answer here / by the first target

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def measure(
    targets: Sequence[Target], kinds: Sequence[str], clients: Sequence[int], rounds: int, seconds: float, stage: Stage
) -> list[Result]:
    """Each kind of request with each number of clients, targets in turns there and back."""
    found = []
    for kind in kinds:
        for count in clients:
            turns: dict[str, list[list[Turn]]] = {target.name: [] for target in targets}
            for target in targets:
                target.turn(kind, count, min(1.0, seconds))  # does not count
            for number in range(rounds):
                stage(f"{kind}, {count} clients, round {number + 1} of {rounds}")
                here: dict[str, list[Turn]] = {target.name: [] for target in targets}
                for target in [*targets, *reversed(targets)]:
                    here[target.name].append(target.turn(kind, count, seconds))
                for name, pair in here.items():
                    turns[name].append(pair)
            first = turns[targets[0].name]
            found += [
                _result(target.name, kind, count, turns[target.name], None if target is targets[0] else first)
                for target in targets
            ]
    return found


def _result(
    name: str, kind: str, clients: int, rounds: Sequence[Sequence[Turn]], first: Sequence[Sequence[Turn]] | None
) -> Result:
    whole = _together([turn for turns in rounds for turn in turns])
    ahead = cpu_ahead = None
    if first is not None:
        both = [(_together(turns), _together(others)) for turns, others in zip(rounds, first, strict=True)]
        if all(own.good and other.good for own, other in both):
            ahead = Spread.of([other.per_second / own.per_second for own, other in both])
        cpu = [
            own.cpu_per_answer / other.cpu_per_answer
            for own, other in both
            if own.cpu_per_answer and other.cpu_per_answer
        ]
        cpu_ahead = Spread.of(cpu) if cpu else None
    per_answer = whole.cpu_per_answer
    return Result(
        name,
        kind,
        clients,
        round(whole.per_second, 1),
        Latency.of(whole.answered),
        None if per_answer is None else round(1000 * per_answer, 3),
        None if whole.client_cpu is None else round(whole.client_cpu / whole.seconds, 3),
        {
            str(status): count
            for status, count in Counter(each.status for each in whole.answered).items()
            if status != 200
        },
        ahead,
        cpu_ahead,
    )


def _together(turns: Sequence[Turn]) -> Turn:
    def total(values: Sequence[float | None]) -> float | None:
        return sum(value for value in values if value is not None) if None not in values else None

    return Turn(
        [each for turn in turns for each in turn.answered],
        sum(turn.seconds for turn in turns),
        total([turn.server_cpu for turn in turns]),
        total([turn.client_cpu for turn in turns]),
    )


@dataclass(frozen=True)
class Overload:
    """What became of more requests than can be answered."""

    kind: str
    capacity: float  # answers a second that patient clients got
    calm: float  # milliseconds, the median of one client alone
    rate: float  # requests a second
    seconds: float
    asked: int
    statuses: dict[str, int]
    admitted: Latency | None
    admitted_most: float | None  # milliseconds
    answered_per_second: float  # of 200s that came in that time, beside capacity
    memory_before: float | None  # bytes
    memory_most: float | None
    memory_after: float | None
    recovered: float | None  # seconds after the last request was due; None: not within a minute

    @property
    def refused(self) -> float:
        """Share of 429s."""
        return self.statuses.get("429", 0) / max(1, self.asked)

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self) | {"refused": round(self.refused, 4)}


def overload(
    address: str, kind: str, requests: Sequence[bytes], factor: float, seconds: float, stage: Stage
) -> Overload:
    """Ask ``factor`` times as much as is answered for so long; then see how soon all is as before."""
    return asyncio.run(_overload(address, kind, requests, factor, seconds, stage))


async def _overload(
    address: str, kind: str, requests: Sequence[bytes], factor: float, seconds: float, stage: Stage
) -> Overload:
    stage("capacity")
    await closed_loop(address, requests, 1, min(1.0, seconds / 4))
    alone = Latency.of(await closed_loop(address, requests, 1, min(3.0, seconds / 4)))
    capacity = await _capacity(address, requests, min(10.0, seconds / 2))
    if alone is None or not capacity:
        raise BadInput(f"{address} answers no request of the kind {kind}: it may not be overloaded yet")
    before, samples = await usage(address), []
    stage(f"{factor:g} times {capacity:.0f} requests a second")
    began = time.perf_counter()
    storm = asyncio.create_task(open_loop(address, requests, factor * capacity, seconds))
    while not storm.done():
        samples.append(await usage(address))
        await asyncio.wait([storm], timeout=1.0)
    answered = await storm
    stage("recovery")
    recovered = await _recovery(address, requests, CALM * alone.p50 / 1000, began + seconds)
    good = [each for each in answered if each.status == 200]
    known = [sample.memory for sample in samples if sample.memory is not None]
    return Overload(
        kind,
        round(capacity, 1),
        alone.p50,
        round(factor * capacity, 1),
        seconds,
        len(answered),
        {str(status): count for status, count in sorted(Counter(each.status for each in answered).items())},
        Latency.of(answered),
        round(1000 * max(each.seconds for each in good), 2) if good else None,
        round(sum(each.due + each.seconds <= began + seconds for each in good) / seconds, 1),
        before.memory,
        max(known) if known else None,
        (await usage(address)).memory,
        recovered,
    )


async def _capacity(address: str, requests: Sequence[bytes], seconds: float) -> float:
    """Answers a second that clients get who ask again when they have theirs; of so many as need no refusal."""
    for clients in CROWDS:
        answered = await closed_loop(address, requests, clients, seconds)
        if all(each.status != 429 for each in answered):
            break
    took = max(each.due + each.seconds for each in answered) - min(each.due for each in answered)
    return sum(each.status == 200 for each in answered) / took


async def _recovery(address: str, requests: Sequence[bytes], within: float, ended: float) -> float | None:
    """Seconds from the end of the storm to the first of some answers in a row that were as fast as before."""
    exchange, row, first = await connect(address), 0, 0.0
    for request in cycle(requests):
        began = time.perf_counter()
        if began > ended + SECONDS_TO_RECOVER:
            exchange.close()
            return None
        status, exchange = await _asked(exchange, address, request)
        now = time.perf_counter()
        if status != 200 or now - began > within:
            row = 0
            await asyncio.sleep(0.05)
            continue
        first = now if not row else first
        row += 1
        if row == RECOVERED:
            exchange.close()
            return round(max(0.0, first - ended), 3)
    raise AssertionError("there is no request to ask")


async def _asked(exchange: Exchange, address: str, request: bytes) -> tuple[int, Exchange]:
    try:
        return (await exchange.ask(request))[0], exchange
    except ConnectionError:
        return 0, await connect(address)


@dataclass(frozen=True)
class Soak:
    """How memory went under hours of mixed use."""

    minutes: float
    clients: int
    asked: int
    statuses: dict[str, int]
    latency: Latency | None
    memory_early: float | None  # bytes, median of the first samples after the first minute, or third
    memory_late: float | None  # of the last
    memory_most: float | None
    samples: list[float]  # every tenth: one each ten seconds

    @property
    def growth(self) -> float | None:
        """Share by which memory grew after the first minute."""
        return None if not self.memory_early or not self.memory_late else self.memory_late / self.memory_early - 1

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self) | {"growth": None if self.growth is None else round(self.growth, 4)}


def soak(address: str, requests: Mapping[str, Sequence[bytes]], clients: int, minutes: float, stage: Stage) -> Soak:
    """Ask everything in turn for so many minutes."""
    return asyncio.run(_soak(address, requests, clients, minutes, stage))


async def _soak(
    address: str, requests: Mapping[str, Sequence[bytes]], clients: int, minutes: float, stage: Stage
) -> Soak:
    mixed = [request for turn in zip(*requests.values(), strict=True) for request in turn]
    asking = asyncio.create_task(closed_loop(address, mixed, clients, 60 * minutes))
    began = time.perf_counter()
    every, early = min(1.0, minutes), min(60.0, 20 * minutes)  # seconds
    first, after = list[float](), list[float]()
    while not asking.done():
        passed, held = time.perf_counter() - began, (await usage(address)).memory
        if held is not None:
            (first if passed < early else after).append(held)
        stage(f"{passed / 60:.1f} of {minutes:g} minutes")
        await asyncio.wait([asking], timeout=every)
    answered = await asking
    return Soak(
        minutes,
        clients,
        len(answered),
        {str(status): count for status, count in sorted(Counter(each.status for each in answered).items())},
        Latency.of(answered),
        _median(after[:SAMPLES]),
        _median(after[-SAMPLES:]),
        max([*first, *after], default=None),
        [*first, *after][::SAMPLES],
    )


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


async def usage(address: str) -> Usage:
    """What a service says of itself at ``/metrics``, where it has that."""
    exchange = await connect(address)
    try:
        status, body = await exchange.ask(request_of("/metrics", None))
    except ConnectionError:
        status, body = 0, b""
    exchange.close()
    said = dict(re.findall(rb"^(process_\w+) ([0-9.e+]+)$", body, re.MULTILINE)) if status == 200 else {}

    def number(name: bytes) -> float | None:
        return float(said[name]) if name in said else None

    return Usage(number(b"process_cpu_seconds_total"), number(b"process_resident_memory_bytes"))
