"""Which state of the index is live? Immutable generations, published by one atomic step."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.candidates import CandidateIndex
from index.documents import Document, Documents
from index.manifest import MANIFEST, GenerationManifest, IndexFault

CURRENT = "CURRENT"
GENERATIONS = "generations"
CANDIDATES_FILE = "candidates.faiss"
EMBEDDINGS_FILE = "embeddings.npy"
DOCUMENTS_FILE = "documents.sqlite"
FILES = (CANDIDATES_FILE, EMBEDDINGS_FILE, DOCUMENTS_FILE)
_NAME = re.compile(r"\d{6,}")


@dataclass(frozen=True)
class Candidates:
    """Documents near a query, most similar first. The three fields are parallel."""

    rows: NDArray[np.int64]  # (found,)
    similarities: NDArray[np.float32]  # (found,) inner product with the query, from the stored embeddings
    embeddings: NDArray[np.float32]  # (found, dim)


class Generation:
    """One published state of an index, opened for search."""

    def __init__(
        self,
        name: str,
        manifest: GenerationManifest,
        candidates: CandidateIndex,
        embeddings: NDArray[np.float32],
        documents: Documents,
    ) -> None:
        self.name, self.manifest = name, manifest
        self._candidates, self._embeddings, self._documents = candidates, embeddings, documents

    @classmethod
    def open(cls, folder: Path) -> "Generation":
        """The live generation of an index folder, every file checked against its digest.

        Raises:
            IndexFault: not an index, or a file is missing, altered, or disagrees with the others.
        """
        name = current_name(folder)
        home = folder / GENERATIONS / name
        manifest = GenerationManifest.read(home)
        if missing := sorted(set(FILES) - manifest.files.keys()):
            raise IndexFault(f"{home / MANIFEST} does not list {missing}; build the index again")
        manifest.check_files(home)
        candidates = CandidateIndex.load(home / CANDIDATES_FILE)
        embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
        documents = Documents(home / DOCUMENTS_FILE)
        counts = {manifest.documents, len(candidates), len(embeddings), len(documents)}
        if len(counts) != 1 or embeddings.shape[1] != manifest.dims:
            raise IndexFault(
                f"{home}: the files disagree: manifest {manifest.documents} x {manifest.dims}, "
                f"FAISS {len(candidates)}, embeddings {embeddings.shape}, documents {len(documents)}; "
                "build the index again"
            )
        return cls(name, manifest, candidates, embeddings, documents)

    def __len__(self) -> int:
        return len(self._embeddings)

    def search(self, query: NDArray[np.float32], depth: int) -> Candidates:
        """At most ``depth`` candidates for a (dim,) query, most similar first.

        FAISS may rank by compressed codes; similarities and their order come from the stored embeddings.
        """
        rows = self._candidates.search(query, depth)
        embeddings = self._embeddings[rows]  # (found, dim)
        similarities = embeddings @ query
        order = np.lexsort((rows, -similarities))
        return Candidates(rows[order], similarities[order], embeddings[order])

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of some rows, in the order asked."""
        return self._documents.at(rows)


def current_name(folder: Path) -> str:
    """The name of the live generation.

    Raises:
        IndexFault: the folder is not an index.
    """
    try:
        name = (folder / CURRENT).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise IndexFault(
            f"{folder} is not an index (no readable {CURRENT}); make one with dse index build INPUT --output {folder}"
        ) from error
    if not _NAME.fullmatch(name):
        raise IndexFault(f"{folder / CURRENT} names {name!r}, which is no generation; build the index again")
    return name


@contextmanager
def new_generation(folder: Path) -> Iterator[Path]:
    """A folder to fill; on leaving it without an error it becomes the live generation, in one step.

    An error, or a process that is killed, leaves the index as it was. The live generation and the one before it are
    kept, older ones removed.

    Raises:
        IndexFault: another process is writing to this index, or the folder cannot be written.
    """
    try:
        (folder / GENERATIONS).mkdir(parents=True, exist_ok=True)
        lock = (folder / "write.lock").open("w")
    except OSError as error:
        raise IndexFault(f"{folder} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IndexFault(f"{folder} is being written by another process; wait for it to end") from error
        known = sorted(p.name for p in (folder / GENERATIONS).iterdir() if _NAME.fullmatch(p.name))
        name = f"{int(known[-1]) + 1 if known else 1:06d}"
        partial = folder / GENERATIONS / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if not known:
                _remove_empty(folder)
            raise
        _publish(folder, partial, name)
        for old in known[:-1]:
            shutil.rmtree(folder / GENERATIONS / old, ignore_errors=True)


def _publish(folder: Path, partial: Path, name: str) -> None:
    for path in [*partial.iterdir(), partial]:
        _fsync(path)
    partial.rename(folder / GENERATIONS / name)
    _fsync(folder / GENERATIONS)
    pointer = folder / f"{CURRENT}.partial"
    pointer.write_text(name + "\n", "utf-8")
    _fsync(pointer)
    pointer.replace(folder / CURRENT)
    _fsync(folder)


def _remove_empty(folder: Path) -> None:
    """Leave nothing of an index that never was."""
    (folder / "write.lock").unlink(missing_ok=True)
    for path in (folder / GENERATIONS, folder):
        try:
            path.rmdir()
        except OSError:  # someone else's files are in it
            return


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
