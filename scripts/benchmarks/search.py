"""What does a search cost beside a bare call of FAISS? Both in turns in one run, with one index and its parameters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.retriever import CosineScorer, HeadScorer, Retriever
from index.live import LiveIndex
from model.bundle import Student
from scripts.benchmarks.timing import Pace, in_turns

K = 10
EMBEDDING, FAISS, SEARCH, WITH_HEAD = "query embedding", "bare FAISS call", "search", "search and head"


@dataclass(frozen=True)
class Cost:
    """Paces by what was done, with so many clients at once; and what the wrapper adds to FAISS, of two medians."""

    clients: int
    paces: dict[str, Pace]

    @property
    def wrapper(self) -> float:
        """Milliseconds: finding what is new, deletions, delta, exact similarities, ids and documents of the hits."""
        return round(self.paces[SEARCH].p50 - self.paces[FAISS].p50, 3)

    @property
    def head(self) -> float:
        """Milliseconds."""
        return round(self.paces[WITH_HEAD].p50 - self.paces[SEARCH].p50, 3)

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "clients": self.clients,
            "milliseconds": {name: asdict(pace) for name, pace in self.paces.items()},
            "wrapper_milliseconds": self.wrapper,
            "wrapper_percent": round(100 * self.wrapper / self.paces[FAISS].p50, 1),
            "head_milliseconds": self.head,
        }


def measure(
    live: LiveIndex, student: Student, texts: Sequence[str], depth: int, clients: Sequence[int], searches: int
) -> list[Cost]:
    """The cost of a search within the process, with each number of clients.

    Args:
        live: searched as it is, with its changes.
        student: that embeds queries, and whose head scores.
        texts: to search for.
        depth: candidates a query.
        clients: callers at once.
        searches: of each kind, at least.
    """
    view = live.view()
    queries = Retriever(student.encoder, view).queries(texts)
    nearest, facts = view.generation.nearest, view.manifest
    index, parameters = nearest.candidates.raw, nearest.candidates.parameters(facts.search)
    fetched = max(depth, min(depth * facts.refine, len(view.generation)))
    vectors = np.ascontiguousarray(nearest.query_vectors(np.stack([query.embedding for query in queries])))
    cosine, head = CosineScorer(student.similarity), HeadScorer(student.head, student.score)

    def retriever() -> Retriever:
        return Retriever(student.encoder, live.view())  # looks for changes, as a request does

    calls = {
        EMBEDDING: lambda number: retriever().queries([texts[number]]),
        FAISS: lambda number: index.search(vectors[number : number + 1], fetched, params=parameters),
        SEARCH: lambda number: retriever().search(queries[number], K, depth, cosine),
        WITH_HEAD: lambda number: retriever().search(queries[number], K, depth, head),
    }
    return [Cost(count, in_turns(calls, len(texts), count, searches)) for count in clients]
