"""What do the lines of a data file say? Gzip or plain, each with its place, for messages."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from index.sources import unusable
from scripts.console import BadInput


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Place and content of each line that is not blank, without what ends it, nor the mark that a file may begin with.

    Raises:
        BadInput: the file cannot be read.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: {error}") from error


def objects_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and fields of each line, which is a JSON object.

    Raises:
        BadInput: one is not, or holds what is no text; or the file cannot be read.
    """
    for place, line in lines_of(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{place}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadInput(f"{place}: not a JSON object")
        for name, value in row.items():
            if isinstance(value, str) and (problem := unusable(value)):
                raise BadInput(f"{place}: {name!r} holds {problem}")
        yield place, row
