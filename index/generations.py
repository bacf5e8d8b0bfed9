"""Which state of the index is live? Immutable generations, published by one atomic step."""

import fcntl
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.candidates import CandidateIndex
from index.changes import CHANGES_FILE, ChangeLog, publication
from index.columns import MetadataColumns
from index.documents import Document, Documents
from index.durable import fsync
from index.filters import Filter
from index.headers import check_candidates, check_documents, check_embeddings
from index.manifest import MANIFEST, BusyFault, EncoderIdentity, GenerationManifest, IndexFault, Verify
from index.nearest import DECIMALS, HeadVectors, NearestSearch, Tuning
from index.selection import Selection

CURRENT = "CURRENT"
GENERATIONS = "generations"
BUILD = "build.partial"
"""Beside the generations: what an unfinished build has embedded so far, for it to go on from."""

CANDIDATES_FILE = "candidates.faiss"
EMBEDDINGS_FILE = "embeddings.npy"
DOCUMENTS_FILE = "documents.sqlite"
METADATA_FILE = "metadata.safetensors"
FILES = (CANDIDATES_FILE, EMBEDDINGS_FILE, DOCUMENTS_FILE, METADATA_FILE)
LATER_FILES = (METADATA_FILE,)  # that a generation of an earlier version may lack
SELECTIONS = 16  # of filters, remembered for the next search with the same one
PARTIAL = ".partial"
SECONDS_BETWEEN_ATTEMPTS = 0.2
_NAME = re.compile(r"\d{6,}")


@dataclass(frozen=True)
class Candidates:
    """Documents near a query, most similar first. The three fields are parallel."""

    rows: NDArray[np.int64]  # (found,)
    similarities: NDArray[np.float32]  # (found,) inner product with the query, from the stored embeddings
    embeddings: NDArray[np.float32]  # (found, dim)

    def nearest(self, nearness: NDArray[np.floating], depth: int) -> "Candidates":
        """The ``depth`` of greatest (found,) nearness, most similar first; ties by row."""
        return self._at(np.lexsort((self.rows, -nearness))[:depth]).ordered()

    def ordered(self) -> "Candidates":
        """All of them, most similar first; ties by row."""
        return self._at(np.lexsort((self.rows, -self.similarities)))

    def _at(self, places: NDArray[np.int64]) -> "Candidates":
        return Candidates(self.rows[places], self.similarities[places], self.embeddings[places])


