"""Which texts share a forward pass? Those of all requests that queued while the last one ran."""

import logging
import math
import threading
import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.calls import CALL, Call, trace_past
from app.errors import ServiceError
from app.turns import Turns
from model.bundle import Student, Teacher
from model.tokens import Forward, Tokens

log = logging.getLogger("dse")

TOKEN_BUDGET = 512
"""Tokens of a batch, a thread: enough to keep it busy, little enough not to be waited for."""
STALLED_SECONDS = 10.0
"""A batch takes milliseconds; one that takes this long will not end."""
PATIENCE = 16.0
"""A request may wait so many times what it takes itself, even where that is longer than others may wait."""
MEMORY = 0.95
"""Weight of the past in the measured throughput, per batch."""


@dataclass(frozen=True)
class Batch:
    """A forward pass that was made."""

    rows: int
    tokens: int
    seconds: float


@dataclass(eq=False)
class _Job:
    """The texts of one request, in the queue."""

    tokens: Tokens
    call: Call | None
    lengths: NDArray[np.intp]  # (rows,)
    pending: NDArray[np.intp]  # rows that have not run, shortest first
    turn: float = -math.inf  # of those that wait, the lowest goes first
    queued: float = field(default_factory=time.monotonic)
    ran: float = 0.0  # seconds of the batches that its rows were in
    answers: NDArray[Any] | None = None
    error: Exception | None = None
    left: bool = False  # nobody waits for it any more
    by_caller: bool = False  # its caller runs it itself
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def waiting_tokens(self) -> int:
        return int(self.lengths[self.pending].sum())

    def refusal(self) -> Exception | None:
        """Why its rows need not run, if so."""
        if self.left:
            return ServiceError(504, "nobody waits for it any more")
        return self.call.refusal() if self.call else None

    def finish(self, error: Exception | None = None) -> None:
        self.error = error
        self.done.set()


_Picked = Sequence[tuple[_Job, int]]


