"""What does a search cost beside a bare call of FAISS? Both in turns in one run, with one index and its parameters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.retriever import CosineScorer, HeadScorer, Retriever
from index.candidates import aligned
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

    def added(self, to: str, by: str) -> dict[str, float | None]:
        """What one kind of call takes more than another: milliseconds and percent, by the clock and of computing."""
        first, second = self.paces[to], self.paces[by]
        found: dict[str, float | None] = {
            "milliseconds": round(second.p50 - first.p50, 3),
            "percent": round(100 * (second.p50 / first.p50 - 1), 1),
            "cpu_milliseconds": None,
            "cpu_percent": None,
        }
        if first.cpu_p50 and second.cpu_p50:
            found["cpu_milliseconds"] = round(second.cpu_p50 - first.cpu_p50, 3)
            found["cpu_percent"] = round(100 * (second.cpu_p50 / first.cpu_p50 - 1), 1)
        return found

    @property
    def wrapper(self) -> dict[str, float | None]:
        """Of looking for changes, deletions, delta, exact similarities, ids and documents of the hits."""
        return self.added(FAISS, SEARCH)

    @property
    def head(self) -> dict[str, float | None]:
        """Of the head that scores the candidates."""
        return self.added(SEARCH, WITH_HEAD)

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        paces = {name: asdict(pace) for name, pace in self.paces.items()}
        return {"clients": self.clients, "paces": paces, "wrapper": self.wrapper, "head": self.head}


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
    vectors = [aligned(vector) for vector in nearest.query_vectors(np.stack([query.embedding for query in queries]))]
    cosine, head = CosineScorer(student.similarity), HeadScorer(student.head, student.score)

    def retriever() -> Retriever:
        return Retriever(student.encoder, live.view())  # looks for changes, as a request does

    calls = {
        EMBEDDING: lambda number: retriever().queries([texts[number]]),
        FAISS: lambda number: index.search(vectors[number], fetched, params=parameters),
        SEARCH: lambda number: retriever().search(queries[number], K, depth, cosine),
        WITH_HEAD: lambda number: retriever().search(queries[number], K, depth, head),
    }
    return [Cost(count, in_turns(calls, len(texts), count, searches)) for count in clients]
