"""What can be found right now? The live generation, and every change since, of whichever process it came."""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from index.changes import BUSY_SECONDS, CHANGES_FILE, Change, ChangeLog
from index.compaction import fold
from index.documents import Document
from index.generations import CURRENT, Generation, live_home, new_generation
from index.manifest import BusyFault, EncoderIdentity, GenerationManifest, IndexFault, ReadOnlyFault, Verify
from index.nearest import HeadVectors
from index.shards import replaced_through
from index.view import View

log = logging.getLogger("dse")

Status = Literal["created", "updated"]


class _Behind(Exception):
    """The log no longer holds the changes that would be next: another generation does."""


class LiveIndex:
    """An index folder, opened to be searched and perhaps changed. Safe to use from several threads and processes."""

    def __init__(
        self,
        folder: Path,
        generation: Generation,
        stamp: "Stamp | None",
        encoder: EncoderIdentity | None,
        writable: bool,
        busy_seconds: float,
        head: HeadVectors | None,
        verify: Verify,
    ) -> None:
        self.folder, self.writable, self._verify = folder, writable, verify
        self._encoder, self._busy_seconds, self._head = encoder, busy_seconds, head
        self._reading: ChangeLog | None = None
        self._writing: ChangeLog | None = None
        self._state = threading.RLock()  # held for moments
        self._opening = threading.Lock()  # held while a generation is made or opened, which takes its time
        self._seen: Stamp | None = stamp  # CURRENT when it was last followed
        self._refused: IndexFault | None = None  # why the generation it names is not the one in the view
        self._version = -1  # of the log when it was last read
        self._view = View.of(generation)

    @classmethod
    def open(
        cls,
        folder: Path,
        encoder: EncoderIdentity | None,
        writable: bool = False,
        busy_seconds: float = BUSY_SECONDS,
        head: HeadVectors | None = None,
        verify: Verify = "full",
    ) -> Self:
        """The index in a folder, with every change so far.

        Args:
            folder: the index.
            encoder: what embeds the queries; None where nothing is embedded, which takes the index as it is.
            writable: may it be changed? Nothing is created before it is.
            busy_seconds: how long a write waits for another process.
            head: that will be served, if FAISS can rank by it.
            verify: how the files of a generation are compared with its manifest.

        Raises:
            IndexFault: not an index, built with another encoder, ranked by another head, or damaged; or generation and
                change log are not of one time.
        """
        while True:
            stamp = _stamp(folder)
            try:
                generation = Generation.open(folder, encoder, head, verify)
                live = cls(folder, generation, stamp, encoder, writable, busy_seconds, head, verify)
                through = live.view().manifest.changes_through
                if writable and through and not (folder / CHANGES_FILE).exists():
                    raise IndexFault(
                        f"{folder / CHANGES_FILE} is missing, and this index has had {through} changes: restore it; "
                        "or serve the folder as it is (DSE_READ_ONLY=true), or make a copy that can be written: "
                        f"dse index snapshot {folder} COPY"
                    )
            except IndexFault:
                if _stamp(folder) == stamp:
                    raise
            else:
                return live

    def view(self) -> View:
        """The state as of now: what any process has written before this call is in it.

        Raises:
            IndexFault: the change log is damaged, or has been replaced by an older one.
        """
        wait = False
        while True:
            self._follow(wait)
            with self._state:
                if self._refused is not None:
                    return self._view
                try:
                    self._view = self._caught_up(self._view)
                    return self._view
                except _Behind as behind:
                    if _stamp(self.folder) == self._seen:
                        raise IndexFault(str(behind)) from behind
            wait = True

    @property
    def latest(self) -> View:
        """The newest view that was taken, without a look for a newer one."""
        return self._view

    def upsert(self, documents: Sequence[Document], embeddings: NDArray[np.float32]) -> list[Status]:
        """Add documents, or replace those of the same id; durable and to be found once this returns.

        Args:
            documents: of one id, the last stays.
            embeddings: (documents, dim) unit rows, by the encoder that the index was opened with.

        Returns:
            Of each, whether there was one of its id.

        Raises:
            ReadOnlyFault: not opened for writing, not writable, or of another encoder by now.
            BusyFault: another process writes for longer than this waits.
            IndexFault: vectors that do not fit, or a disk that is full. After an error nothing was written.
        """
        with self._transaction() as (view, changes):
            _check_vectors(documents, embeddings, view.manifest.dims)
            known = set(view.rows_of({document.id for document in documents}))
            statuses: list[Status] = []
            for document in documents:
                statuses.append("updated" if document.id in known else "created")
                known.add(document.id)
            rows = zip(documents, embeddings, strict=True)
            changes.append([Change(document.id, document, row) for document, row in rows], view.manifest.encoder)
        return statuses

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents; durable, and no longer to be found, once this returns.

        Returns:
            How many of them were there.

        Raises:
            ReadOnlyFault, BusyFault, IndexFault: as for :meth:`upsert`.
        """
        wanted = list(dict.fromkeys(ids))
        with self._transaction() as (view, changes):
            known = view.rows_of(wanted)
            changes.append([Change(id_) for id_ in wanted if id_ in known], view.manifest.encoder)
        return len(known)

    def compact(self) -> View:
        """Fold the changes into the next generation, while searches and writes go on; embeddings are reused.

        Returns:
            The view after it; if there was nothing to fold, the one there was.

        Raises:
            BusyFault: the index is already being compacted or built.
            ReadOnlyFault, IndexFault: it cannot be written; it is as it was.
        """
        self._writer()
        if not self.view().pending:
            return self.view()
        if not self._opening.acquire(blocking=False):
            raise BusyFault(f"{self.folder} is already being compacted; wait for it to end")
        try:
            with new_generation(self.folder) as home:
                self._take_up()  # from here on nobody else publishes one
                self._check_followed()
                view = self.view()
                fold(view, home, view.manifest.encoder, view.manifest.dims, view.embeddings, self._head)
                generation = Generation.read(home, self._head, self._verify)
            self._swap(generation, _stamp(self.folder))
        finally:
            self._opening.release()
        self._drop_folded()
        return self.view()

    def reload(self) -> View:
        """Take up the generation that is live now.

        Raises:
            IndexFault: it cannot be opened, or is of another encoder; what was served before still is.
        """
        with self._state:
            if self._refused is not None:
                self._seen = None  # try that one again
        self._follow(wait=True)
        self._check_followed()
        return self.view()

    def close(self) -> None:
        """Let go of the change log."""
        for opened in (self._reading, self._writing):
            if opened is not None:
                opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self, wait: bool) -> None:
        """Open the generation that has become live, if one has.

        One thread does; the others ``wait``, or go on meanwhile with the generation before and its changes, which is
        a state that the index has been in.
        """
        if _stamp(self.folder) == self._seen or not self._opening.acquire(blocking=wait):
            return
        try:
            self._take_up()
        finally:
            self._opening.release()

    def _take_up(self) -> None:
        while (stamp := _stamp(self.folder)) != self._seen:
            try:
                self._swap(Generation.open(self.folder, self._encoder, self._head, self._verify), stamp)
            except IndexFault as error:
                if _stamp(self.folder) == stamp:
                    log.warning("the new generation cannot be served, the one before stays: %s", error)
                    with self._state:
                        with suppress(IndexFault, _Behind):  # the last state of the one before
                            through = GenerationManifest.read(live_home(self.folder)).changes_through
                            self._view = self._caught_up(self._view, through)
                        self._seen, self._refused = stamp, error

    def _swap(self, generation: Generation, stamp: "Stamp | None") -> None:
        with self._state:
            try:
                self._view = self._caught_up(View.of(generation))
            except _Behind as behind:
                raise IndexFault(str(behind)) from behind
            self._seen, self._refused = stamp, None

    def _drop_folded(self) -> None:
        """Forget the changes that the live generation holds, but for those that an unfinished build will need.

        They are passed over when read, wherever they are.
        """
        try:
            changes = self._writer()
            with changes.transaction():
                folded, needed_after = self.view().manifest.changes_through, replaced_through(self.folder)
                changes.drop(folded if needed_after is None else min(folded, needed_after))
        except IndexFault as error:
            log.warning("the changes that were folded in are still in the log: %s", error)

    def _check_followed(self) -> None:
        if self._refused is not None:
            raise ReadOnlyFault(
                f"the live generation of {self.folder} cannot be served here ({self._refused}); the one before still "
                "is, and can no longer be changed"
            )

    def _caught_up(self, view: View, through: int | None = None) -> View:
        """A view with the changes after it, as far as ``through``."""
        path = self.folder / CHANGES_FILE
        if self._reading is None:
            if not path.exists():
                return view
            self._reading = ChangeLog(path, writable=False, busy_seconds=self._busy_seconds)
        version = self._reading.version()  # before reading: what is written in between is read again, not passed over
        if view is self._view and version == self._version:
            return view
        extent, changes = self._reading.read(view.through, view.manifest, through)
        if extent.last < view.through:
            raise IndexFault(
                f"{path} ends with change {extent.last}, but {view.name} holds the changes through {view.through}: the "
                "log is older (a restored backup?), and what was changed after it would be lost unseen; restore the "
                f"log and {self.folder / 'generations'} from the same copy"
            )
        if extent.dropped_through > view.through:
            raise _Behind(
                f"{path} begins after change {extent.dropped_through}, but {view.name} holds the changes through "
                f"{view.through} only: the generation is older (a restored backup?); restore the log and "
                f"{self.folder / 'generations'} from the same copy"
            )
        self._version = version
        return view.after(changes)

    def _writer(self) -> ChangeLog:
        if not self.writable:
            raise ReadOnlyFault(f"{self.folder} is opened for reading only; nothing was changed")
        with self._state:
            if self._writing is None:
                path = self.folder / CHANGES_FILE
                if not path.exists():
                    ChangeLog.create(path)
                self._writing = ChangeLog(path, writable=True, busy_seconds=self._busy_seconds)
            return self._writing

    @contextmanager
    def _transaction(self) -> Iterator[tuple[View, ChangeLog]]:
        """The newest state, which stays the newest while this is held, and the log to append to."""
        changes = self._writer()
        while True:
            self._follow(wait=True)
            with changes.transaction():
                if _stamp(self.folder) == self._seen:  # nobody publishes another from here on
                    self._check_followed()
                    yield self.view(), changes
                    return


Stamp = tuple[int, int]


def _stamp(folder: Path) -> Stamp | None:
    """Another one as soon as another generation is live."""
    try:
        status = (folder / CURRENT).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _check_vectors(documents: Sequence[Document], embeddings: NDArray[np.float32], dims: int) -> None:
    if embeddings.shape != (len(documents), dims):
        raise IndexFault(
            f"{len(documents)} documents came with embeddings of {embeddings.shape}; this index holds rows of {dims}: "
            "embed them with the bundle it was built with"
        )
    if not np.isfinite(embeddings).all():
        raise IndexFault("an embedding holds a number that is not finite; nothing was changed: check the bundle")
