"""Where do documents come from? .jsonl, .csv, .tsv, .parquet, .txt or standard input, one at a time."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from index.documents import Document

MAX_CELL = 2**31 - 1  # characters; the csv module stops at 131,072 unless told
MAX_METADATA_DEPTH = 64
SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".txt")


class SourceError(ValueError):
    """An input that cannot be read; the message names the file, the line and what is wrong there."""


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


def read_documents(paths: Sequence[Path], columns: Columns = Columns()) -> Iterator[SourcedDocument]:
    """Every document of the inputs, in order, without holding more than one in memory.

    A document without an id is given its place as one: ``folder/name.txt:17``, the path as it was given. A line of
    .txt is a document. ``-`` reads JSON lines from standard input.

    Raises:
        SourceError: an input is missing, empty, of an unknown kind, or has a line that is not a document.
    """
    for path in paths:
        found = False
        for document in _read(path, columns):
            found = True
            yield document
        if not found:
            raise SourceError(f"{path}: no documents in it")


def _read(path: Path, columns: Columns) -> Iterator[SourcedDocument]:
    if str(path) == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise SourceError("standard input is closed; give a file, or pipe JSON lines into it")
        yield from _json_lines(io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", newline="\n"), "standard input", columns)
        return
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SourceError(f"{path}: of a kind that is not read; give one of {', '.join(SUFFIXES)} or -")
    try:
        if suffix == ".parquet":
            yield from _parquet(path, columns)
            return
        with path.open("rb") as raw:
            lines = io.TextIOWrapper(raw, "utf-8-sig", newline="" if suffix in (".csv", ".tsv") else "\n")
            if suffix == ".jsonl":
                yield from _json_lines(lines, str(path), columns)
            elif suffix == ".txt":
                yield from _text_lines(lines, path)
            else:
                yield from _table(lines, path, columns, "\t" if suffix == ".tsv" else ",")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error


def _decoded(lines: Iterable[str], name: str) -> Iterator[tuple[int, str]]:
    """Lines counted from 1; a byte that is not UTF-8 is an error with its place."""
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            yield number, line
    except UnicodeDecodeError as error:
        raise SourceError(f"{name}: after line {number}: not UTF-8 ({error.reason})") from error


def _json_lines(lines: TextIO, name: str, columns: Columns) -> Iterator[SourcedDocument]:
    for number, line in _decoded(lines, name):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{place}: not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise SourceError(f"{place}: not a JSON object")
        metadata = entry.pop("metadata", {})
        if not isinstance(metadata, dict):
            raise SourceError(f"{place}: metadata is not a JSON object")
        id_ = entry.pop(columns.id, place)
        text = entry.pop(columns.text, None)
        if entry:
            raise SourceError(
                f"{place}: unknown fields {sorted(entry)}; a line holds {columns.id!r}, {columns.text!r} and 'metadata'"
            )
        yield _document(id_, text, metadata, place, columns)


def _text_lines(lines: Iterable[str], path: Path) -> Iterator[SourcedDocument]:
    for number, line in _decoded(lines, str(path)):
        if text := line.strip():
            place = f"{path}:{number}"
            yield _document(place, text, {}, place, Columns())


def _table(lines: Iterable[str], path: Path, columns: Columns, delimiter: str) -> Iterator[SourcedDocument]:
    # A tab-separated file has no quoting here: a quotation mark is an ordinary character.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(
        (line for _, line in _decoded(lines, str(path))), delimiter=delimiter, quoting=quoting, strict=True
    )
    try:
        names = list(reader.fieldnames or ())
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise SourceError(f"{path}: the header names {repeated} twice; rename one")
        if columns.text not in names:
            raise SourceError(f"{path}: no column {columns.text!r} among {names}; name it with --text-column")
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise SourceError(f"{place}: not as many columns as the header")
            text, id_ = row.pop(columns.text), row.pop(columns.id, place)
            yield _document(id_, text, row, place, columns)
    except csv.Error as error:
        hint = " (a quotation mark is not closed)" if "end of data" in str(error) else ""
        raise SourceError(f"{path}: after line {reader.line_num}: {error}{hint}") from error


def _parquet(path: Path, columns: Columns) -> Iterator[SourcedDocument]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise SourceError(f"{path}: reading Parquet needs the extra: pip install 'dse[parquet]'") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise SourceError(f"{path}: two columns are named {repeated}; rename one")
            if columns.text not in names:
                raise SourceError(f"{path}: no column {columns.text!r} among {names}; name it with --text-column")
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    place = f"{path}:{number}"
                    text, id_ = row.pop(columns.text), row.pop(columns.id, place)
                    yield _document(id_, text, row, place, columns)
    except ArrowException as error:
        raise SourceError(f"{path}: not a Parquet file that can be read ({_first_line(error)})") from error
    except SourceError:
        raise
    except (ValueError, OverflowError) as error:
        raise SourceError(
            f"{path}: after row {number}: a value has no place in JSON ({_first_line(error)}); cast or drop its column"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _document(id_: Any, text: Any, metadata: dict[str, Any], place: str, columns: Columns) -> SourcedDocument:
    if isinstance(id_, int) and not isinstance(id_, bool):
        id_ = str(id_)
    for name, value in ((columns.id, id_), (columns.text, text)):
        if not isinstance(value, str):
            raise SourceError(f"{place}: {name!r} is missing or not a string")
        if not value.strip():
            raise SourceError(f"{place}: {name!r} is empty")
        if problem := unusable(value):
            raise SourceError(f"{place}: {name!r} holds {problem}")
    if problem := unusable_metadata(metadata):
        raise SourceError(f"{place}: metadata {problem}")
    return SourcedDocument(Document(id_, text, metadata), place)


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
