"""How does an index move to another encoder? From its own texts, while the generation before serves and changes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.asked import aim_after
from index.compaction import check_ranking, fold
from index.generations import live_home, new_generation
from index.live import LiveIndex
from index.manifest import EncoderIdentity
from index.nearest import HeadVectors
from index.recall import Aim, Scores
from index.view import View

ROWS_PER_SHARD = 4096
ROUNDS = 3
"""How often what was changed meanwhile is taken in before writers have to wait for the last of it."""

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def rebuild(
    folder: Path,
    encode: Encode,
    dims: int,
    encoder: EncoderIdentity,
    head: HeadVectors | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    scores: Scores | None = None,
) -> View:
    """Embed every document again and publish the next generation; its recipe is kept.

    What is changed meanwhile is embedded as well, in a few rounds, each of which folds all documents anew. If anything
    is changed during the last of them there is one more, for which writers wait: as long as a compaction takes.

    Args:
        folder: the index.
        encode: the new encoder, as a function.
        dims: width of its embeddings.
        encoder: its identity, which the index will insist on from then.
        head: that goes with it, if FAISS can rank by it; used where FAISS ranks by a head already.
        progress: told how many documents are embedded, and of how many.
        scores: the head that goes with it, to measure how many candidates it should be given; None: as many as before.

    Raises:
        BusyFault: the index is being built or compacted.
        IndexFault: it cannot be read or written; it is as it was.
    """
    with LiveIndex.open(folder, None, writable=True) as live:
        check_ranking(live.view().manifest, head)  # before anything is embedded
        vectors: _Vectors
        aim: Aim
        folded = -1

        def fold_newest(home: Path) -> None:
            nonlocal folded
            view = live.view()
            if view.through != folded:
                vectors.extend(view)
                fold(view, home, encoder, dims, vectors, aim, head)
                folded = view.through

        def settle(home: Path) -> None:
            # Not left to the log, with new vectors: log and generation are two files, and a kill between would lose it.
            fold_newest(home)
            vectors.path.unlink()

        with new_generation(folder, settle) as home:
            vectors = _Vectors(home / "vectors.partial", dims, encode, progress)
            aim = aim_after(live.view().manifest, live_home(folder), encode, scores)
            for _ in range(ROUNDS):
                fold_newest(home)
        # The changes stay in the log until the next compaction: services of the old encoder may not have seen them all.
        return live.view()


class _Vectors:
    """New embeddings of the rows of a view and of those after it, which have the same numbers; kept in a file."""

    def __init__(self, path: Path, dims: int, encode: Encode, progress: Callable[[int, int], None]) -> None:
        self.path = path
        self._dims, self._encode, self._progress = dims, encode, progress
        self._rows = np.empty(0, np.int64)  # ascending: a later view has its new rows at the end
        path.touch()

    def extend(self, view: View) -> None:
        """Embed the rows that are not yet there."""
        rows = np.setdiff1d(view.rows(), self._rows)
        total = len(self._rows) + len(rows)
        with self.path.open("ab") as file:
            for start in range(0, len(rows), ROWS_PER_SHARD):
                part = rows[start : start + ROWS_PER_SHARD]
                embeddings = self._encode([document.text for document in view.documents(part)])
                file.write(np.ascontiguousarray(embeddings, "<f4").tobytes())
                self._progress(len(self._rows) + start + len(part), total)
        self._rows = np.concatenate([self._rows, rows])

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(rows, dim)."""
        stored = np.memmap(self.path, "<f4", "r", shape=(len(self._rows), self._dims))
        return np.asarray(stored[np.searchsorted(self._rows, rows)])
