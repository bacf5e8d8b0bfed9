"""What would exhaustive search answer? The oracle that every faster way is held to."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def exact_search(embeddings: NDArray[np.float32], query: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
    """The ``depth`` rows most similar to the query, best first, ties by row.

    Args:
        embeddings: (rows, dim).
        query: (dim,).
        depth: at most this many rows.
    """
    similarities = embeddings @ query  # (rows,)
    return np.argsort(-similarities, kind="stable")[:depth].astype(np.int64)


def exact_nearness(queries: NDArray[np.float32], k: int, parts: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(queries, k) the similarities of each query's ``k`` nearest rows, greatest first; for more rows than fit.

    Args:
        queries: (queries, dim).
        k: at most as many as there are rows in all.
        parts: the rows, some (rows, dim) at a time.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    for part in parts:
        both = np.concatenate([best, queries @ part.T], axis=1)
        best = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
    return -np.sort(-best, axis=1)
