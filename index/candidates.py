"""Candidate search: which rows are worth scoring against this query?"""

import re
import threading
from pathlib import Path
from typing import Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.manifest import IndexFault

RECIPES = re.compile(r"Flat|SQ(4|6|8|fp16|bf16)|HNSW[1-9]\d{0,2}(,Flat|,SQ8)?")
"""FAISS factory strings that need no search parameter to keep their recall. (IVF searches one list unless told.)"""

ROWS_PER_ADD = 65_536
MAX_TRAINING_ROWS = 200_000
MAX_READ_LOOPS = 2**24  # inverted lists, parts of an index: what a file may have FAISS count up to
_READING = threading.Lock()


def check_recipe(recipe: str) -> None:
    """Refuse what cannot be built, before anything is embedded for it.

    Raises:
        IndexFault: not a recipe of :data:`RECIPES`.
    """
    if not RECIPES.fullmatch(recipe):
        raise IndexFault(
            f"{recipe!r} is not a recipe whose recall is known here; choose Flat (exact), SQ8 (a quarter of the "
            "memory) or HNSW32 (faster on large indexes)"
        )


class CandidateIndex:
    """FAISS, ranked by inner product. Read-only once built, so safe to search from several threads."""

    def __init__(self, faiss_index: faiss.Index) -> None:
        self._faiss = faiss_index

    @classmethod
    def build(cls, embeddings: NDArray[np.float32], recipe: str) -> Self:
        """Index the rows of ``embeddings``, which may be memory-mapped.

        Args:
            embeddings: (rows, dim) unit rows.
            recipe: a FAISS ``index_factory`` string: ``Flat``, ``SQ8``, ``HNSW32``, ...

        Raises:
            IndexFault: not a recipe of :data:`RECIPES`, or FAISS cannot build it over these rows.
        """
        check_recipe(recipe)
        rows, dims = embeddings.shape
        try:
            built = faiss.index_factory(dims, recipe, faiss.METRIC_INNER_PRODUCT)
            if not built.is_trained:
                sample = np.random.default_rng(0).permutation(rows)[:MAX_TRAINING_ROWS]
                built.train(np.ascontiguousarray(embeddings[np.sort(sample)]))
            for start in range(0, rows, ROWS_PER_ADD):
                built.add(np.ascontiguousarray(embeddings[start : start + ROWS_PER_ADD]))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise IndexFault(
                f"FAISS cannot build {recipe!r} over {rows:,} rows of {dims}: {reason}; choose another --recipe"
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

    def search(self, query: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
        """(found,) rows near a (dim,) query, at most ``depth``, nearest first by FAISS's reckoning."""
        _, rows = self._faiss.search(np.ascontiguousarray(query[None]), depth)
        found: NDArray[np.int64] = rows[0][rows[0] >= 0]  # FAISS pads missing neighbours with -1
        return found


def _last_line(error: Exception) -> str:
    return str(error).splitlines()[-1] if str(error) else type(error).__name__


def _limit_reading(vector_bytes: int, loops: int) -> None:
    faiss.set_deserialization_vector_byte_limit(vector_bytes)
    faiss.set_deserialization_loop_limit(loops)
