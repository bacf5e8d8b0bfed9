"""What does a search look at? A generation and the changes since, as one state that nothing changes any more."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from index.changes import Change
from index.documents import Document
from index.filters import Filter
from index.generations import SELECTIONS, Candidates, Generation, similarities_of
from index.manifest import GenerationManifest
from index.selection import Selection


class _Delta:
    """Documents since the generation, in the order they came.

    It grows at its end only, and only the newest view is ever continued; so an older view goes on looking at its own
    first rows, and making the next one copies nothing.
    """

    def __init__(self, dims: int) -> None:
        self._buffer = np.empty((64, dims), np.float32)
        self.documents: list[Document] = []
        self.rows: dict[str, list[int]] = {}
        self._matching: dict[Filter, NDArray[np.bool_]] = {}  # the last asked for at the end
        self._asking = threading.Lock()

    def append(self, document: Document, vector: NDArray[np.float32]) -> None:
        row = len(self.documents)
        if row == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.empty_like(self._buffer)])
        self._buffer[row] = vector
        self.documents.append(document)
        self.rows.setdefault(document.id, []).append(row)

    def cut(self, count: int) -> None:
        """Forget what is behind the first rows: changes that failed half-way, of which no view was made."""
        for document in self.documents[count:]:
            rows = self.rows.get(document.id, [])
            while rows and rows[-1] >= count:
                rows.pop()
        del self.documents[count:]

    def embeddings(self) -> NDArray[np.float32]:
        """(documents, dim)."""
        return self._buffer[: len(self.documents)]

    def matching(self, filter: Filter, count: int) -> NDArray[np.bool_]:
        """(count,) which of the first rows a filter lets through; what was found for the last few is remembered."""
        with self._asking:
            known = self._matching.get(filter, np.empty(0, np.bool_))
        if len(known) < count:  # beside the others: two that ask the same at once do it twice
            matches = (filter.matches(document.metadata) for document in self.documents[len(known) : count])
            known = np.concatenate([known, np.fromiter(matches, np.bool_, count - len(known))])
        with self._asking:
            longer = self._matching.pop(filter, known)
            self._matching[filter] = longer if len(longer) > len(known) else known
            if len(self._matching) > SELECTIONS:
                del self._matching[next(iter(self._matching))]
        return known[:count]


@dataclass(frozen=True, eq=False)
class View:
    """One consistent state of an index, which nothing changes any more.

    Rows below ``len(generation)`` are the generation's; the others are those of the delta.
    """

    generation: Generation
    through: int
    """The last change that is in it."""
    _count: int
    _base: Selection | None  # what of the generation is still there; None: all
    _delta: _Delta
    _embeddings: NDArray[np.float32]  # (delta, dim)
    _alive: NDArray[np.bool_]  # (delta,)

    @classmethod
    def of(cls, generation: Generation) -> "View":
        """A generation as it was published."""
        delta = _Delta(generation.manifest.dims)
        through = generation.manifest.changes_through
        return cls(generation, through, len(generation), None, delta, delta.embeddings(), np.empty(0, np.bool_))

    @property
    def name(self) -> str:
        """The generation's."""
        return self.generation.name

    @property
    def manifest(self) -> GenerationManifest:
        """The generation's."""
        return self.generation.manifest

    @property
    def pending(self) -> int:
        """How many changes are not yet folded into a generation."""
        return self.through - self.manifest.changes_through

    def __len__(self) -> int:
        return self._count

    def search(self, query: NDArray[np.float32], depth: int, filter: Filter | None = None) -> Candidates:
        """At most ``depth`` candidates for a (dim,) query, most similar first, ties by row.

        What was deleted or replaced takes no place of the ``depth``.

        Args:
            query: (dim,).
            depth: at most this many.
            filter: only documents that it matches.
        """
        allowed = self._base if filter is None else self._selected(filter)
        near = self.generation.search(query, depth, allowed)
        if not len(self._alive):
            return near
        similarities, nearest = similarities_of(self._embeddings, query), self.generation.nearest
        found, added = near.similarities, similarities
        if nearest.head is not None:  # near is what the generation's index ranks by
            found, added = nearest.closeness(query, near.embeddings), nearest.nearness(query, self._vectors)
        rows = self._nearest(added, found.min() if len(found) == depth else None, depth, filter)
        if not len(rows):
            return near
        both = Candidates(
            np.concatenate([near.rows, rows + len(self.generation)]),
            np.concatenate([near.similarities, similarities[rows]]),
            np.concatenate([near.embeddings, self._embeddings[rows]]),
        )
        return both.nearest(np.concatenate([found, added[rows]]), depth)

    @cached_property
    def _selected(self) -> Callable[[Filter], Selection]:
        """What a filter lets through of the generation's rows that are still there; the last few are remembered."""
        generation, base = self.generation, self._base
        if base is None:
            return generation.select
        return lru_cache(SELECTIONS)(lambda filter: base & generation.select(filter))

    @cached_property
    def _vectors(self) -> NDArray[np.float32]:
        """(delta, width) what the generation's index would hold of the delta."""
        return self.generation.nearest.vectors(self._embeddings)

    def _nearest(
        self, nearness: NDArray[np.float32], least: np.float32 | None, depth: int, filter: Filter | None
    ) -> NDArray[np.int64]:
        """(found,) rows of the delta that may be among the ``depth`` nearest: none of them is below ``least``."""
        wanted = self._alive if filter is None else self._alive & self._delta.matching(filter, len(self._alive))
        rows = np.flatnonzero(wanted if least is None else wanted & (nearness >= least))
        if len(rows) > depth:
            least = np.partition(nearness[rows], len(rows) - depth)[len(rows) - depth]
            rows = rows[nearness[rows] >= least]
        return rows

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of some rows, in the order asked."""
        rows = np.asarray(rows, np.int64)
        if not len(self._alive):
            return self.generation.documents(rows)
        size = len(self.generation)
        below = iter(self.generation.documents(rows[rows < size]))
        return [next(below) if row < size else self._delta.documents[row - size] for row in rows.tolist()]

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(rows, dim) stored embeddings, in the order asked."""
        size = len(self.generation)
        stored = np.empty((len(rows), self.manifest.dims), np.float32)
        below = rows < size
        stored[below] = self.generation.embeddings(rows[below])
        stored[~below] = self._embeddings[rows[~below] - size]
        return stored

    def rows(self) -> NDArray[np.int64]:
        """(documents,) the row of every document: the generation's as they were, then others as they last came."""
        size = len(self.generation)
        below = np.arange(size) if self._base is None else self._base.rows
        return np.concatenate([below, size + np.flatnonzero(self._alive)])

    def rows_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The rows of those of some ids that are here."""
        found: dict[str, int] = {}
        elsewhere = []
        for id_ in ids:
            row = next((row for row in reversed(self._delta.rows.get(id_, ())) if row < len(self._alive)), None)
            if row is None:
                elsewhere.append(id_)
            elif self._alive[row]:
                found[id_] = row + len(self.generation)
        for id_, row in self.generation.rows_of(elsewhere).items():
            if self._base is None or self._base.flags[row]:
                found[id_] = row
        return found

    def get(self, id_: str) -> Document | None:
        """The document with an id, or None."""
        found = self.rows_of([id_])
        return self.documents(np.array([found[id_]]))[0] if found else None

    def after(self, changes: Sequence[Change]) -> "View":
        """The state after some more changes. Only the newest view may be continued."""
        self._delta.cut(len(self._alive))
        count, gone = self._count, list[int]()
        rows = self.rows_of({change.id for change in changes})
        added = sum(change.document is not None for change in changes)
        living = np.concatenate([self._alive, np.zeros(added, np.bool_)])
        size, end = len(self.generation), len(self._alive)
        for change in changes:
            old = rows.pop(change.id, None)
            if old is not None:
                count -= 1
                if old >= size:
                    living[old - size] = False
                else:
                    gone.append(old)
            if change.document is not None and change.vector is not None:
                self._delta.append(change.document, change.vector)
                living[end] = True
                rows[change.id] = size + end
                end += 1
                count += 1
        through = self.through + len(changes)
        base = self._base
        if gone:
            flags = np.ones(size, np.bool_) if base is None else base.flags.copy()
            flags[gone] = False
            base = Selection(flags)
        return View(self.generation, through, count, base, self._delta, self._delta.embeddings(), living)