def similarities_of(embeddings: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows,) cosines of (rows, dim) embeddings with a (dim,) query, to as many decimals as mean something."""
    similarities = embeddings @ query
    similarities.round(DECIMALS, out=similarities)
    np.minimum(similarities, 1.0, out=similarities)
    return np.maximum(similarities, -1.0, out=similarities)


class Generation:
    """One published state of an index, opened for search."""

    def __init__(
        self,
        name: str,
        manifest: GenerationManifest,
        nearest: NearestSearch,
        documents: Documents,
        columns: MetadataColumns | None,
    ) -> None:
        self.name, self.manifest, self.nearest = name, manifest, nearest
        self._tuning, self._documents = Tuning(manifest.search, manifest.refine), documents
        # Not of a method: with itself in what it holds, it would outlive its last use, as all of its files would.
        self._selected = lru_cache(SELECTIONS)(partial(_selected, columns, documents))

    @classmethod
    def open(
        cls,
        folder: Path,
        encoder: EncoderIdentity | None = None,
        head: HeadVectors | None = None,
        verify: Verify = "full",
    ) -> "Generation":
        """The live generation of an index folder, its files compared with the manifest.

        Args:
            folder: the index.
            encoder: that will embed queries; None: it will not be searched.
            head: that will be served, if FAISS can rank by it.
            verify: ``full`` compares every byte; ``quick`` sizes, headers and small files.

        Raises:
            IndexFault: not an index, built with another encoder than the one given or ranked by another head, or a
                file is missing, altered, or disagrees with the others.
        """
        home = live_home(folder)
        if encoder is not None:
            manifest = GenerationManifest.read(home)
            manifest.check_encoder(folder, encoder)
            manifest.check_head(folder, None if head is None else head.identity)
        return cls.read(home, head, verify)

    @classmethod
    def read(cls, home: Path, head: HeadVectors | None = None, verify: Verify = "full") -> "Generation":
        """The generation in its own folder, live or about to be, its files checked against its manifest.

        Raises:
            IndexFault: a file is missing, altered, or disagrees with the others.
        """
        try:
            return cls._read(home, head, verify)
        except OSError as error:  # gone since it was looked for: the generation is live no longer
            raise IndexFault(f"{home} cannot be read: {error}; if it is live, restore it or build again") from error

    @classmethod
    def _read(cls, home: Path, head: HeadVectors | None, verify: Verify) -> "Generation":
        manifest = GenerationManifest.read(home)
        if missing := sorted(set(FILES) - set(LATER_FILES) - manifest.files.keys()):
            raise IndexFault(f"{home / MANIFEST} does not list {missing}; build the index again")
        manifest.check_files(home, verify)
        ranked_by = head if manifest.head is not None else None
        width = manifest.dims if ranked_by is None else ranked_by.width(manifest.dims)
        check_candidates(home / CANDIDATES_FILE, manifest, None if manifest.head and not ranked_by else width)
        check_embeddings(home / EMBEDDINGS_FILE, manifest)
        check_documents(home / DOCUMENTS_FILE)
        candidates = CandidateIndex.load(home / CANDIDATES_FILE)
        mapped = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
        embeddings = np.asarray(mapped)  # the same memory, without what a memmap does at each use
        documents = Documents(home / DOCUMENTS_FILE)
        columns = MetadataColumns.open(home / METADATA_FILE) if METADATA_FILE in manifest.files else None
        counts = {manifest.documents, len(candidates), len(embeddings), len(documents)}
        if columns is not None:
            counts.add(len(columns))
        if len(counts) != 1 or embeddings.shape[1] != manifest.dims:
            raise IndexFault(
                f"{home}: the files disagree: manifest {manifest.documents} x {manifest.dims}, "
                f"FAISS {len(candidates)}, embeddings {embeddings.shape}, documents {len(documents)}, "
                f"metadata {'none' if columns is None else len(columns)}; build the index again"
            )
        nearest = NearestSearch(candidates, embeddings, ranked_by)
        return cls(home.name.removesuffix(PARTIAL), manifest, nearest, documents, columns)

    def __len__(self) -> int:
        return len(self.nearest.embeddings)

    def search(
        self,
        query: NDArray[np.float32],
        depth: int,
        allowed: Selection | None = None,
        filter: Filter | None = None,
    ) -> Candidates:
        """At most ``depth`` candidates for a (dim,) query, most similar first.

        FAISS is asked as was proven, and may rank by compressed codes, or by the head; similarities and their order
        come from the stored embeddings.

        Args:
            query: (dim,).
            depth: at most this many.
            allowed: which rows may be found; default: all. Others take no place of the ``depth``.
            filter: only documents that it lets through.
        """
        if filter is not None:
            selected = self.select(filter)
            allowed = selected if allowed is None else allowed & selected
        rows, embeddings = self.nearest.search(query, depth, self._tuning, allowed)
        return Candidates(rows, similarities_of(embeddings, query), embeddings).ordered()

    def select(self, filter: Filter) -> Selection:
        """The rows that a filter lets through; those of the last few filters are remembered."""
        return self._selected(filter)

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of some rows, in the order asked."""
        return self._documents.at(rows.tolist())

    def rows_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The rows of those of some ids that are here."""
        return self._documents.rows_of(ids)

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(rows, dim) stored embeddings, in the order asked."""
        return self.nearest.embeddings[rows]


def _selected(columns: MetadataColumns | None, documents: Documents, filter: Filter) -> Selection:
    if columns is not None:
        return Selection(columns.select(filter))
    # built before there were columns: every document is read
    matches = (filter.matches(metadata) for metadata in documents.metadata())
    return Selection(np.fromiter(matches, np.bool_, len(documents)))


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


def live_home(folder: Path) -> Path:
    """The folder of the live generation.

    Raises:
        IndexFault: the folder is not an index.
    """
    return folder / GENERATIONS / current_name(folder)


def live_manifest(folder: Path) -> GenerationManifest | None:
    """The manifest of the live generation; None if there is none to read."""
    try:
        return GenerationManifest.read(live_home(folder))
    except IndexFault:
        return None


def last_change(folder: Path) -> int:
    """The sequence number of the last change to an index; 0 where there is none, or no index yet.

    Raises:
        IndexFault: the change log is damaged.
    """
    if (folder / CHANGES_FILE).exists():
        with closing(ChangeLog(folder / CHANGES_FILE, writable=False)) as log:
            return log.extent().last
    live = live_manifest(folder)
    return 0 if live is None else live.changes_through


