"""Where do documents come from? .jsonl, .csv, .tsv, .parquet, .txt or standard input, one at a time."""

import csv
import gzip
import io
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Literal, Self

from index.documents import Document
from index.durable import fsync
from index.files import InputFile, files_at
from index.files import SourceError as SourceError

MAX_CELL = 2**31 - 1  # characters; the csv module stops at 131,072 unless told
MAX_METADATA_DEPTH = 64
STANDARD_INPUT = "-"


class BadLine(SourceError):
    """One line that is not a document, in a file that can be read on behind it; the message says why."""


@dataclass(frozen=True)
class Columns:
    """Which column, or JSON field, holds the id and which the text; other columns of a table are metadata."""

    id: str = "id"
    text: str = "text"


@dataclass(frozen=True)
class SourcedDocument:
    """A document and the place it came from, for messages: ``sentences.jsonl:17``."""

    document: Document
    place: str
    line: str | None = None  # as it stands in the file, where the file has lines


class Rejects:
    """Lines that were passed over: counted, and written to a file of JSON lines if one is named.

    The file takes its place once all lines were read, whatever becomes of the index.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the file.

        Raises:
            SourceError: it cannot be written. Said at once, before anything is read.
        """
        self.count = 0
        self._path, self._file = path, None
        if path is not None:
            if path.exists() and not path.is_file():
                raise SourceError(f"{path} cannot be written: it is there, and no file")
            try:
                # Without a name until it is whole, so that nothing is left of a build that is killed
                self._file = TemporaryFile("w+", encoding="utf-8", newline="\n", dir=path.parent)  # noqa: SIM115
            except OSError as error:
                raise SourceError(f"{path} cannot be written: {error.strerror}") from error

    def add(self, place: str, reason: str, line: str | None) -> None:
        """Count a line, and write down where it was, what was wrong with it, and the line itself."""
        self.count += 1
        if self._file is not None:
            # ASCII: a line may hold half of a surrogate pair
            self._file.write(json.dumps({"place": place, "reason": reason, "line": line}) + "\n")

    def save(self) -> None:
        """All lines were read: put the file in its place, durably."""
        if self._file is not None and self._path is not None:
            whole = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
            self._file.seek(0)
            try:
                with whole.open("w", encoding="utf-8", newline="\n") as file:
                    shutil.copyfileobj(self._file, file)
                fsync(whole)
                whole.replace(self._path)
            finally:
                whole.unlink(missing_ok=True)
            fsync(self._path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class _Line:
    """A line, or a row, that is yet to be read as a document."""

    place: str
    raw: str | None
    parse: Callable[[], Document]  # raises BadLine


class Inputs:
    """Every document of some inputs, in order, without holding more than one in memory.

    An input is a file, a folder of shards, or a URL of either (:func:`~index.files.files_at`). A document without an
    id is given its place as one: ``folder/name.txt:17``, the path as it was given. A line of .txt is a document. ``-``
    reads JSON lines from standard input. Iterating raises :class:`SourceError` where an input is missing, empty, of an
    unknown kind or broken, and, unless there are rejects to put it among, where a line is not a document.
    """

    def __init__(
        self, inputs: Sequence[str | Path], columns: Columns = Columns(), rejects: Rejects | None = None
    ) -> None:
        self._inputs, self._columns, self._rejects = [str(given) for given in inputs], columns, rejects
        self._done = 0  # bytes of the inputs that are behind
        self._tell: Callable[[], int] = int  # where in the present one we are

    def share_read(self) -> float | None:
        """How much of the inputs' bytes has been read, 0..1; None if that is not known, as of standard input."""
        if STANDARD_INPUT in self._inputs:
            return None
        try:
            sizes = [file.size() for _, files in self._files for file in files]
        except (OSError, SourceError):
            return None
        total = sum(size for size in sizes if size)
        return min(1.0, (self._done + self._tell()) / total) if total and None not in sizes else None

    def __iter__(self) -> Iterator[SourcedDocument]:
        for given, files in self._files:
            found = False
            with closing(self._lines(files)) as lines:  # now, not when the garbage is collected
                for line in lines:
                    found = True
                    try:
                        document = line.parse()
                    except BadLine as error:
                        if self._rejects is None:
                            raise SourceError(f"{line.place}: {error}") from error
                        self._rejects.add(line.place, str(error), line.raw)
                        continue
                    yield SourcedDocument(document, line.place, line.raw)
            if not found:
                raise SourceError(f"{given}: no documents in it")

    @cached_property
    def _files(self) -> list[tuple[str, list[InputFile]]]:
        """Of each input; standard input is none."""
        return [(given, [] if given == STANDARD_INPUT else files_at(given)) for given in self._inputs]

    def _lines(self, files: Sequence[InputFile]) -> Generator[_Line]:
        if not files:
            yield from self._of_standard_input()
        for file in files:
            try:
                with file.open() as raw:
                    self._tell = raw.tell
                    yield from self._of(file, raw)
                self._tell = int
                self._done += file.size() or 0
            except OSError as error:
                raise SourceError(f"{file.name}: {error.strerror or error}") from error

    def _of_standard_input(self) -> Iterator[_Line]:
        if sys.stdin is None or sys.stdin.closed:
            raise SourceError("standard input is closed; give a file, or pipe JSON lines into it")
        stream = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", newline="\n")
        yield from _json_lines(stream, "standard input", self._columns)

    def _of(self, file: InputFile, raw: IO[bytes]) -> Iterator[_Line]:
        if file.kind == ".parquet":
            yield from _parquet(raw, file.name, self._columns)
            return
        plain: Any = gzip.GzipFile(fileobj=raw) if file.kind.endswith(".gz") else raw
        kind = file.kind.removesuffix(".gz")
        newline = "" if kind in (".csv", ".tsv") else "\n"
        with io.TextIOWrapper(plain, "utf-8-sig", newline=newline) as lines:
            if kind == ".jsonl":
                yield from _json_lines(lines, file.name, self._columns)
            elif kind == ".txt":
                yield from _text_lines(lines, file.name)
            else:
                yield from _table(lines, file.name, self._columns, "\t" if kind == ".tsv" else ",")
        if plain is not raw and not raw.tell():
            raise SourceError(f"{file.name}: an empty file is no gzip: it was cut off; copy it again, or remove it")


def read_documents(inputs: Sequence[str | Path], columns: Columns = Columns()) -> Iterator[SourcedDocument]:
    """Every document of the inputs, in order; a line that is not one is an error.

    Raises:
        SourceError: an input is missing, empty, of an unknown kind, or has a line that is not a document.
    """
    return iter(Inputs(inputs, columns))


def _decoded(lines: Iterable[str], name: str) -> Iterator[tuple[int, str]]:
    """Lines counted from 1; a byte that is not UTF-8, or an archive that breaks off, is an error with its place."""
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            yield number, line
    except UnicodeDecodeError as error:
        raise SourceError(f"{name}: after line {number}: not UTF-8 ({error.reason})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{name}: after line {number}: not a whole gzip file ({error})") from error


def _json_lines(lines: Iterable[str], name: str, columns: Columns) -> Iterator[_Line]:
    for number, line in _decoded(lines, name):
        if line.strip():
            place = f"{name}:{number}"
            yield _Line(place, line.rstrip("\r\n"), partial(_json_document, line, place, columns))


def _json_document(line: str, place: str, columns: Columns) -> Document:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise BadLine("not a JSON object")
    metadata = entry.pop("metadata", {})
    if not isinstance(metadata, dict):
        raise BadLine("metadata is not a JSON object")
    id_ = entry.pop(columns.id, place)
    text = entry.pop(columns.text, None)
    if entry:
        raise BadLine(f"unknown fields {sorted(entry)}; a line holds {columns.id!r}, {columns.text!r} and 'metadata'")
    return _document(id_, text, metadata, columns)


def _text_lines(lines: Iterable[str], name: str) -> Iterator[_Line]:
    for number, line in _decoded(lines, name):
        if text := line.strip():
            place = f"{name}:{number}"
            yield _Line(place, line.rstrip("\r\n"), partial(_document, place, text, {}, Columns()))


def _table(lines: Iterable[str], name: str, columns: Columns, delimiter: str) -> Iterator[_Line]:
    # A tab-separated file has no quoting here: a quotation mark is an ordinary character.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    csv.field_size_limit(MAX_CELL)
    raw: list[str] = []  # the lines of the row that is being read: a quoted cell may hold several

    def kept() -> Iterator[str]:
        for _, line in _decoded(lines, name):
            raw.append(line)
            yield line

    reader = csv.reader(kept(), delimiter=delimiter, quoting=quoting, strict=True)
    names: list[str] | None = None
    while True:
        raw.clear()
        try:
            row = next(reader, None)
        except csv.Error as error:
            place, whole = f"{name}:{reader.line_num}", "".join(raw).rstrip("\r\n")
            if names is None or "end of data" in str(error):  # all that follows was read as one cell
                hint = " (a quotation mark is not closed)" if "end of data" in str(error) else ""
                raise SourceError(f"{name}: after line {reader.line_num}: {error}{hint}") from error
            yield _Line(place, whole, partial(_refused, f"not a row of a table ({error})"))
            continue
        if row is None:
            break
        if names is None:
            names = row
            _check_header(names, name, columns)
        elif row:
            place, whole = f"{name}:{reader.line_num}", "".join(raw).rstrip("\r\n")
            yield _Line(place, whole, partial(_table_document, names, row, place, columns))
    if names is None:
        _check_header([], name, columns)


def _refused(reason: str) -> Document:
    raise BadLine(reason)


def _check_header(names: list[str], name: str, columns: Columns) -> None:
    if repeated := sorted({column for column in names if names.count(column) > 1}):
        raise SourceError(f"{name}: the header names {repeated} twice; rename one")
    if columns.text not in names:
        raise SourceError(f"{name}: no column {columns.text!r} among {names}; name it with --text-column")


def _table_document(names: list[str], values: list[str], place: str, columns: Columns) -> Document:
    if len(values) != len(names):
        raise BadLine("not as many columns as the header")
    row: dict[str, Any] = dict(zip(names, values, strict=True))
    text, id_ = row.pop(columns.text), row.pop(columns.id, place)
    return _document(id_, text, row, columns)


def _parquet(raw: IO[bytes], name: str, columns: Columns) -> Iterator[_Line]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise SourceError(
            f"{name}: reading Parquet needs the extra: pip install '.[parquet]' (in DSE's folder)"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(raw) as file:
            _check_header(file.schema_arrow.names, name, columns)
            for batch in file.iter_batches():
                for row in range(len(batch)):
                    number += 1
                    place = f"{name}:{number}"
                    yield _Line(place, None, partial(_parquet_document, batch, row, place, columns))
    except ArrowException as error:
        raise SourceError(f"{name}: not a Parquet file that can be read ({_first_line(error)})") from error


def _parquet_document(batch: Any, row: int, place: str, columns: Columns) -> Document:
    try:
        values = {name: batch.column(i)[row].as_py() for i, name in enumerate(batch.schema.names)}
    except (ValueError, OverflowError) as error:
        raise BadLine(f"a value has no place in JSON ({_first_line(error)}); cast or drop its column") from error
    text, id_ = values.pop(columns.text), values.pop(columns.id, place)
    return _document(id_, text, values, columns)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _document(id_: Any, text: Any, metadata: dict[str, Any], columns: Columns) -> Document:
    if isinstance(id_, int) and not isinstance(id_, bool):
        id_ = str(id_)
    for name, value in ((columns.id, id_), (columns.text, text)):
        if not isinstance(value, str):
            raise BadLine(f"{name!r} is missing or not a string")
        if not value.strip():
            raise BadLine(f"{name!r} is empty")
        if problem := unusable(value):
            raise BadLine(f"{name!r} holds {problem}")
    if problem := unusable_metadata(metadata):
        raise BadLine(f"metadata {problem}")
    return Document(id_, text, metadata)


def _depth(value: Any) -> int:
    """Levels of lists and objects in a JSON value, without recursion: deep values are what it is here to find."""
    level, deepest = [value], 0
    while level := [
        child
        for parent in level
        if isinstance(parent, dict | list)
        for child in (parent.values() if isinstance(parent, dict) else parent)
    ]:
        deepest += 1
    return deepest


def unusable_metadata(metadata: dict[str, Any]) -> str | None:
    """What makes metadata such that it cannot be stored or sent, or None."""
    for name, value in metadata.items():
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return f"is not JSON: {name!r} ({_first_line(error)}); make it a string, or drop it"
    if _depth(metadata) > MAX_METADATA_DEPTH:
        return f"is nested more than {MAX_METADATA_DEPTH} levels deep; flatten it"
    return None


def unusable(text: str) -> str | None:
    """What makes a text one that cannot be stored or sent, or None."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair, which is no character"
    return None
