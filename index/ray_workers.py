"""Who embeds, where one machine is too slow? Workers of a Ray cluster; what one had when it died, another does.

Documents are read, and all files written, where the build runs; batches of texts go out and embeddings come back. So a
node of the cluster needs the installed package and nothing else, and shards, resuming and refusals are the local ones.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError

from index.build import Encode
from index.manifest import IndexFault

AHEAD = 2
"""Batches that a worker has at once: one that it embeds, and the next."""
WAITING = 4
"""Batches a worker that may be read before the one that is due is embedded: what bounds the memory."""
TRIES = 4
"""How often a batch is given to a worker that then dies, or a worker dies before it can embed."""
SECONDS_TO_CONNECT = 10.0
SECONDS_TO_START = 300.0
"""For which a build waits while it has no worker at all."""
LEAST_COSINE = 0.9999
"""Between what a worker and this machine make of the same texts: the bound that graphs are published by."""
PROBE = ("A man is playing a guitar on the stage.", "Stocks fell.", "0x1F: déjà vu, twice?", "word " * 40)
STARTS = 3
"""How often a cluster of this machine alone is begun: on a busy one, its parts may not find each other in time."""
OBJECT_STORE_BYTES = 256 * 2**20  # of a cluster of this machine alone; texts and embeddings on their way are less

Load = Callable[[int], Encode]
"""Threads to an encoder that uses so many. Called once in every worker, so it can be pickled."""


@dataclass(frozen=True)
class Cluster:
    """Where the workers are, and how many."""

    address: str | None = None
    """``host:port`` or ``auto``; None: this machine alone, for as long as the build takes."""
    cpus: int = 1
    """Of each worker."""
    workers: int | None = None
    """None: as many as the cluster has CPUs for."""


class _Worker:
    """One encoder, in a process of its own."""

    def __init__(self, load: Load, threads: int) -> None:
        self._encode = load(threads)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode(texts)


@dataclass(eq=False)
class _Task:
    """A batch on its way."""

    texts: Sequence[str]
    tries: int = 0
    embeddings: NDArray[np.float32] | None = None


class RayWorkers:
    """Encoders of a cluster, as one: batches in, their embeddings out, in order."""

    def __init__(self, load: Load, encode: Encode, cluster: Cluster, cpus: int) -> None:
        """Start the workers, and wait for the first.

        Args:
            load: makes a worker's encoder.
            encode: this machine's own, which each worker's is compared with.
            cluster: where they are.
            cpus: of this machine, for a cluster of it alone.

        Raises:
            IndexFault: there is no cluster, no worker starts, or they embed otherwise.
        """
        self._probed = encode(PROBE)
        self._cpus = cluster.cpus
        self._joining: dict[Any, Any] = {}  # what a worker makes of the probe, to the worker
        self._running: dict[Any, tuple[_Task, Any]] = {}
        self._given: dict[Any, int] = {}  # workers that embed, to how many batches they have
        self._queue: deque[_Task] = deque()
        self._stillborn = 0
        _connect(cluster, cpus)
        try:
            self._load = ray.put(load)
            self.count = cluster.workers or max(1, int(ray.cluster_resources().get("CPU", 0)) // cluster.cpus)
            for _ in range(self.count):
                self._start()
            while not self._given:
                self._step()
        except BaseException:
            ray.shutdown()
            raise

    def encode_batches(self, batches: Iterable[Sequence[str]]) -> Iterator[NDArray[np.float32]]:
        """(texts, dim) unit embeddings of each batch, in the order of the batches.

        Raises:
            IndexFault: workers die of a batch, or none is left.
        """
        due: deque[_Task] = deque()
        for texts in batches:
            task = _Task(texts)
            due.append(task)
            self._queue.append(task)
            self._hand_out()
            while len(due) >= WAITING * max(1, len(self._given)):
                yield self._done(due.popleft())
        while due:
            yield self._done(due.popleft())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ray.shutdown()

    def _done(self, task: _Task) -> NDArray[np.float32]:
        while task.embeddings is None:
            self._step()
        return task.embeddings

    def _start(self) -> None:
        worker = ray.remote(_Worker).options(num_cpus=self._cpus, max_restarts=0).remote(self._load, self._cpus)
        self._joining[worker.encode.remote(PROBE)] = worker

    def _hand_out(self) -> None:
        while self._queue and self._given:
            worker = min(self._given, key=self._given.__getitem__)
            if self._given[worker] >= AHEAD:
                return
            task = self._queue.popleft()
            self._given[worker] += 1
            self._running[worker.encode.remote(task.texts)] = (task, worker)

    def _step(self) -> None:
        """Wait for one thing to happen, and act on it."""
        patience = None if self._given else SECONDS_TO_START
        happened, _ = ray.wait([*self._running, *self._joining], num_returns=1, timeout=patience)
        if not happened:
            raise IndexFault(
                f"no worker has started within {SECONDS_TO_START:.0f} s: the cluster has not {self._cpus} CPUs free; "
                "what is embedded is kept, the same command goes on from there"
            )
        (reference,) = happened
        if reference in self._joining:
            self._joined(reference, self._joining.pop(reference))
        else:
            self._answered(reference, *self._running.pop(reference))
        self._hand_out()

    def _joined(self, reference: Any, worker: Any) -> None:
        try:
            found = ray.get(reference)
        except RayTaskError:
            raise
        except RayError as error:
            self._stillborn += 1
            if self._stillborn >= TRIES:
                raise IndexFault(
                    f"workers die as they start; the last said: {_last_line(error)}; see that every node of the "
                    "cluster has this version of the package, and memory for a model a worker"
                ) from error
            self._start()
            return
        cosine = float((found * self._probed).sum(axis=1).min())
        if cosine < LEAST_COSINE:
            raise IndexFault(
                f"a worker embeds otherwise than this machine (cosine {cosine:.6f}, and not {LEAST_COSINE}): install "
                "the same version of the package, and of onnxruntime, on every node of the cluster"
            )
        self._stillborn = 0
        self._given[worker] = 0

    def _answered(self, reference: Any, task: _Task, worker: Any) -> None:
        if worker in self._given:  # else it has died since
            self._given[worker] -= 1
        try:
            task.embeddings = ray.get(reference)
        except RayTaskError:  # the encoder's own: it would say the same again
            raise
        except RayError as error:
            task.tries += 1
            if task.tries >= TRIES:
                raise IndexFault(
                    f"{TRIES} workers have died of the same batch, which begins with {task.texts[0][:60]!r}; the last "
                    f"said: {_last_line(error)}; what is embedded is kept, the same command goes on from there"
                ) from error
            self._queue.appendleft(task)
            if self._given.pop(worker, None) is not None:  # the first of its batches to come back
                self._start()


def _connect(cluster: Cluster, cpus: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a build reports to nobody
    told: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if cluster.address is not None:
        try:
            host, _, port = cluster.address.rpartition(":")
            if host:  # Ray itself would wait for a minute, and then end the process without a word
                socket.create_connection((host, int(port)), timeout=SECONDS_TO_CONNECT).close()
            ray.init(cluster.address, **told)
        except Exception as error:  # of many classes
            raise IndexFault(
                f"no Ray cluster at {cluster.address}: {_last_line(error)}; begin one with ray start --head, and run "
                "the build on one of its nodes"
            ) from error
        return
    room = max(cpus, cluster.cpus * (cluster.workers or 1))
    told |= {"num_cpus": room, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    for start in range(STARTS):
        try:
            ray.init("local", **told)
            return
        except Exception as error:  # a bare Exception, where time ran out
            ray.shutdown()
            if start == STARTS - 1:
                raise IndexFault(
                    f"Ray does not start on this machine: {_last_line(error)}; build with --engine local"
                ) from error


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
