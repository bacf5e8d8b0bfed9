"""What changed since the live generation was published? A durable log of upserts and deletes, in SQLite."""

import errno
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.documents import Document
from index.durable import fsync
from index.manifest import BusyFault, EncoderIdentity, GenerationManifest, IndexFault, ReadOnlyFault

CHANGES_FILE = "changes.sqlite"
BUSY_SECONDS = 10.0
"""How long a transaction waits for that of another process."""

_FORMAT = 1
_SCHEMA = """
CREATE TABLE log (format INTEGER NOT NULL, dropped_through INTEGER NOT NULL, last INTEGER NOT NULL) STRICT;
CREATE TABLE changes (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    text TEXT,
    metadata TEXT,
    vector BLOB,
    encoder TEXT,
    digest BLOB NOT NULL
) STRICT;
"""  # a delete has neither text nor metadata, vector or encoder


@dataclass(frozen=True)
class Change:
    """An upsert; or, with neither document nor vector, the delete of an id."""

    id: str
    document: Document | None = None
    vector: NDArray[np.float32] | None = None  # (dim,)


@dataclass(frozen=True)
class Extent:
    """Which changes a log holds: those after ``dropped_through``, up to ``last``, without a gap."""

    dropped_through: int
    last: int


class ChangeLog:
    """The log of an index folder. Safe to use from several threads, and beside other processes.

    Sequence numbers count from 1 and are never given twice, whatever is dropped. A row is checked when it is read.

    Attributes:
        immutable: what is written from now on is not seen: nobody could write when it was opened. See :func:`written`.
    """

    def __init__(self, path: Path, writable: bool, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._busy_seconds = busy_seconds
        self._lock = threading.RLock()
        self._identity = _identity(path)
        self.immutable = False
        with self._faults():
            self._connection = self._connect("rw" if writable else "ro")
            try:
                # FULL: a transaction is on the disk when its COMMIT returns.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._extent()
            except sqlite3.OperationalError as error:
                self._connection.close()
                if writable or not _is_alone(path) or _code(error) not in _CANNOT_WRITE:
                    raise
                # Not even the files that SQLite shares between processes can be made here: nobody writes for now.
                self._connection, self.immutable = self._connect("ro&immutable=1"), True
                self._extent()
            except BaseException:
                self._connection.close()
                raise

    @classmethod
    def create(cls, path: Path, dropped_through: int = 0) -> None:
        """Make an empty log whose numbers go on from ``dropped_through``; one that is there already stays.

        Raises:
            IndexFault: the folder cannot be written.
        """
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            with _writing(path), _translated(path, BUSY_SECONDS):
                _remove_leftovers(path)
                partial.unlink(missing_ok=True)
                with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
                    connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
                    connection.execute("INSERT INTO log VALUES (?, ?, ?)", (_FORMAT, dropped_through, dropped_through))
                with suppress(FileExistsError):  # another process was first
                    os.link(partial, path)
                fsync(path.parent)
        finally:
            for leftover in (partial, *(partial.with_name(partial.name + end) for end in ("-wal", "-shm"))):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def in_place(self) -> bool:
        """Is the file that was opened still the one of its name?"""
        return _identity(self.path) == self._identity

    def digest(self, sequence: int) -> bytes | None:
        """The digest of one change; None if the log does not hold it."""
        with self._lock, self._faults():
            query = "SELECT digest FROM changes WHERE sequence = ?"
            row = self._connection.execute(query, (sequence,)).fetchone()
        return None if row is None else bytes(row[0])

    def version(self) -> int:
        """A number that is another one as soon as a different connection, of any process, has written."""
        with self._lock, self._faults():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def extent(self) -> Extent:
        """Which changes there are."""
        with self._lock, self._faults():
            return self._extent()

    def read(self, after: int, manifest: GenerationManifest, through: int | None = None) -> tuple[Extent, list[Change]]:
        """What the log holds, and the changes after a sequence number, in order; both of one moment.

        Of changes that were dropped meanwhile there are none: compare ``after`` with the extent.

        Args:
            after: the last change that is known.
            manifest: whose encoder the vectors must be of.
            through: the last change to read; default: all.

        Raises:
            IndexFault: a row is missing or altered, or its vector is not of the manifest's encoder.
        """
        with self._lock, self._faults():
            self._connection.execute("BEGIN")
            try:
                extent = self._extent()
                last = extent.last if through is None else min(through, extent.last)
                query = "SELECT * FROM changes WHERE sequence > ? AND sequence <= ? ORDER BY sequence"
                rows = self._connection.execute(query, (after, last)).fetchall()
            finally:
                self._connection.execute("ROLLBACK")
        first = max(after, extent.dropped_through) + 1
        if [row[0] for row in rows] != list(range(first, last + 1)):
            raise self._damaged(f"it should hold the changes {first} to {last}, and has {len(rows)} rows")
        changes = [self._change(row) for row in rows]
        self._check_encoders({(row[5], len(row[4]) // 4) for row in rows if row[4] is not None}, manifest)
        return extent, changes

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep every other process from writing; what is appended or dropped within is durable once this is left.

        Raises:
            BusyFault: another process writes for longer than the log waits.
            IndexFault: the file cannot be written; nothing of the transaction is in it.
        """
        began = time.monotonic()
        if not self._lock.acquire(timeout=self._busy_seconds):
            raise BusyFault(_busy(self.path, "others", self._busy_seconds))
        try:
            with self._faults():
                self._wait_at_most(self._busy_seconds - (time.monotonic() - began))
                self._connection.execute("BEGIN IMMEDIATE")
                self._wait_at_most(self._busy_seconds)
            try:
                yield
                with self._faults():
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    with self._faults():
                        self._connection.execute("ROLLBACK")
                raise
        finally:
            self._lock.release()

    def _wait_at_most(self, seconds: float) -> None:
        """How long SQLite waits for another process."""
        self._connection.execute(f"PRAGMA busy_timeout = {max(0, round(1000 * seconds))}")

    def append(self, changes: Sequence[Change], encoder: EncoderIdentity) -> None:
        """Within a transaction: the next changes."""
        if not changes:
            return
        with self._faults():
            last = self._extent().last
            rows = [_row(sequence, change, encoder.digest) for sequence, change in enumerate(changes, last + 1)]
            self._connection.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._connection.execute("UPDATE log SET last = ?", (last + len(rows),))

    def drop(self, through: int) -> None:
        """Within a transaction: forget the changes up to a sequence number, which a generation now holds."""
        with self._faults():
            self._connection.execute("DELETE FROM changes WHERE sequence <= ?", (through,))
            self._connection.execute("UPDATE log SET dropped_through = max(dropped_through, ?)", (through,))

    def copy(self, path: Path) -> None:
        """Write the log as it is now to another place, as one file."""
        with self._lock, self._faults(), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            self._connection.backup(connection)

    def check_follows(self, manifest: GenerationManifest) -> None:
        """Within a transaction: may a generation become live, and this log go on from it?

        Raises:
            IndexFault: changes would be lost, or were made meanwhile with vectors of another encoder.
        """
        extent, through = self._extent(), manifest.changes_through
        if not extent.dropped_through <= through <= extent.last:
            raise IndexFault(
                f"{self.path} holds the changes {extent.dropped_through + 1} to {extent.last}, and a generation that "
                f"holds those through {through} does not fit it: what was changed after it began would be lost (a "
                "restored backup?); begin again from the live generation (dse index build --fresh)"
            )
        query = "SELECT DISTINCT encoder, length(vector) / 4 FROM changes WHERE sequence > ? AND vector IS NOT NULL"
        with self._faults():
            self._check_encoders(set(self._connection.execute(query, (through,))), manifest)

    def _check_encoders(self, made_by: set[tuple[str, int]], manifest: GenerationManifest) -> None:
        if others := sorted(made_by - {(manifest.encoder.digest, manifest.dims)}):
            digest, dims = others[0]
            raise IndexFault(
                f"{self.path} holds changes whose vectors were made by another encoder ({digest}, {dims} dimensions), "
                f"not by {manifest.encoder.name} ({manifest.encoder.digest}, {manifest.dims}); to move an index to "
                "another encoder and keep what is changed meanwhile: dse index rebuild"
            )

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False, uri=True)

    def _extent(self) -> Extent:
        rows = self._connection.execute("SELECT format, dropped_through, last FROM log").fetchall()
        if len(rows) != 1 or rows[0][0] != _FORMAT or not 0 <= rows[0][1] <= rows[0][2]:
            raise self._damaged(f"its state is {rows}")
        return Extent(rows[0][1], rows[0][2])

    def _change(self, row: tuple[Any, ...]) -> Change:
        sequence, id_, text, metadata, vector, _, digest = row
        actual = _digest(row[:-1])
        if actual != digest:
            raise self._damaged(
                f"change {sequence} has been altered: its sha256 is {actual.hex()}, the row says {bytes(digest).hex()}"
            )
        if text is None:
            return Change(id_)
        return Change(id_, Document(id_, text, json.loads(metadata)), np.frombuffer(vector, "<f4"))

    def _damaged(self, reason: str) -> IndexFault:
        return IndexFault(
            f"{self.path} is damaged: {reason}; restore the index folder from a copy (dse index snapshot makes one), "
            "or remove the file and build the index again: changes since its generation are then lost"
        )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        with _translated(self.path, self._busy_seconds):
            yield


@contextmanager
def publication(folder: Path, manifest: GenerationManifest, first: bool) -> Iterator[ChangeLog | None]:
    """Keep changes waiting while a generation takes the place of another.

    Whoever writes a change looks, in its transaction, which generation is live; so none is made for one and lands
    behind the other. The ``first`` generation of a folder has no log yet, and needs none: nobody can write.
    """
    path = folder / CHANGES_FILE
    _remove_leftovers(path)
    if not path.exists():
        if first:
            yield None
            return
        ChangeLog.create(path, manifest.changes_through)
    with closing(ChangeLog(path, writable=True)) as log, log.transaction():
        yield log


def written(path: Path) -> list[tuple[int, int]]:
    """Something else as soon as a log, or the write-ahead file beside it, has been written."""
    found = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            status = file.stat()
            found.append((status.st_size, status.st_mtime_ns))
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    """Another one for another file of the same name; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove_leftovers(path: Path) -> None:
    """Of logs that were being made, remove those whose makers are no more."""
    for leftover in path.parent.glob(f"{path.name}.*.partial*"):
        try:
            os.kill(int(leftover.name.removeprefix(f"{path.name}.").split(".")[0]), 0)
        except ProcessLookupError:
            with suppress(OSError):
                leftover.unlink()
        except (ValueError, PermissionError):  # not of our making, or of somebody else who is at it
            continue


def _row(sequence: int, change: Change, encoder: str) -> tuple[Any, ...]:
    document, vector = change.document, change.vector
    row: tuple[Any, ...] = (sequence, change.id, None, None, None, None)
    if document is not None and vector is not None:
        metadata = json.dumps(document.metadata, ensure_ascii=False, separators=(",", ":"))
        row = (sequence, change.id, document.text, metadata, np.ascontiguousarray(vector, "<f4").tobytes(), encoder)
    return (*row, _digest(row))


def _digest(fields: Sequence[Any]) -> bytes:
    """sha256 over the fields, each with its length before it so that none can pass for part of its neighbour."""
    digest = hashlib.sha256()
    for field in fields:
        content = field if isinstance(field, bytes) else b"" if field is None else str(field).encode()
        digest.update(f"{'-' if field is None else len(content)}:".encode() + content)
    return digest.digest()


def _is_alone(path: Path) -> bool:
    """No change waits in a write-ahead file beside the log."""
    wal = path.with_name(f"{path.name}-wal")
    return not wal.exists() or wal.stat().st_size == 0


_CANNOT_WRITE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _busy(path: Path, who: str, seconds: float) -> str:
    return (
        f"{path} is being written by {who}, for more than {seconds:g} s now; nothing of this was written: try it again"
    )


@contextmanager
def _translated(path: Path, busy_seconds: float) -> Iterator[None]:
    """What SQLite and the system report, as what an operator can do about it."""
    try:
        yield
    except sqlite3.Error as error:
        code = _code(error)
        if code == sqlite3.SQLITE_BUSY:
            raise BusyFault(_busy(path, "another process", busy_seconds)) from error
        if code in _CANNOT_WRITE and not (code == sqlite3.SQLITE_CANTOPEN and os.access(path.parent, os.W_OK)):
            raise ReadOnlyFault(f"{path} cannot be written ({error}); nothing was changed") from error
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            raise IndexFault(
                f"{path} cannot be read or written ({error}), and nothing was changed: free space on its disk, if "
                "it is full, or let the process open more files, and try again"
            ) from error
        raise IndexFault(
            f"{path} is damaged or no change log ({error}); restore the index folder from a copy (dse index snapshot "
            "makes one), or remove the file and build the index again: changes since its generation are then lost"
        ) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = ReadOnlyFault if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else IndexFault
        raise kind(f"{path} cannot be written ({error.strerror}); nothing was changed") from error
