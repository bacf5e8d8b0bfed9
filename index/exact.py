"""What would exhaustive search answer? The oracle that every faster way is held to."""

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
