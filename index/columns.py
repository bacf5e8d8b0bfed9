"""Which rows does a filter let through? Inverted lists of all metadata, written once and read through a memory map.

``metadata.safetensors`` holds, for every path of :mod:`index.filters`, the values found there in order, and for every
value the rows that have it. A list or an object is there as the one value ``{}``, beside what it holds.
"""

import heapq
import json
import mmap
import shutil
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from index.filters import CONTAINER, MAX_PATH, AllOf, AnyOf, Compares, Condition, Exists, Filter, Not, OneOf, Rank, rank
from index.manifest import IndexFault

RUN_BYTES = 128 * 2**20
"""About how much is sorted in memory before it goes to disk."""

RUNS_PER_MERGE = 128
"""Sorted runs that are merged at once: each is an open file."""

_VALUE_BYTES, _ROW_BYTES = 400, 40  # of a value that is seen for the first time, of a row more that has it
_HEADER = "<Q"
_DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    # Offsets of path i's name, offsets of its first value; offsets of value j's JSON, of its first row.
    "paths.offsets": ("I64", np.dtype("<i8")),
    "paths.values": ("I64", np.dtype("<i8")),
    "values.offsets": ("I64", np.dtype("<i8")),
    "values.rows": ("I64", np.dtype("<i8")),
    "rows": ("U32", np.dtype("<u4")),
    "paths": ("U8", np.dtype("u1")),
    "values": ("U8", np.dtype("u1")),
}
"""The tensors, widest first so that each is aligned."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_Group = tuple[str, Any, list[int]]


def write_columns(path: Path, metadata: Iterable[Mapping[str, Any]]) -> None:
    """Write the metadata of rows 0, 1, ... as a file whose bytes depend on nothing else.

    Memory does not grow with the rows: they are sorted in runs, which lie beside ``path`` in files without a name.
    """
    with ExitStack() as open_files:

        def scratch() -> IO[bytes]:
            return open_files.enter_context(TemporaryFile(dir=path.parent))

        counted = _Counted(metadata)
        runs = [_run(groups, scratch()) for groups in _sorted_runs(counted)]
        while len(runs) > RUNS_PER_MERGE:
            runs = [
                _run(_merged(runs[start : start + RUNS_PER_MERGE]), scratch())
                for start in range(0, len(runs), RUNS_PER_MERGE)
            ]
        tensors = {name: scratch() for name in _DTYPES}
        _write_tensors(_merged(runs), tensors)
        _write_safetensors(path, tensors, counted.rows)


class MetadataColumns:
    """The metadata of a generation, opened for selection. Safe to use from several threads."""

    def __init__(self, rows: int, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._rows = rows
        self._path_offsets, self._path_values = tensors["paths.offsets"], tensors["paths.values"]
        self._value_offsets, self._value_rows = tensors["values.offsets"], tensors["values.rows"]
        self._found, self._paths, self._values = tensors["rows"], tensors["paths"], tensors["values"]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a file that :func:`write_columns` wrote.

        Raises:
            IndexFault: it is something else, or cut.
        """
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            (length,) = struct.unpack_from(_HEADER, mapped)
            start = struct.calcsize(_HEADER) + length
            header = json.loads(mapped[struct.calcsize(_HEADER) : start])
            tensors = {}
            for name, (code, dtype) in _DTYPES.items():
                entry = header[name]
                first, end = entry["data_offsets"]
                count = (end - first) // dtype.itemsize
                if entry["dtype"] != code or entry["shape"] != [count]:
                    raise ValueError(f"{name} is {entry}")
                tensors[name] = np.frombuffer(mapped, dtype, count, start + first)
            return cls(int(header["__metadata__"]["rows"]), tensors)
        except OSError as error:
            raise IndexFault(f"{path} cannot be read: {error.strerror}; build the index again") from error
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise IndexFault(f"{path} does not hold metadata columns ({error!r}); build the index again") from error

    def __len__(self) -> int:
        return self._rows

    def select(self, filter: Filter) -> NDArray[np.bool_]:
        """(rows,) which rows the filter lets through: as :meth:`index.filters.Filter.matches` says of each."""
        return self._selected(filter.condition)

    def _selected(self, condition: Condition) -> NDArray[np.bool_]:
        match condition:
            case OneOf():
                return self._one_of(condition)
            case Compares():
                return self._marked([self._compared(condition)])
            case Exists(path):
                return self._marked([self._values_of(path)])
            case Not(part):
                selected = self._selected(part)
                return np.logical_not(selected, out=selected)
            case AllOf(parts):
                selected = np.ones(self._rows, np.bool_)
                for part in parts:
                    selected &= self._selected(part)
                return selected
            case AnyOf(parts):
                selected = np.zeros(self._rows, np.bool_)
                for part in parts:
                    selected |= self._selected(part)
                return selected
        raise TypeError(f"{condition!r} is no condition of index.filters")

    def _one_of(self, condition: OneOf) -> NDArray[np.bool_]:
        values = self._values_of(condition.path)
        ranges = []
        for wanted in condition.ranks:
            at = bisect_left(values, wanted, key=self._rank)
            if at < len(values) and self._rank(values[at]) == wanted:
                ranges.append(values[at : at + 1])
        selected = self._marked(ranges)
        if rank(None) in condition.ranks:
            selected |= ~self._marked([values])  # a path that leads nowhere leads to null
        return selected

    def _compared(self, condition: Compares) -> range:
        """The values of the operand's kind on the right side of it: they are neighbours."""
        values, limit = self._values_of(condition.path), rank(condition.operand)
        kind = limit[0]
        first, end = (bisect_left(values, border, key=lambda at: self._rank(at)[0]) for border in (kind, kind + 1))
        match condition.order:
            case "$gt":
                first = bisect_right(values, limit, first, end, key=self._rank)
            case "$gte":
                first = bisect_left(values, limit, first, end, key=self._rank)
            case "$lt":
                end = bisect_left(values, limit, first, end, key=self._rank)
            case _:
                end = bisect_right(values, limit, first, end, key=self._rank)
        return values[first:end]

    def _values_of(self, path: str) -> range:
        """The numbers of the values at a path."""
        paths = range(len(self._path_offsets) - 1)
        at = bisect_left(paths, path, key=self._path)
        if at == len(paths) or self._path(at) != path:
            return range(0)
        return range(int(self._path_values[at]), int(self._path_values[at + 1]))

    def _path(self, number: int) -> str:
        return bytes(self._paths[self._path_offsets[number] : self._path_offsets[number + 1]]).decode()

    def _rank(self, value: int) -> Rank:
        return rank(json.loads(bytes(self._values[self._value_offsets[value] : self._value_offsets[value + 1]])))

    def _marked(self, ranges: Iterable[range]) -> NDArray[np.bool_]:
        """(rows,) the rows that have a value of these runs of values."""
        marked = np.zeros(self._rows, np.bool_)
        for values in ranges:
            marked[self._found[self._value_rows[values.start] : self._value_rows[values.stop]]] = True
        return marked


