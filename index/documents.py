"""Whose sentence is row 17? Ids, texts and metadata of one generation, in SQLite."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from index.manifest import IndexFault

_SCHEMA = """
CREATE TABLE documents (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL
) STRICT
"""
ROWS_PER_QUERY = 500
CACHE_KIB = 65_536


@dataclass(frozen=True)
class Document:
    """Something that can be found: an id, the text that is embedded, and a JSON object that travels with it."""

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class DuplicateId(ValueError):
    """The documents at rows ``first`` and ``row`` have the same id."""

    def __init__(self, id_: str, first: int, row: int) -> None:
        super().__init__(f"rows {first} and {row} have the id {id_!r}")
        self.id, self.first, self.row = id_, first, row


class DocumentsWriter:
    """Appends documents; row numbers count from 0 in the order of writing. The file is whole once it is closed."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        # The file is fsynced as a whole before its generation is published; a journal would protect nothing.
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")  # ids come in no order: their tree is all touched
        self._connection.execute(_SCHEMA)
        self._connection.execute("BEGIN")
        self._rows = 0

    def append(self, documents: Iterable[Document]) -> None:
        """Write the next rows. After an error, those before the one that was refused are there.

        Raises:
            DuplicateId: a document's id is already there.
        """
        for document in documents:
            metadata = json.dumps(document.metadata, ensure_ascii=False, separators=(",", ":"))
            values = (self._rows, document.id, document.text, metadata)
            # Not left to the constraint's error: without a journal, what follows an error is undefined.
            insert = "INSERT INTO documents VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            if not self._connection.execute(insert, values).rowcount:
                first = self._connection.execute("SELECT row FROM documents WHERE id = ?", (document.id,)).fetchone()[0]
                raise DuplicateId(document.id, first, self._rows)
            self._rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._connection.execute("COMMIT")
        finally:
            self._connection.close()


class Documents:
    """The documents of a published generation, read-only. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        # immutable: no lock files, so a generation may lie on a read-only disk. One connection, opened now: a later
        # build may remove the file of an old generation that is still being served.
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            # Mapped, as the embeddings are: a fifth less time for the documents of a search than reading page by page.
            self._connection.execute(f"PRAGMA mmap_size = {path.stat().st_size}")
        except sqlite3.DatabaseError as error:
            raise IndexFault(f"{path} cannot be opened ({error}); build the index again") from error
        self._lock = threading.Lock()
        self._count = int(self._select("SELECT count(*) FROM documents", ())[0][0])

    def __len__(self) -> int:
        return self._count

    def at(self, rows: Iterable[int]) -> list[Document]:
        """The documents of some rows, in the order asked."""
        wanted = list(rows)
        found: dict[int, Document] = {}
        for start in range(0, len(wanted), ROWS_PER_QUERY):
            part = wanted[start : start + ROWS_PER_QUERY]
            marks = ",".join("?" * len(part))
            selected = self._select(f"SELECT row, id, text, metadata FROM documents WHERE row IN ({marks})", part)
            objects = json.loads(f"[{','.join([row[3] for row in selected])}]")  # one call: a search waits for it
            for (row, id_, text, _), metadata in zip(selected, objects, strict=True):
                found[row] = Document(id_, text, metadata)
        return [found[row] for row in wanted]

    def metadata(self) -> Iterator[dict[str, Any]]:
        """The metadata of every row, in order, without holding them all."""
        for start in range(0, self._count, ROWS_PER_QUERY):
            query = "SELECT metadata FROM documents WHERE row >= ? AND row < ? ORDER BY row"
            for (metadata,) in self._select(query, (start, start + ROWS_PER_QUERY)):
                yield json.loads(metadata)

    def rows_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The rows of those of some ids that are here."""
        wanted = list(ids)
        found: dict[str, int] = {}
        for start in range(0, len(wanted), ROWS_PER_QUERY):
            part = wanted[start : start + ROWS_PER_QUERY]
            marks = ",".join("?" * len(part))
            found.update(self._select(f"SELECT id, row FROM documents WHERE id IN ({marks})", part))
        return found

    def _select(self, query: str, values: Sequence[Any]) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise IndexFault(f"documents.sqlite cannot be read ({error}); build the index again") from error
