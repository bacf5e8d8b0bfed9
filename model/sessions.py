"""How is a graph run? One way of opening it, for those who serve it and those who check that it may be served."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from model.manifest import ArtifactError
from model.tokens import BATCH_TOKENS, Arrays, plan_batches, plan_shares

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""onnxruntime adds and normalises slower in one kernel than in two: 1.1 times the computing of a whole int8 pass."""


class GraphRunner:
    """A graph that runs several batches at once, each in a thread of its own. Safe to call from several threads.

    Threads that share one batch wait for each other at every node of the graph; threads that have a batch each wait
    once, at the end (DECISIONS 44). So a single batch is one thread's work.
    """

    def __init__(self, path: Path, threads: int, batch_tokens: int = BATCH_TOKENS) -> None:
        """Open a graph, of which each thread runs batches of at most so many tokens.

        Raises:
            ArtifactError: it is none that onnxruntime can run.
        """
        self.threads, self._batch_tokens = threads, batch_tokens
        self._session = _open(path)
        self._helpers = ThreadPoolExecutor(threads - 1, "graph") if threads > 1 else None

    @property
    def inputs(self) -> set[str]:
        """Names of what the graph reads."""
        return {declared.name for declared in self._session.get_inputs()}

    @property
    def width(self) -> int:
        """The last dimension of its last output."""
        return int(self._session.get_outputs()[-1].shape[-1])

    def run(
        self,
        output: str,
        lengths: NDArray[np.intp],
        arrays: Callable[[NDArray[np.intp]], Arrays],
        budget: int | None = None,
    ) -> NDArray[Any]:
        """(rows, ...) what the graph answers of each row, in order.

        Args:
            output: the name of the answer.
            lengths: (rows,) tokens of each; at least one.
            arrays: some rows as the graph reads them; called in the thread that runs them.
            budget: tokens of a batch, padding included; by default, what shares the rows out among the threads.
        """
        if budget is None:
            batches = plan_shares(lengths, self.threads, self._batch_tokens)
        else:
            batches = plan_batches(lengths, budget)
        left, answers = deque(batches), list[tuple[NDArray[np.intp], NDArray[Any]]]()

        def work() -> None:
            while True:
                try:
                    rows = left.pop()  # the longest that are left
                except IndexError:
                    return
                answers.append((rows, self._session.run([output], arrays(rows))[0]))

        helpers = []
        if self._helpers is not None:
            helpers = [self._helpers.submit(work) for _ in range(min(self.threads, len(batches)) - 1)]
        try:
            work()
        finally:
            left.clear()
            begun = [helper for helper in helpers if not helper.cancel()]  # others are busy with another call's batches
            wait(begun)
        for helper in begun:
            helper.result()
        first = answers[0][1]
        found = np.empty((len(lengths), *first.shape[1:]), first.dtype)
        for rows, answer in answers:
            found[rows] = answer
        return found


def _open(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS)
    except Exception as error:  # onnxruntime raises its own classes, with no common public base
        raise ArtifactError(f"{path} is not a graph that onnxruntime can run: {error}") from error
