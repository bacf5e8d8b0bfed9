"""Which files does an operator mean? One, all those of a folder, or those at a URL that fsspec reads."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

TEXT_SUFFIXES = (".jsonl", ".csv", ".tsv", ".txt")
SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), ".parquet")


class SourceError(ValueError):
    """An input that cannot be read; the message names the file, the line and what is wrong there."""


@dataclass(frozen=True)
class InputFile:
    """A file to read, wherever it lies."""

    name: str  # as messages have it, and the ids of documents that bring none
    kind: str  # one of SUFFIXES
    size: Callable[[], int | None]  # a server may not say it
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def files_at(given: str) -> list[InputFile]:
    """The files of an input: itself, those below a folder in the order of their names, or those at a URL.

    Below a folder, names that begin with a dot or an underscore are passed over, as all who write shards do
    (``_SUCCESS``, ``.part-0.crc``); any other file must be of a kind that is read, for it would be missed.

    Raises:
        SourceError: there are none, they cannot be listed, or one is of a kind that is not read.
    """
    try:
        return _at_url(given) if "://" in given else _at_path(Path(given))
    except OSError as error:
        raise SourceError(f"{given}: {error.strerror or error}") from error


def _at_path(path: Path) -> list[InputFile]:
    if not path.is_dir():
        return [_local(path)]
    inner = [found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()]
    return [_local(path / name) for name in _shards(str(path), inner)]


def _local(path: Path) -> InputFile:
    name = os.fsencode(path).decode("utf-8", "backslashreplace")  # a name need not be text
    return InputFile(name, _kind(name), lambda: path.stat().st_size, lambda: path.open("rb"))


def _at_url(url: str) -> list[InputFile]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # what speaks the protocol is not installed, or nothing does
        raise SourceError(f"{url}: {error}") from error
    if "*" in path:
        found = sorted(system.glob(path))
    elif system.isdir(path):
        names = [name.removeprefix(path).lstrip("/") for name in system.find(path)]
        found = [f"{path.rstrip('/')}/{name}" for name in _shards(url, names)]
    else:
        found = [path]
    if not found:
        raise SourceError(f"{url}: no such files")
    return [
        InputFile(
            name := system.unstrip_protocol(one),
            _kind(name),
            partial(system.size, one),
            partial(system.open, one, "rb"),
        )
        for one in found
    ]


def _shards(folder: str, names: Iterable[str]) -> list[str]:
    """Of the files below a folder, those that are meant to be read, in order."""
    shown = sorted(name for name in names if not any(part[0] in "._" for part in PurePosixPath(name).parts))
    if not shown:
        raise SourceError(f"{folder}: no files in it")
    return shown


def _kind(name: str) -> str:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    kind = "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])
    if kind not in SUFFIXES:
        raise SourceError(f"{name}: of a kind that is not read; give one of {', '.join(SUFFIXES)} or -")
    return kind
