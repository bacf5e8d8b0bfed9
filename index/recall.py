"""How much of the right answer was found?"""

import numpy as np
from numpy.typing import NDArray


def recall_at_k(found: NDArray[np.int64], relevant: NDArray[np.int64]) -> float:
    """Share of the relevant rows, query by query, that appear in the same row of ``found``.

    >>> recall_at_k(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 9]]))
    0.75
    """
    hits = [np.isin(right, answer).sum() for answer, right in zip(found, relevant, strict=True)]
    return float(np.sum(hits) / relevant.size)
