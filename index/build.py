"""The offline job: documents in, one published generation out. What is embedded stays embedded, whatever happens."""

import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.asked import keep
from index.columns import write_columns
from index.documents import Document, Documents, DocumentsWriter, DuplicateId
from index.finish import AS_IT_COMES, SearchWanted, make_search, write_manifest
from index.generations import (
    CANDIDATES_FILE,
    DOCUMENTS_FILE,
    EMBEDDINGS_FILE,
    METADATA_FILE,
    last_change,
    new_generation,
)
from index.manifest import EncoderIdentity, GenerationManifest, IndexFault
from index.needs import Needs, check_disk, needs
from index.shards import Job, Shard, Work, digests_of, unfinished_build
from index.sources import Rejects, SourcedDocument, SourceError

DOCUMENTS_PER_SHARD = 4096
DOCUMENTS_PER_BATCH = 1024  # a quarter of a shard: the bar moves
SAMPLE = 64  # texts that are embedded twice, to know how long all will take
PATIENCE = 3600.0  # seconds to wait for a compaction to end before publishing beside it

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to (texts, dim) unit embeddings."""
EncodeBatches = Callable[[Iterable[Sequence[str]]], Iterator[NDArray[np.float32]]]
"""The same of one batch after another, for an encoder that can work on two at once."""


Publish = Callable[[Callable[[Path], None], dict[str, Any]], GenerationManifest]
"""Given what writes ``embeddings.npy`` and ``documents.sqlite`` into a folder, and what was measured: makes it live."""


class Watcher:
    """What a build tells whoever waits for it. This one listens to nothing."""

    def needs(self, needs: Needs) -> None:
        """Before anything is embedded: what it will take."""

    def embedded(self, documents: int, resumed: int, expected: int | None) -> None:
        """So many documents are embedded, ``resumed`` of them by a former run; about so many are expected in all."""

    def finishing(self, step: str) -> None:
        """All are embedded; now this is done with them."""


def build(
    documents: Iterable[SourcedDocument],
    encode: Encode,
    dims: int,
    encoder: EncoderIdentity,
    folder: Path,
    recipe: str | None = "Flat",
    *,
    search: SearchWanted = AS_IT_COMES,
    resume: bool = True,
    rejects: Rejects | None = None,
    share_read: Callable[[], float | None] = lambda: None,
    watcher: Watcher | None = None,
    encode_batches: EncodeBatches | None = None,
    workers: int = 1,
    publish: Publish | None = None,
) -> GenerationManifest:
    """Embed documents and publish them as the next generation of the index in ``folder``.

    Documents stream through in shards, so memory does not grow with the input (the FAISS index of it must fit). Each
    shard is durable once it is embedded: after an error or a kill, the same call goes on behind the last one, and what
    it publishes is what an uninterrupted call would have. Until the last step the index is as it was before.

    Args:
        documents: what to index; at least one. Read from the beginning each time, also by a call that resumes.
        encode: the encoder, as a function.
        dims: width of its embeddings.
        encoder: its identity, which the index will insist on.
        folder: the index, new or existing.
        recipe: a FAISS ``index_factory`` string; None: chosen by rows and memory. A call that resumes may give another,
            as it may for ``search``: vectors do not depend on them.
        search: what it may take, and what it must be shown to find.
        resume: go on from what a former call left; if not, begin again.
        rejects: where to put a document whose id is taken; without it, that is an error.
        share_read: how much of the input has been read, 0..1, for estimates; None where that is not known.
        watcher: told how it goes.
        encode_batches: a faster ``encode`` of many batches, if the encoder has one.
        workers: how many batches it embeds in the time of one.
        publish: where it goes, if not into ``folder``, which then holds what is embedded until that is done.

    Raises:
        SourceError: an input is broken, there is none, or two documents have one id.
        IndexFault: not a known recipe, the search is not shown to find what it must, another build is under way, an
            unfinished one began with other documents or another encoder, disk or memory are too small, or the folder
            cannot be written.
    """
    search.check(recipe, dims)
    if folder.exists() and not folder.is_dir():
        raise IndexFault(f"{folder} is no folder; give an index another name")
    started = time.monotonic()
    watcher = watcher or Watcher()
    job = Job.new(encoder, dims, DOCUMENTS_PER_SHARD, last_change(folder))
    batchwise = encode_batches or (lambda batches: map(encode, batches))
    try:
        with unfinished_build(folder, job, resume) as work:
            rows = _Rows(work, recipe, search, batchwise, workers, rejects, share_read, watcher)
            rows.write(documents)
            measured = {"build": work.job.build, "resumed": rows.resumed}
            if publish is not None:
                return publish(rows.put, measured)
            with new_generation(folder, patience=PATIENCE) as home:
                rows.put(home)
                through = work.job.changes_through
                return finish(home, recipe, search, encoder, measured, started, through, watcher.finishing)
    except (OSError, sqlite3.Error) as error:
        raise IndexFault(
            f"{folder} cannot be written: {error}; what is embedded is kept, the same command goes on from there"
        ) from error


def finish(
    home: Path,
    recipe: str | None,
    search: SearchWanted,
    encoder: EncoderIdentity,
    measured: dict[str, Any],
    started: float,
    changes_through: int = 0,
    stage: Callable[[str], None] = lambda words: None,
) -> GenerationManifest:
    """Make of embeddings and documents, written and of one length, all else that a generation has; manifest last.

    Args:
        home: the folder they are in, as :func:`~index.generations.new_generation` gives it.
        recipe: of the FAISS index; None: chosen by rows and memory.
        search: what it may take, and what it must be shown to find.
        encoder: what made the embeddings.
        measured: what else to remember of this run.
        started: by ``time.monotonic()``.
        changes_through: the last change that these documents hold, or replace.
        stage: told what is being done.

    Raises:
        IndexFault: the FAISS index cannot be built, does not fit into the memory, or is not proven.
    """
    stage("listing metadata")
    write_columns(home / METADATA_FILE, Documents(home / DOCUMENTS_FILE).metadata())
    embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    facts, found = make_search(embeddings, home / CANDIDATES_FILE, recipe, search, stage)
    keep(home, search.aim)
    return write_manifest(home, encoder, facts, changes_through, found | measured, started)


class _Rows:
    """Documents on their way into rows: those of finished shards are compared, the others embedded."""

    def __init__(
        self,
        work: Work,
        recipe: str | None,
        search: SearchWanted,
        encode_batches: EncodeBatches,
        workers: int,
        rejects: Rejects | None,
        share_read: Callable[[], float | None],
        watcher: Watcher,
    ) -> None:
        self.count = self.shards = self.resumed = 0
        self.documents_file = work.folder / DOCUMENTS_FILE
        self._work, self._recipe, self._search = work, recipe, search
        self._encode_batches, self._workers = encode_batches, workers
        self._rejects, self._share_read, self._watcher = rejects, share_read, watcher
        self._awaited: deque[tuple[int, NDArray[np.uint8]]] = deque()  # number and digests of shards to embed
        self._expected: int | None = None
        self._broken: SourceError | None = None
        self._places = _Places()

    def write(self, documents: Iterable[SourcedDocument]) -> None:
        """All of them: documents into a file that is not yet durable, embeddings into shards that are.

        Raises:
            SourceError: there are none, an input is broken, or an id comes twice.
            IndexFault: they are not those that a former run began with.
        """
        self.documents_file.unlink(missing_ok=True)  # written anew from the input, which is read again in any case
        with DocumentsWriter(self.documents_file) as writer:
            embedded = 0
            parts: list[NDArray[np.float32]] = []
            for embeddings in self._encode_batches(self._batches(self._accepted(documents, writer))):
                parts.append(embeddings)
                embedded += len(embeddings)
                number, digests = self._awaited[0]
                if sum(map(len, parts)) == len(digests):
                    self._work.write(number, Shard(digests, np.concatenate(parts)))
                    self._awaited.popleft()
                    parts.clear()
                self._watcher.embedded(self.resumed + embedded, self.resumed, self._expected)
        if self._broken is not None:
            raise self._broken
        if not self.count:
            raise SourceError("no documents to index")
        if self._rejects is not None:
            self._rejects.save()
        if self._work.read(self.shards) is not None:
            raise IndexFault(f"the input ends after document {self.count:,}; {self._changed()}")

    def put(self, home: Path) -> None:
        """Move documents and embeddings, all written, into a folder."""
        self._watcher.finishing("gathering")
        self._work.gather(home / EMBEDDINGS_FILE, self.shards, self.count)
        self.documents_file.rename(home / DOCUMENTS_FILE)

    def _accepted(self, documents: Iterable[SourcedDocument], writer: DocumentsWriter) -> Iterator[SourcedDocument]:
        for sourced in documents:
            try:
                writer.append([sourced.document])
            except DuplicateId as error:
                reason = f"id {error.id!r} is already that of {self._places[error.first]}"
                if self._rejects is None:
                    raise SourceError(f"{sourced.place}: {reason}") from error
                self._rejects.add(sourced.place, reason, sourced.line)
                continue
            self._places.append(sourced.place)
            yield sourced

    def _batches(self, accepted: Iterator[SourcedDocument]) -> Iterator[list[str]]:
        """The texts of shards that are not finished."""
        while shard := self._next_shard(accepted):
            documents = [sourced.document for sourced in shard]
            digests = digests_of(documents)
            if not self.count:
                self._reckon(documents)
            number, self.shards = self.shards, self.shards + 1
            start, self.count = self.count, self.count + len(shard)
            former = self._work.read(number)
            if former is not None:
                self._compare(former.digests, digests, shard, start)
                self.resumed += len(shard)
                self._watcher.embedded(self.resumed, self.resumed, self._expected)
                continue
            self._awaited.append((number, digests))
            for begin in range(0, len(documents), DOCUMENTS_PER_BATCH):
                yield [document.text for document in documents[begin : begin + DOCUMENTS_PER_BATCH]]

    def _next_shard(self, accepted: Iterator[SourcedDocument]) -> list[SourcedDocument]:
        """The next documents; none where the input ends, or breaks: what is under way is finished first."""
        try:
            return list(islice(accepted, self._work.job.documents_per_shard))
        except SourceError as error:
            self._broken = error
            return []

    def _compare(
        self, former: NDArray[np.uint8], digests: NDArray[np.uint8], shard: list[SourcedDocument], start: int
    ) -> None:
        common = min(len(former), len(digests))
        differ = np.flatnonzero((former[:common] != digests[:common]).any(axis=1))
        if len(differ) or len(digests) > len(former):
            row = int(differ[0]) if len(differ) else common
            raise IndexFault(f"{shard[row].place} (document {start + row + 1:,}) is not what it was; {self._changed()}")
        if len(former) > len(digests):
            raise IndexFault(f"the input ends after document {start + common:,}; {self._changed()}")

    def _changed(self) -> str:
        return (
            f"the unfinished build in {self._work.folder} began with another input. Give it that input, in the same "
            "order and with the same options, or give it up with --fresh"
        )

    def _reckon(self, first: list[Document]) -> None:
        """Say what all of it will need, and refuse what memory or disk clearly cannot hold."""
        more = len(first) == self._work.job.documents_per_shard
        share = self._share_read()
        self._expected = (round(len(first) / share) if share else None) if more else len(first)
        seconds = None
        if more:
            sample = [document.text for document in first[:: max(1, len(first) // SAMPLE)]]
            started = time.monotonic()
            list(self._encode_batches([sample]))
            seconds = (time.monotonic() - started) / len(sample) / self._workers
        written = sum(path.stat().st_size for path in self._work.folder.iterdir())
        free = written + shutil.disk_usage(self._work.folder).free
        needed = needs(first, self._expected, self._work.job.dims, self._recipe, self._search, seconds, free)
        self._watcher.needs(needed)
        check_disk(self._work.folder, needed)


class _Places:
    """Where the document of each row came from, for messages; in a temporary file, for there may be many."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)  # a file without a name, gone with the connection
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("CREATE TABLE places (row INTEGER PRIMARY KEY, place TEXT NOT NULL)")
        self._connection.execute("BEGIN")

    def append(self, place: str) -> None:
        self._connection.execute("INSERT INTO places (place) VALUES (?)", (place,))

    def __getitem__(self, row: int) -> str:
        found = self._connection.execute("SELECT place FROM places WHERE row = ?", (row + 1,)).fetchone()
        return str(found[0])