def dropped_through(folder: Path) -> int:
    """The last change that the log of an index no longer holds; what is being dropped right now is waited for.

    Raises:
        BusyFault: another process writes for longer than that takes.
        IndexFault: the change log is damaged, or cannot be written.
    """
    if not (folder / CHANGES_FILE).exists():
        return 0
    with closing(ChangeLog(folder / CHANGES_FILE, writable=True)) as log, log.transaction():
        return log.extent().dropped_through


@contextmanager
def new_generation(folder: Path, settle: Callable[[Path], None] | None = None, patience: float = 0) -> Iterator[Path]:
    """A folder to fill; on leaving it without an error it becomes the live generation, in one step.

    An error, or a process that is killed, leaves the index as it was. The live generation and the one it replaced are
    kept, and what an unfinished build has embedded; older ones, and what a killed process left, are removed. No change
    is accepted during that one step.

    Args:
        folder: the index, new or existing.
        settle: given the filled folder while changes already wait, for a last look at those that came meanwhile.
        patience: seconds to wait for another process that is writing.

    Raises:
        IndexFault: another process is writing to this index, the folder cannot be written, or changes were made
            meanwhile that do not fit the new generation.
    """
    created: list[Path] = []
    try:
        created = made(folder / GENERATIONS)
        with locked(folder, f"{folder} is being written by another process; wait for it to end", patience):
            yield from _filled(folder, settle, created)
    except (OSError, sqlite3.Error) as error:
        live = current_name(folder) if (folder / CURRENT).exists() else "none"
        raise IndexFault(f"{folder} cannot be written: {error}; its live generation is {live}") from error
    finally:
        remove_if_empty(created)


@contextmanager
def locked(folder: Path, refusal: str, patience: float = 0) -> Iterator[None]:
    """Hold a folder itself, so that no lock file is left behind; the system lets go of it if the process dies.

    Raises:
        IndexFault: another process holds it, for longer than ``patience`` seconds; the message is ``refusal``.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    last = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= last:
                    raise BusyFault(refusal) from None
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)
        yield
    finally:
        os.close(descriptor)


def _filled(folder: Path, settle: Callable[[Path], None] | None, created: list[Path]) -> Iterator[Path]:
    live = current_name(folder) if (folder / CURRENT).exists() else None
    number = int(live) + 1 if live else 1
    name = f"{number:06d}"
    home, partial = folder / GENERATIONS / name, folder / GENERATIONS / f"{name}{PARTIAL}"
    for leftover in (home, partial):  # of a process that died before it could publish
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if settle is None:
            _make_durable(partial)
        with publication(folder, GenerationManifest.read(partial), first=live is None) as log:
            if settle is not None:
                settle(partial)
                _make_durable(partial)
            if log is not None:
                log.check_follows(GenerationManifest.read(partial))
            _publish(folder, partial, home, created)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if not (folder / CURRENT).exists() or current_name(folder) != name:
            shutil.rmtree(home, ignore_errors=True)
        raise
    for other in (folder / GENERATIONS).iterdir():
        if other.name not in (live, name, BUILD):
            shutil.rmtree(other, ignore_errors=True)


def _make_durable(partial: Path) -> None:
    for path in [*sorted(partial.iterdir()), partial]:
        fsync(path)


def _publish(folder: Path, partial: Path, home: Path, created: list[Path]) -> None:
    """Make the name of durable files durable, then the pointer to it; each before the next may be seen."""
    partial.rename(home)
    fsync(home.parent)
    pointer = folder / f"{CURRENT}.partial"
    try:
        pointer.write_text(home.name + "\n", "utf-8")
        fsync(pointer)
        pointer.replace(folder / CURRENT)
    finally:
        pointer.unlink(missing_ok=True)
    fsync(folder)
    for path in created:  # the index itself may be new, and folders above it
        fsync(path.parent)


def made(folder: Path) -> list[Path]:
    """Make a folder, and those above it; the ones that were not there, innermost first."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return created


def remove_if_empty(created: list[Path]) -> None:
    """Of folders that were made for an index, innermost first, leave none without one."""
    for path in created:
        try:
            path.rmdir()
        except OSError:  # there is something in it, or it is gone
            return