class Queue:
    """The one worker of a graph, and the texts that wait for it.

    There is no waiting window: what finds nobody before it runs at once, in its caller's own thread, since a change of
    threads would cost more than the queue; and a batch of the worker's is what came while the last one ran.
    Requests are served by their turns (``Turns``), as many at once as fill a batch: a small request never waits for all
    of a huge one, and those alike are answered in the order in which they came. A graph pads as little as it can by
    itself; so whose texts are like whose is no matter here.
    """

    def __init__(
        self,
        name: str,
        forward: Forward,
        budget: int = TOKEN_BUDGET,
        max_tokens: int = 2**18,
        seconds_down: float = 1.0,
        max_wait: float = math.inf,
    ) -> None:
        self.name = name
        self.on_batch: Callable[[Batch], None] = lambda batch: None
        self.dropped, self.restarts = 0, 0  # texts that nobody waited for; workers that died
        self._forward, self._budget, self._max_tokens, self._seconds_down = forward, budget, max_tokens, seconds_down
        self._max_wait = max_wait  # seconds
        self._line: list[_Job] = []  # by turn
        self._turns = Turns()
        self._tokens = 0  # that wait
        self._seen_tokens, self._seen_seconds = 0.0, 0.0  # of late, while others waited, and between batches too
        self._counted_to: float | None = None  # when the last batch ended, if there was something left to do
        self._batch_began: float | None = None
        self._runner: int | None = None  # the thread that runs a batch: the worker, or a caller
        self._down: str | None = None
        self._closed = False
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> tuple[int, int]:
        """Texts, and their tokens, that wait."""
        with self._change:
            return sum(len(job.pending) for job in self._line), self._tokens

    @property
    def seconds_to_empty(self) -> float:
        """How long the worker needs for what waits, by its throughput of late."""
        return self._seconds(self._tokens)

    def _seconds(self, tokens: int) -> float:
        return tokens * self._seen_seconds / self._seen_tokens if self._seen_tokens else 0.0

    def _seconds_before(self, count: int) -> float:
        """How long what has its turn before ``count`` new tokens will take."""
        turn = self._turns.of(count)
        return self._seconds(sum(job.waiting_tokens for job in self._line if job.turn <= turn))

    def fault(self) -> str | None:
        """Why texts would not be answered now, if so."""
        began = self._batch_began
        if self._down:
            return self._down
        if self._thread is not None and not self._thread.is_alive() and not self._closed:
            return f"the worker of {self.name} is gone"
        if began is not None and time.monotonic() - began > STALLED_SECONDS:
            return f"the worker of {self.name} has been in one batch for {time.monotonic() - began:.0f} seconds"
        return None

    def run(self, tokens: Tokens) -> NDArray[Any]:
        """(texts, ...) what the graph answers of each, in order; the caller's thread waits.

        Raises:
            ServiceError: 413 more tokens than ever fit, 429 no room now, 503 the worker is down, 504 too late; or the
                caller's client has hung up.
        """
        call = CALL.get()
        if call:
            call.check()  # tokenising may have taken all of its time
        lengths = tokens.lengths
        job = _Job(tokens, call, lengths, np.argsort(lengths, kind="stable"))
        self._submit(job)
        if job.by_caller:
            self._run_here(job)
        elif not job.done.wait(max(0.0, call.left) if call else None):
            job.left = True
            assert call is not None  # nobody else has a deadline
            raise call.refusal() or call.late()
        if job.error:
            raise job.error
        if call:
            ended = time.monotonic()
            call.tokens += int(lengths.sum())
            call.add("queue", ended - job.queued - job.ran)
            call.add("inference", job.ran)
            trace_past("queue", job.queued, ended - job.ran)
            trace_past("inference", ended - job.ran, ended)
        assert job.answers is not None  # a job that ended without an error has all its answers
        return job.answers

    def close(self) -> None:
        """End the worker, after the batch it is in."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _submit(self, job: _Job) -> None:
        count = job.waiting_tokens
        if count > self._max_tokens:
            raise ServiceError(
                413, f"{count} tokens in one request; the limit is {self._max_tokens} (DSE_MAX_QUEUE_TOKENS)"
            )
        with self._change:
            if self._down or self._closed:
                reason = self._down or "the service is stopping"
                raise ServiceError(503, f"{reason}; try again", retry_after=math.ceil(self._seconds_down))
            if self._tokens + count > self._max_tokens:
                raise ServiceError(
                    429,
                    f"{self._tokens} tokens wait for {self.name}, and {count} more are above the limit of "
                    f"{self._max_tokens} (DSE_MAX_QUEUE_TOKENS); try again",
                    retry_after=retry_after(self.seconds_to_empty),
                )
            longest = max(self._max_wait, PATIENCE * self._seconds(count))
            if self.seconds_to_empty > longest and (before := self._seconds_before(count)) > longest:
                raise ServiceError(
                    429,
                    f"{self.name} has work for {before:.1f} seconds before this, more than it would let wait "
                    f"(DSE_MAX_WAIT, {self._max_wait:g} seconds); try again",
                    retry_after=retry_after(before),
                )
            if not self._line and self._runner is None and (count <= self._budget or len(job.lengths) == 1):
                self._line.append(job)
                job.by_caller, job.pending, self._runner = True, job.pending[:0], threading.get_ident()
                return
            job.turn = self._turns.take(count)
            insort(self._line, job, key=lambda each: each.turn)
            self._tokens += count
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._live, name=f"batches of {self.name}", daemon=True)
                self._thread.start()
            self._change.notify()

    def _run_here(self, job: _Job) -> None:
        try:
            self._run([(job, row) for row in range(len(job.lengths))])
        finally:
            with self._change:
                if not job.done.is_set():
                    self._leave(job)
                self._runner = None
                self._change.notify()

    def _live(self) -> None:
        """What the thread does: work; and should that ever end by itself, fail what waits, and begin again."""
        while not self._closed:
            try:
                self._work()
                return
            except BaseException:
                log.exception("the worker of %s died; it begins again in %g s", self.name, self._seconds_down)
                self._die()
            with self._change:
                self._change.wait_for(lambda: self._closed, self._seconds_down)
                self._down = None

    def _die(self) -> None:
        with self._change:
            self.restarts += 1
            self._down = f"the worker of {self.name} died"
            if self._runner == threading.get_ident():
                self._runner = None
            for job in [job for job in self._line if not job.by_caller]:
                error = ServiceError(503, f"{self._down}; try again", retry_after=math.ceil(self._seconds_down))
                self._leave(job, error)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: (self._line and self._runner is None) or self._closed)
                if self._closed:
                    for job in [job for job in self._line if not job.by_caller]:
                        self._leave(job, ServiceError(503, "the service is stopping; try again", retry_after=1))
                    return
                picked = self._pick()
                self._runner = threading.get_ident() if picked else None
            if picked:
                self._run(picked)
                with self._change:
                    self._runner = None

    def _pick(self) -> _Picked:
        """The rows of the next batch, which leave the queue; those that nobody waits for leave it first."""
        for job in list(self._line):
            if refusal := job.refusal():
                self.dropped += len(job.pending)
                self._leave(job, refusal)
        picked: list[tuple[_Job, int]] = []
        work = 0
        for job in self._line:
            longest_first = job.pending[::-1]
            fitting = int(np.searchsorted(np.cumsum(job.lengths[longest_first]), self._budget - work, side="right"))
            rows = longest_first[: fitting if picked else max(1, fitting)]
            picked += [(job, int(row)) for row in rows]
            work += int(job.lengths[rows].sum())
            job.pending = job.pending[: len(job.pending) - len(rows)]
            if len(job.pending):
                break
        self._tokens -= work
        self._turns.work(work)
        return picked

    def _leave(self, job: _Job, error: Exception | None = None) -> None:
        self._line.remove(job)
        self._tokens -= job.waiting_tokens
        if len(job.pending):
            self._turns.give_up(job.turn)
        if not self._line:
            self._turns, self._counted_to = Turns(), None
        job.finish(error)

    def _run(self, picked: _Picked) -> None:
        began = self._batch_began = time.monotonic()
        others_wait = self._tokens > 0
        jobs = list({id(job): job for job, _ in picked}.values())
        try:
            answers = self._answers(picked)
        except Exception as error:
            self._part(jobs, picked, error)
            return
        finally:
            self._batch_began = None
        ended = time.monotonic()
        for (job, row), answer in zip(picked, answers, strict=True):
            if job.answers is None:
                job.answers = np.empty((len(job.tokens), *answers.shape[1:]), answers.dtype)
            job.answers[row] = answer
        with self._change:
            for job in jobs:
                job.ran += ended - began
                if not len(job.pending):
                    self._leave(job)
            if others_wait:
                tokens = sum(int(job.lengths[row]) for job, row in picked)
                self._seen_tokens = MEMORY * self._seen_tokens + tokens
                self._seen_seconds = MEMORY * self._seen_seconds + ended - (self._counted_to or began)
            self._counted_to = ended if self._line else None

    def _part(self, jobs: Sequence[_Job], picked: _Picked, error: Exception) -> None:
        """After a batch failed: each request's rows by themselves, so that one cannot spoil another's."""
        if len(jobs) == 1:
            with self._change:
                self._leave(jobs[0], error)
            return
        for job in jobs:
            self._run([(owner, row) for owner, row in picked if owner is job])

    def _answers(self, picked: _Picked) -> NDArray[Any]:
        """(picked, ...) answers of one pass; equal texts are in it once."""
        rows = [(job.tokens, row) for job, row in picked]
        keys = [tokens.key(row) for tokens, row in rows]
        once = dict(zip(keys, rows, strict=True))
        place = {key: at for at, key in enumerate(once)}
        tokens = type(rows[0][0]).gathered(list(once.values()))
        began = time.monotonic()
        answers = self._forward(tokens)
        self.on_batch(Batch(len(once), int(tokens.lengths.sum()), time.monotonic() - began))
        return answers[[place[key] for key in keys]]


def retry_after(seconds: float) -> int:
    """Whole seconds after which to try again what will be possible in some time."""
    return min(60, max(1, math.ceil(seconds)))


class Queues:
    """The queues of a service, one a graph."""

    def __init__(self, budget: int = TOKEN_BUDGET, max_tokens: int = 2**18, max_wait: float = math.inf) -> None:
        self._budget, self._max_tokens, self._max_wait = budget, max_tokens, max_wait
        self.all: list[Queue] = []

    def student(self, student: Student) -> Student:
        """The same student, whose texts wait in a queue of its own."""
        return replace(student, encoder=student.encoder.queued(lambda forward: self._open(student.name, forward)))

    def teacher(self, teacher: Teacher) -> Teacher:
        """The same teacher, whose pairs wait in a queue of its own."""
        return replace(teacher, scorer=teacher.scorer.queued(lambda forward: self._open(teacher.name, forward)))

    def fault(self) -> str | None:
        """Why requests would not be answered now, if so."""
        return next((fault for queue in self.all if (fault := queue.fault())), None)

    @property
    def seconds_to_empty(self) -> float:
        """How long the busiest worker needs for what waits."""
        return max((queue.seconds_to_empty for queue in self.all), default=0.0)

    def close(self) -> None:
        """End all workers."""
        for queue in self.all:
            queue.close()

    def _open(self, name: str, forward: Forward) -> Callable[[Tokens], NDArray[Any]]:
        taken = sum(queue.name.partition("#")[0] == name for queue in self.all)
        queue = Queue(
            f"{name}#{taken + 1}" if taken else name, forward, self._budget, self._max_tokens, max_wait=self._max_wait
        )
        self.all.append(queue)
        return queue.run
