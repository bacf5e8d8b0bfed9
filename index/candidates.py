"""Candidate search: which rows are worth scoring against this query?"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.manifest import IndexFault, RecipeFault
from index.recipes import ROWS_PER_ADD, core_of, is_graph, number_of_lists, training_rows, untrained
from index.selection import Selection

_library: Any = faiss  # its stubs do not know what its Python layer adds to constructors
Floats = NDArray[np.float32]
MOST_EFFORT_IN_A_GRAPH = 4096
MAX_READ_LOOPS = 2**24  # inverted lists, parts of an index: what a file may have FAISS count up to
PARAMETERS = 16
"""Sets of them that are remembered as FAISS takes them: to make one costs a tenth of a small search."""
CACHE_LINE = 16  # float32 numbers

_READING = threading.Lock()


@dataclass(frozen=True)
class Dial:
    """The search parameter that buys recall with time, and its largest value that makes a difference."""

    name: str
    most: int


class CandidateIndex:
    """FAISS, ranked by inner product. Read-only once built, so safe to search from several threads."""

    def __init__(self, faiss_index: faiss.Index) -> None:
        self._faiss, self._core = faiss_index, core_of(faiss_index)
        self._lists = number_of_lists(self._core)
        # Not of a method: with itself in what it holds, it would outlive its last use, as all of its memory would.
        self._parameters = partial(_parameters, faiss_index, self._core)
        self._remembered = lru_cache(PARAMETERS)(self._parameters)

    @classmethod
    def build(cls, embeddings: Floats, recipe: str, transform: Callable[[Floats], Floats] = lambda rows: rows) -> Self:
        """Index the rows of ``embeddings``, which may be memory-mapped. The same rows give the same bytes.

        Args:
            embeddings: (rows, dim).
            recipe: a FAISS ``index_factory`` string: ``Flat``, ``IVF1024,SQ8``, ``HNSW32``, ...
            transform: from (some, dim) embeddings to the (some, width) vectors to index.

        Raises:
            RecipeFault: not a recipe of :func:`index.recipes.untrained`, or FAISS cannot build it over these rows.
        """
        rows = len(embeddings)
        width = transform(np.zeros((1, embeddings.shape[1]), np.float32)).shape[1]
        built = untrained(recipe, width)
        core = core_of(built)
        try:
            with _one_thread():
                if not built.is_trained:
                    sample = np.random.default_rng(0).permutation(rows)[: training_rows(rows, number_of_lists(core))]
                    built.train(_contiguous(transform(embeddings[np.sort(sample)])))
                for start in range(0, rows, ROWS_PER_ADD):
                    built.add(_contiguous(transform(embeddings[start : start + ROWS_PER_ADD])))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise RecipeFault(
                f"FAISS cannot build {recipe!r} over {rows:,} rows of {width}: {reason}; choose another --recipe"
            ) from error
        return cls(built)

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        try:
            faiss.write_index(self._faiss, str(path))
        except RuntimeError as error:
            raise IndexFault(f"{path} cannot be written: {str(error).splitlines()[-1]}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index. A file that was altered cannot make FAISS allocate more than the file has bytes at a time.

        Raises:
            IndexFault: FAISS cannot read it.
        """
        limits = (path.stat().st_size, MAX_READ_LOOPS)
        try:
            with _READING:  # the limits are the library's, not the call's
                before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
                try:
                    _limit_reading(*limits)
                    return cls(faiss.read_index(str(path)))
                finally:
                    _limit_reading(*before)
        except (RuntimeError, MemoryError) as error:
            raise IndexFault(f"{path}: FAISS cannot read it ({_last_line(error)}); build the index again") from error

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    @property
    def raw(self) -> faiss.Index:
        """The FAISS index itself, not to be changed."""
        return self._faiss

    @property
    def exact(self) -> bool:
        """Does it compare every vector, as it was given?"""
        return isinstance(faiss.downcast_index(self._faiss), faiss.IndexFlat)

    @property
    def dial(self) -> Dial | None:
        """What there is to tune; None where every row's code is compared."""
        if self._lists:
            return Dial("nprobe", self._lists)
        if is_graph(self._core):
            return Dial("efSearch", max(1, min(len(self), MOST_EFFORT_IN_A_GRAPH)))
        return None

    def search(
        self,
        query: Floats,
        depth: int,
        params: Mapping[str, int] | None = None,
        allowed: Selection | None = None,
    ) -> NDArray[np.int64]:
        """(found,) rows near a query, at most ``depth``, nearest first by FAISS's reckoning.

        Args:
            query: (width,).
            depth: at most this many rows.
            params: of this search alone: ``{"nprobe": 32}`` for lists, ``{"efSearch": 128}`` for a graph.
            allowed: which rows may be found; default: all. Others take no place of the ``depth``.

        Raises:
            IndexFault: a parameter that this index does not have, or ``allowed`` is not one flag a row.
        """
        parameters = self.parameters(params or {}, allowed)
        _, rows = self._faiss.search(aligned(query), depth, params=parameters)
        found: NDArray[np.int64] = rows[0][rows[0] >= 0]  # FAISS pads missing neighbours with -1
        return found

    def parameters(self, params: Mapping[str, int], allowed: Selection | None = None) -> Any:
        """What FAISS is given with a search, made of what a manifest says of it.

        Raises:
            IndexFault: as for :meth:`search`.
        """
        given = tuple(params.items())
        return self._remembered(given) if allowed is None else self._parameters(given, allowed)


def aligned(query: Floats) -> Floats:
    """(1, width) copy of a (width,) query that begins where a cache line does, as arrays of numpy's seldom do.

    FAISS reads it anew beside every row; where each load lies across two lines, a search takes a tenth longer.
    """
    room = np.empty(len(query) + CACHE_LINE, np.float32)
    start = -(room.__array_interface__["data"][0] // room.itemsize) % CACHE_LINE
    row = room[start : start + len(query)]
    row[:] = query
    return row[None]


def _parameters(
    index: faiss.Index, core: Any, params: tuple[tuple[str, int], ...], allowed: Selection | None = None
) -> Any:
    # Parameters of a search replace the index's own as a whole, so what was not given has to be said again.
    kind, own, given = _library.SearchParameters, dict[str, Any](), dict[str, Any](params)
    if number_of_lists(core):
        kind, own = _library.SearchParametersIVF, {"nprobe": core.nprobe}
    elif is_graph(core):
        kind, own = _library.SearchParametersHNSW, {"efSearch": core.hnsw.efSearch}
    if unknown := sorted(given.keys() - own.keys()):
        raise IndexFault(f"{type(core).__name__} has no search parameter {unknown}; build the index again")
    if allowed is not None:
        if len(allowed) != index.ntotal:
            raise IndexFault(f"{len(allowed)} flags say which of {index.ntotal} rows are allowed; give one a row")
        given["sel"] = allowed.bitmap
    parameters = kind(**own | given)
    layer: Any = faiss.downcast_index(index)
    while isinstance(layer, faiss.IndexPreTransform):
        parameters = _library.SearchParametersPreTransform(index_params=parameters)
        layer = faiss.downcast_index(layer.index)
    return parameters


def _contiguous(vectors: Floats) -> Floats:
    return np.ascontiguousarray(vectors, np.float32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how many threads share them, and a graph's links on the order in which rows arrive at it."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _last_line(error: Exception) -> str:
    return str(error).splitlines()[-1] if str(error) else type(error).__name__


def _limit_reading(vector_bytes: int, loops: int) -> None:
    faiss.set_deserialization_vector_byte_limit(vector_bytes)
    faiss.set_deserialization_loop_limit(loops)
