"""Do a folder and a Milvus find the same? Each query asked of both, in turns."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.contract import IndexView
from index.exact import exact_search
from index.generations import similarities_of
from index.view import View
from scripts.benchmarks.timing import Pace, in_turns

FOLDER, MILVUS = "folder", "milvus"
TIE = 2e-5  # of similarities: they are rounded to five decimals


@dataclass(frozen=True)
class Agreement:
    """Of how many queries both find the same ``k`` documents, how much of the exact answer each finds, and how fast."""

    queries: int
    k: int
    same: float
    recall: dict[str, float]
    paces: dict[str, Pace]

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def compare(folder: View, milvus: IndexView, queries: NDArray[np.float32], k: int, clients: int) -> Agreement:
    """Ask both the same.

    Args:
        folder: whose embeddings give the exact answer.
        milvus: the same documents.
        queries: (queries, dim).
        k: candidates a query.
        clients: callers at once, for the time.
    """
    views: dict[str, IndexView] = {FOLDER: folder, MILVUS: milvus}
    rows = folder.rows()
    embeddings = folder.embeddings(rows)
    recall = dict.fromkeys(views, 0.0)
    same = 0
    for query in queries:
        nearest = exact_search(embeddings, query, k)
        least = float(similarities_of(embeddings[nearest], query).min())
        found = {name: _found(view, query, k) for name, view in views.items()}
        for name, hits in found.items():
            recall[name] += sum(similarity >= least - TIE for similarity in hits.values()) / len(nearest)
        same += _same(found[FOLDER], found[MILVUS])

    def asking(view: IndexView) -> Callable[[int], object]:
        return lambda number: view.search(queries[number], k)

    paces = in_turns({name: asking(view) for name, view in views.items()}, len(queries), clients, len(queries))
    shares = {name: round(total / len(queries), 6) for name, total in recall.items()}
    return Agreement(len(queries), k, round(same / len(queries), 6), shares, paces)


def _found(view: IndexView, query: NDArray[np.float32], k: int) -> dict[str, float]:
    found = view.search(query, k)
    ids = [document.id for document in view.documents(found.rows)]
    return dict(zip(ids, found.similarities.tolist(), strict=True))


def _same(one: dict[str, float], other: dict[str, float]) -> bool:
    """Are they the same documents, but for some that tie at the last place?"""
    least = min([*one.values(), *other.values()], default=0.0)
    differ: Sequence[float] = [(one | other)[id_] for id_ in one.keys() ^ other.keys()]
    return len(one) == len(other) and all(similarity <= least + TIE for similarity in differ)
