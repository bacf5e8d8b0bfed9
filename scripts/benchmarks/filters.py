"""Does a filter cost recall or time? Searches among fewer and fewer documents, each held to the exact answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.retriever import HeadScorer, Query, Retriever
from index.exact import exact_nearness
from index.filters import Filter, parse_filter
from index.recall import TOLERANCE
from index.view import View
from model.bundle import Student
from scripts.benchmarks.corpus import BUCKETS
from scripts.benchmarks.timing import Pace
from scripts.console import BadInput

SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
K = 10
ROWS_PER_PART = 4096


@dataclass(frozen=True)
class Sweep:
    """Of one filter: what it lets through, and how searches with it went."""

    share: float
    filter: str
    documents: int
    recall: float  # @10, when ten candidates are asked for, as in the index's proof
    first_milliseconds: float  # of the first search with the filter, which selects the rows
    search: Pace  # at full depth, scored by the head; the query's embedding apart


def measure(
    view: View, student: Student, texts: Sequence[str], field: str, depth: int, shares: Sequence[float] = SHARES
) -> list[Sweep]:
    """Search with ``{field: {"$lt": share of BUCKETS}}`` for each share.

    Raises:
        BadInput: a filter lets no document through: the field is not in the metadata, or there are too few of them.
    """
    retriever, scorer = Retriever(student.encoder, view), HeadScorer(student.head, student.score)
    queries = retriever.queries(texts)
    rows = view.rows()
    buckets = _numbers(view, rows, field)
    found = []
    for share in shares:
        written = f'{{"{field}": {{"$lt": {share * BUCKETS:g}}}}}'
        wanted = parse_filter({field: {"$lt": share * BUCKETS}})
        allowed = rows[buckets < share * BUCKETS]
        if not len(allowed):
            raise BadInput(f"{written} lets no document through; index what dse benchmark corpus writes, or more of it")
        started = time.perf_counter()
        retriever.search(queries[0], K, depth, scorer, wanted)
        first = time.perf_counter() - started
        taken = []
        for query in queries:
            started = time.perf_counter()
            retriever.search(query, K, depth, scorer, wanted)
            taken.append(time.perf_counter() - started)
        recall = _recall(view, queries, wanted, allowed)
        search = Pace.of(taken, sum(taken))
        found.append(Sweep(share, written, len(allowed), round(recall, 6), round(1000 * first, 3), search))
    return found


def _numbers(view: View, rows: NDArray[np.int64], field: str) -> NDArray[np.float64]:
    """(rows,) the number in a field of each document's metadata, read from the documents themselves."""
    numbers: list[float] = []
    for start in range(0, len(rows), ROWS_PER_PART):
        for document in view.documents(rows[start : start + ROWS_PER_PART]):
            value = document.metadata.get(field)
            numbers.append(value if isinstance(value, int | float) else np.nan)
    return np.array(numbers, np.float64)


def _recall(view: View, queries: Sequence[Query], wanted: Filter, allowed: NDArray[np.int64]) -> float:
    """Mean share of each query's ten nearest allowed documents that are found when ten are asked for."""
    embeddings = np.stack([query.embedding for query in queries])
    k = min(K, len(allowed))
    least = exact_nearness(embeddings, k, (view.embeddings(part) for part in _parts(allowed)))[:, -1]
    let_through = np.zeros(int(view.rows().max()) + 1, np.bool_)
    let_through[allowed] = True
    shares = []
    for query, border in zip(queries, least, strict=True):
        near = view.search(query.embedding, k, wanted)
        if not let_through[near.rows].all():
            raise AssertionError(f"{wanted} does not let {near.rows[~let_through[near.rows]]} through, which was found")
        similarities = near.embeddings @ query.embedding
        shares.append(min(k, int(np.count_nonzero(similarities >= border - TOLERANCE))) / k)
    return float(np.mean(shares))


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + ROWS_PER_PART] for start in range(0, len(rows), ROWS_PER_PART)]
