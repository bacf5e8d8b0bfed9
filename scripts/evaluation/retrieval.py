"""Which documents does a model find? Exhaustive search by cosine, and the head's order of the nearest of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.head import LOGIT_DECIMALS, Head
from scripts.evaluation.metrics import Floats, capped_recall, ndcg, reciprocal_rank

MOST_HITS = 100  # that a figure looks at
QUERIES_PER_BLOCK = 64
NOTHING = -1  # in place of a row, where there are fewer documents than hits asked for

Embeddings = NDArray[np.float32]

Ranking = NDArray[np.int64]
"""(queries, hits) rows of documents, best first, equal ones by id; then NOTHING."""


def nearest(queries: Embeddings, documents: Embeddings, depth: int, left_out: Sequence[int | None]) -> Ranking:
    """The documents most similar to each query, of all of them.

    Args:
        queries: (queries, dim) unit rows.
        documents: (documents, dim) unit rows, in the order of their ids.
        depth: hits a query.
        left_out: (queries,) a document that is no answer to the query, or None.
    """
    found = np.full((len(queries), depth), NOTHING, np.int64)
    for start in range(0, len(queries), QUERIES_PER_BLOCK):
        block = np.round(queries[start : start + QUERIES_PER_BLOCK] @ documents.T, LOGIT_DECIMALS)
        for query, similarities in enumerate(block, start):
            if (row := left_out[query]) is not None:
                similarities[row] = -np.inf
            rows = _largest(similarities, depth)
            found[query, : len(rows)] = rows
    return found


def _largest(values: Embeddings, depth: int) -> NDArray[np.intp]:
    """Rows of the largest finite values, largest first, equal ones by row."""
    if depth < len(values):
        rows = np.flatnonzero(values >= np.partition(values, -depth)[-depth])
    else:
        rows = np.arange(len(values))
    rows = rows[np.isfinite(values[rows])]
    return rows[np.argsort(-values[rows], kind="stable")][:depth]


def reordered(ranking: Ranking, queries: Embeddings, documents: Embeddings, head: Head) -> Ranking:
    """The same documents in the order of the head's score: what the service answers, with exact candidates."""
    found = np.full_like(ranking, NOTHING)
    for query, rows in enumerate(ranking):
        rows = np.sort(rows[rows != NOTHING])
        logits = head.logits(queries[query][None], documents[rows])
        found[query, : len(rows)] = rows[np.argsort(-logits, kind="stable")]
    return found


def figures(ranking: Ranking, judged: Sequence[dict[int, float]]) -> dict[str, Floats]:
    """Each figure of each query, (queries,); the main one first."""
    grades = np.array(
        [[of.get(row, 0.0) for row in rows] for rows, of in zip(ranking[:, :MOST_HITS].tolist(), judged, strict=True)]
    )
    ideal = np.zeros((len(judged), max(map(len, judged))))
    for row, of in zip(ideal, judged, strict=True):
        row[: len(of)] = sorted(of.values(), reverse=True)
    return {
        "ndcg@10": ndcg(grades, ideal, 10),
        "mrr@10": reciprocal_rank(grades, 10),
        "recall@10": capped_recall(grades, ideal, 10),
        "recall@100": capped_recall(grades, ideal, 100),
    }