class _Counted:
    """Passes items on and knows how many there were."""

    def __init__(self, items: Iterable[Mapping[str, Any]]) -> None:
        self._items, self.rows = items, 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for item in self._items:
            yield item
            self.rows += 1


def entries(metadata: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every path that a filter may name, and what is there: :func:`index.filters.values_at`, for all at once."""
    for name, value in metadata.items():
        path = above + name
        if len(path) > MAX_PATH:  # no filter may name it, nor what is below
            continue
        yield path, value
        elements = value if isinstance(value, list) else ()
        for element in elements:
            yield path, element
        for holder in elements or (value,):
            if isinstance(holder, dict):
                yield from entries(holder, path + ".")


def _sorted_runs(metadata: Iterable[Mapping[str, Any]]) -> Iterator[Iterator[_Group]]:
    """Rows of each value, sorted by path and value, as many as fit in memory at once."""
    groups: dict[tuple[str, Rank], tuple[Any, list[int]]] = {}
    size = 0
    for row, found in enumerate(map(entries, metadata)):
        for path, value in found:
            key = path, rank(value)
            group = groups.get(key)
            if group is None:
                groups[key] = {} if key[1][0] == CONTAINER else value, [row]
                size += _VALUE_BYTES + len(path) + (len(value) if isinstance(value, str) else 0)
            elif group[1][-1] != row:
                group[1].append(row)
                size += _ROW_BYTES
        if size >= RUN_BYTES:
            yield _in_order(groups)
            groups, size = {}, 0
    yield _in_order(groups)


def _in_order(groups: Mapping[tuple[str, Rank], tuple[Any, list[int]]]) -> Iterator[_Group]:
    for key in sorted(groups):
        yield key[0], *groups[key]


def _run(groups: Iterable[_Group], file: IO[bytes]) -> IO[bytes]:
    """Sorted groups as JSON lines."""
    for group in groups:
        file.write(_encode(group).encode() + b"\n")
    file.seek(0)
    return file


def _merged(runs: Iterable[IO[bytes]]) -> Iterator[_Group]:
    """Groups of all runs, sorted; those of one value follow each other in the order of their rows."""
    groups = (map(json.loads, run) for run in runs)
    yield from heapq.merge(*groups, key=lambda group: (group[0], rank(group[1])))


def _write_tensors(groups: Iterable[_Group], tensors: Mapping[str, IO[bytes]]) -> None:
    def put(name: str, number: int) -> None:
        tensors[name].write(number.to_bytes(8, "little"))

    values = rows = path_bytes = value_bytes = 0
    last_path: str | None = None
    last_value: Rank | None = None
    for path, value, found in groups:
        standing = rank(value)
        if path != last_path:
            put("paths.offsets", path_bytes)
            put("paths.values", values)
            path_bytes += tensors["paths"].write(path.encode())
            last_path, last_value = path, None
        if standing != last_value:
            put("values.offsets", value_bytes)
            put("values.rows", rows)
            value_bytes += tensors["values"].write(_encode(value).encode())
            values, last_value = values + 1, standing
        tensors["rows"].write(struct.pack(f"<{len(found)}I", *found))
        rows += len(found)
    put("paths.offsets", path_bytes)
    put("paths.values", values)
    put("values.offsets", value_bytes)
    put("values.rows", rows)


def _write_safetensors(path: Path, tensors: Mapping[str, IO[bytes]], rows: int) -> None:
    """The tensors as one file: the length of a header, the header, their bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "1", "rows": str(rows)}}
    offset = 0
    for name, file in tensors.items():
        code, dtype = _DTYPES[name]
        size = file.tell()
        header[name] = {"dtype": code, "shape": [size // dtype.itemsize], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack(_HEADER, len(text)) + text)
        for tensor in tensors.values():
            tensor.seek(0)
            shutil.copyfileobj(tensor, file)
