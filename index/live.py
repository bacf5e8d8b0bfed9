"""What can be found right now? The live generation, and every change since, of whichever process it came."""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index.asked import aim_after
from index.changes import BUSY_SECONDS, CHANGES_FILE, Change, ChangeLog, written
from index.compaction import fold
from index.contract import Status
from index.documents import Document
from index.generations import CURRENT, Generation, current_name, live_home, new_generation
from index.manifest import BusyFault, EncoderIdentity, GenerationManifest, IndexFault, ReadOnlyFault, Verify
from index.nearest import HeadVectors
from index.shards import replaced_through
from index.view import View

OPENING = "generations"
"""The thread that opens the generations of others, where searches do not wait for it."""
SECONDS_AFTER_A_FAULT = 30.0
"""Then a generation is opened again that a fault of the system, which may have passed, kept from being served."""

log = logging.getLogger("dse")


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
        # looked at in every search; made here, since pathlib takes longer to make a path than the system to look
        self._current, self._log_path = folder / CURRENT, folder / CHANGES_FILE
        self._encoder, self._busy_seconds, self._head = encoder, busy_seconds, head
        self._reading: ChangeLog | None = None
        self._writing: ChangeLog | None = None
        self._state = threading.RLock()  # held for moments
        self._opening = threading.Lock()  # held while a generation is made or opened, which takes its time
        self._beside = False  # are the generations of others opened in a thread of its own?
        self._seen: Stamp | None = stamp  # CURRENT when it was last followed
        self._refused: IndexFault | None = None  # why the generation it names is not the one in the view
        self._again_at: float | None = None  # when that one is tried again, if what was wrong may have passed
        self._version = -1  # of the log when it was last read
        self._written: list[tuple[int, int]] = []  # what the log was when it was last opened for reading
        self._known: tuple[int, bytes] | None = None  # the last change that was read or written, and its digest
        self._replaced: list[ChangeLog] = []  # logs that another file took the place of, closed at the end
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
            stamp = _stamp(folder / CURRENT)
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
                if _stamp(folder / CURRENT) == stamp:
                    raise
            else:
                return live

    def view(self) -> View:
        """The state as of now: what any process has written before this call is in it.

        Raises:
            IndexFault: the change log is damaged, gone, or has been replaced by one that does not hold what was read.
        """
        wait = False
        while True:
            self._check_log()
            self._follow(wait)
            with self._state:
                if self._refused is not None:
                    return self._view
                try:
                    self._view = self._caught_up(self._view)
                    return self._view
                except _Behind as behind:
                    if _stamp(self._current) == self._seen:
                        raise IndexFault(str(behind)) from behind
            wait = True

    def open_beside(self) -> None:
        """From now on, open the generations that others publish in a thread of its own: no search waits for one."""
        self._beside = True

    @property
    def away(self) -> None:
        """A folder is where it is."""

    @property
    def stays_because(self) -> str | None:
        """Why the generation that is live now is not served here, and the one before cannot be changed; None: it is."""
        return None if self._refused is None else str(self._refused)

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
            check_vectors(documents, embeddings, view.manifest.dims)
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
            with new_generation(self.folder) as home:  # within it nobody else publishes one
                if self._view.name != current_name(self.folder):
                    self._seen = None  # whatever was followed: what is folded is the live one
                self._take_up()
                self._check_followed()
                view = self.view()
                facts, aim = view.manifest, aim_after(view.manifest, live_home(self.folder))
                fold(view, home, facts.encoder, facts.dims, view.embeddings, aim, self._head)
                generation = Generation.read(home, self._head, self._verify)
            stamp = _stamp(self._current)
            if current_name(self.folder) == generation.name:  # looked at after the stamp: another may be live by now
                self._swap(generation, stamp)
        finally:
            self._opening.release()
        self._drop_folded()
        return self.view()

    def reload(self) -> View:
        """Take up the generation that is live now, and the log that is there, be it another than was read.

        Raises:
            IndexFault: one of them cannot be opened, or is of another encoder; what was served before still is.
        """
        with self._state:
            if self._refused is not None:
                self._seen = None  # try that one again
            self._read_again()
            if self._reading is not None and not self._continues(self._reading):
                if self.writable and not self._reading.path.exists():
                    self._check_log()
                self._reading.close()
                self._reading, self._known, self._version, self._seen = None, None, -1, None
        self._follow(wait=True)
        self._check_followed()
        return self.view()

    def close(self) -> None:
        """Let go of the change log."""
        for opened in (self._reading, self._writing, *self._replaced):
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
        a state that the index has been in. So do all where generations are opened beside the searches.
        """
        if self._again_at is not None and time.monotonic() >= self._again_at:
            self._seen, self._again_at = None, None
        if _stamp(self._current) == self._seen or not self._opening.acquire(blocking=wait):
            return
        if self._beside and not wait:
            try:
                threading.Thread(target=self._open_new, name=OPENING, daemon=True).start()
            except BaseException:
                self._opening.release()
                raise
        else:
            self._open_new()

    def _open_new(self) -> None:
        """Take up what is live, and let others do so again; the caller has seen to it that nobody does."""
        try:
            self._take_up()
        finally:
            self._opening.release()

    def _take_up(self) -> None:
        while (stamp := _stamp(self._current)) != self._seen:
            try:
                self._swap(Generation.open(self.folder, self._encoder, self._head, self._verify), stamp)
            except IndexFault as error:
                if _stamp(self._current) == stamp:
                    log.warning("the new generation cannot be served, the one before stays: %s", error)
                    with self._state:
                        self._read_again()
                        with suppress(IndexFault, _Behind):  # the last state of the one before
                            through = GenerationManifest.read(live_home(self.folder)).changes_through
                            self._view = self._caught_up(self._view, through)
                        self._seen, self._refused = stamp, error
                        if isinstance(error.__cause__, OSError | MemoryError):
                            self._again_at = time.monotonic() + SECONDS_AFTER_A_FAULT

    def _swap(self, generation: Generation, stamp: "Stamp | None") -> None:
        with self._state:
            self._read_again()
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

    def _check_log(self) -> None:
        """Look whether the log is still the file that was read; if it is another, go on with that if it goes on."""
        with self._state:
            if self._reading is None:
                return
            if self._reading.in_place():
                if self._reading.immutable and written(self._log_path) != self._written:
                    self._read_again()
                return
            path, folded = self._reading.path, self._view.manifest.changes_through
            if not path.exists():
                through = max(self._view.through, self._known[0] if self._known else 0)
                raise IndexFault(
                    f"{path} has been removed while it was open; it held changes through {through}, and "
                    f"{self._view.name} holds those through {folded} only: put it back, or restore {self.folder} from "
                    "a copy and have that taken up (POST /v1/index/reload, or start again)"
                )
            log.warning("%s is another file than the one that was open", path)
            opened = self._opened_log()
            self._replaced.append(self._reading)
            self._reading, self._version = opened, -1

    def _opened_log(self) -> ChangeLog:
        self._written = written(self._log_path)  # before it is opened: what is written in between is looked at again
        return ChangeLog(self._log_path, writable=False, busy_seconds=self._busy_seconds)

    def _read_again(self) -> None:
        """Open a log once more whose later changes would not be seen; if it cannot be, once it is written again."""
        if self._reading is None or not self._reading.immutable:
            return
        try:
            opened = self._opened_log()
        except IndexFault as error:
            log.warning("what was written to the log cannot be read yet: %s", error)
            return
        self._reading.close()
        self._reading, self._version = opened, -1
        if self._refused is not None:
            self._seen = None  # perhaps for want of that

    def _continues(self, changes: ChangeLog) -> bool:
        """Is the last change that is known in this log, unless it is folded into a generation?"""
        if not changes.in_place():
            return False
        if self._known is None:
            return True
        sequence, expected = self._known
        digest = changes.digest(sequence)
        # Looked at after the change itself, which might be dropped between the two.
        return digest == expected or (digest is None and sequence <= changes.extent().dropped_through)

    def _remember(self, sequence: int, digest: bytes | None) -> None:
        if digest is not None and (self._known is None or self._known[0] < sequence):
            self._known = sequence, digest

    def _caught_up(self, view: View, through: int | None = None) -> View:
        """A view with the changes after it, as far as ``through``."""
        path = self._log_path
        if self._reading is None:
            if not os.access(path, os.F_OK):  # without the exception that exists() catches, in every search
                return view
            self._reading = self._opened_log()
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
        if not self._continues(self._reading):
            raise IndexFault(
                f"{path} is not the log that was read: it lacks change {self._known[0] if self._known else 0}, or has "
                "another one (a restored backup?), and what was changed after that backup would be lost unseen. Put "
                "the log back; or, to go on with what is there now, POST /v1/index/reload, or start again"
            )
        if changes:
            self._remember(view.through + len(changes), self._reading.digest(view.through + len(changes)))
        caught_up = view.after(changes)
        self._version = version
        return caught_up

    def _writer(self) -> ChangeLog:
        if not self.writable:
            raise ReadOnlyFault(f"{self.folder} is opened for reading only; nothing was changed")
        with self._state:
            if self._writing is not None and not self._writing.in_place():
                self._check_log()
                self._replaced.append(self._writing)  # closed at the end: another thread may be about to write
                self._writing = None
            if self._writing is None:
                if not self._log_path.exists():
                    ChangeLog.create(self._log_path)
                self._writing = ChangeLog(self._log_path, writable=True, busy_seconds=self._busy_seconds)
            return self._writing

    @contextmanager
    def _transaction(self) -> Iterator[tuple[View, ChangeLog]]:
        """The newest state, which stays the newest while this is held, and the log to append to."""
        written = False
        while not written:
            changes = self._writer()
            self._follow(wait=True)
            with changes.transaction():
                # Nobody publishes another generation from here on.
                if changes.in_place() and _stamp(self._current) == self._seen:
                    self._check_followed()
                    yield self.view(), changes
                    last = changes.extent().last
                    digest = changes.digest(last)
                    written = True
        if not changes.in_place():
            raise IndexFault(
                f"{changes.path} was replaced while it was written: what was written may be lost; do it again"
            )
        with self._state:
            self._remember(last, digest)


Stamp = tuple[int, int]


def _stamp(current: Path) -> Stamp | None:
    """Another one as soon as another generation is live."""
    try:
        status = current.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def check_vectors(documents: Sequence[Document], embeddings: NDArray[np.float32], dims: int) -> None:
    """See that embeddings fit an index, and their documents.

    Raises:
        IndexFault: they do not; nothing may be written.
    """
    if embeddings.shape != (len(documents), dims):
        raise IndexFault(
            f"{len(documents)} documents came with embeddings of {embeddings.shape}; this index holds rows of {dims}: "
            "embed them with the bundle it was built with"
        )
    if not np.isfinite(embeddings).all():
        raise IndexFault("an embedding holds a number that is not finite; nothing was changed: check the bundle")
