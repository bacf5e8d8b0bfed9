"""Which stored vectors are nearest, as near as FAISS can tell? The search that is proven is the one that serves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.candidates import CandidateIndex
from index.manifest import HeadIdentity
from index.narrowed import NarrowedSearch
from index.selection import Selection

DECIMALS = 5  # of a similarity: what is beyond depends on the kernel, not on the texts
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadVectors:
    """A head that is an inner product: of what is made of a query with what is made of a candidate."""

    identity: HeadIdentity
    queries: Callable[[Floats], Floats]
    """(queries, dim) embeddings to (queries, width) vectors."""
    candidates: Callable[[Floats], Floats]
    """(candidates, dim) embeddings to (candidates, width) vectors."""

    def width(self, dims: int) -> int:
        """Of the vectors made of embeddings of this width."""
        return self.candidates(np.zeros((1, dims), np.float32)).shape[1]


@dataclass(frozen=True)
class Tuning:
    """How one search is made: FAISS's parameters for it, and how many times the depth is fetched to be refined."""

    search: Mapping[str, int] = field(default_factory=dict)
    refine: int = 1


@dataclass(frozen=True)
class NearestSearch:
    """FAISS finds, the stored embeddings decide: of what was fetched, the nearest by exact inner product are kept."""

    candidates: CandidateIndex
    embeddings: Floats  # (rows, dim), perhaps memory-mapped
    head: HeadVectors | None
    """By whose score near is meant; None: by the inner product of the embeddings."""

    @cached_property
    def _narrowed(self) -> NarrowedSearch:
        return NarrowedSearch(self.candidates)

    def query_vectors(self, queries: Floats) -> Floats:
        """(queries, width) of (queries, dim) embeddings: what FAISS is asked with."""
        return queries if self.head is None else self.head.queries(queries)

    def vectors(self, embeddings: Floats) -> Floats:
        """(rows, width) of (rows, dim) embeddings: what FAISS holds."""
        return embeddings if self.head is None else self.head.candidates(embeddings)

    def closeness(self, query: Floats, embeddings: Floats) -> Floats:
        """(rows,) how near (rows, dim) embeddings are to a (dim,) query, exactly: what candidates are kept by."""
        return self.nearness(query, self.vectors(embeddings))

    def nearness(self, query: Floats, vectors: Floats) -> Floats:
        """(rows,) the same of (rows, width) vectors, as :meth:`vectors` makes them."""
        return vectors @ self.query_vectors(query[None])[0]

    def search(
        self, query: Floats, depth: int, tuning: Tuning, allowed: Selection | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """(found,) rows nearest to a (dim,) query and their (found, dim) embeddings, in no order.

        Args:
            query: (dim,).
            depth: at most this many.
            tuning: how to ask.
            allowed: which rows may be found; default: all.
        """
        depth = max(1, min(depth, len(self.embeddings)))
        fetched = max(depth, min(depth * tuning.refine, len(self.embeddings)))
        vector = self.query_vectors(query[None])[0]

        def scan(some: NDArray[np.int64]) -> Floats:
            return np.round(self.closeness(query, self.embeddings[some]), DECIMALS)  # equals by row

        if allowed is None:
            rows = self._narrowed.among_all(vector, fetched, tuning.search, scan)
        else:
            rows = self._narrowed.search(vector, fetched, tuning.search, allowed, scan)
        embeddings = self.embeddings[rows]  # (found, dim)
        if len(rows) <= depth:
            return rows, embeddings
        nearness = np.round(self.closeness(query, embeddings), DECIMALS)
        kept = np.lexsort((rows, -nearness))[:depth]  # equals by row
        return rows[kept], embeddings[kept]
