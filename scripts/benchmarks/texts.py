"""Which texts are encoded? Short queries, sentences and paragraphs of a data folder, or the lines of a file."""

from collections.abc import Callable
from pathlib import Path

from model.spaced import spaced
from scripts.console import BadInput, read_lines
from scripts.lines import lines_of, objects_of

MIX = ("queries", "sentences", "queries", "sentences", "paragraphs")
"""Of five texts of the mix, in turn."""


def texts_of(path: Path | None, data: Path | None, kind: str, count: int) -> tuple[list[str], str]:
    """At most ``count`` texts, each once, and where they are from: a file, a text a line, else a data folder.

    Raises:
        BadInput: there is neither, there is no such kind, or it cannot be read.
    """
    if path is not None:
        lines = [line for _, line in read_lines(path, "texts")]
        return spaced(list(dict.fromkeys(lines)), count), path.name
    if data is None:
        raise BadInput("there is nothing to encode: give --texts FILE, a text a line, or --data (DSE_DATA)")
    if kind not in (*_READERS, "mix"):
        raise BadInput(f"--kind {kind}: give {', '.join(_READERS)} or mix")
    if kind != "mix":
        return spaced(_READERS[kind](data), count), kind
    turns = [spaced(_READERS[part](data), -(-count * MIX.count(part) // len(MIX))) for part in dict.fromkeys(MIX)]
    by_kind = dict(zip(dict.fromkeys(MIX), map(iter, turns), strict=True))
    mixed = [text for number in range(count) if (text := next(by_kind[MIX[number % len(MIX)]], None)) is not None]
    return list(dict.fromkeys(mixed)), "mix"


def sentences(data: Path, split: str = "test") -> list[str]:
    """The sentences of a split of STS-B, each once, of 60 characters on average."""
    rows = [line.split("\t") for line in _lines(data / "stsb" / f"{split}.tsv.gz")[1:]]
    return list(dict.fromkeys(text for row in rows for text in row[:2]))


def gold_pairs(data: Path) -> tuple[list[tuple[str, str]], list[float]]:
    """The pairs of STS-B's test split, and what people gave them."""
    rows = [line.split("\t") for line in _lines(data / "stsb" / "test.tsv.gz")[1:]]
    return [(row[0], row[1]) for row in rows], [float(row[2]) for row in rows]


def _queries(data: Path) -> list[str]:
    """What people ask an assistant: 40 characters on average."""
    return list(dict.fromkeys(line.split("\t")[0] for line in _lines(data / "clinc150" / "test.tsv.gz")[1:]))


def _paragraphs(data: Path) -> list[str]:
    """Passages of Wikipedia: 600 characters on average."""
    path = data / "boolq_passages" / "corpus.jsonl.gz"
    try:
        return list(dict.fromkeys(str(row["text"]) for _, row in objects_of(path)))
    except KeyError as error:
        raise BadInput(f"{path}: not lines of JSON with a text") from error


_READERS: dict[str, Callable[[Path], list[str]]] = {
    "queries": _queries,
    "sentences": sentences,
    "paragraphs": _paragraphs,
}


def _lines(path: Path) -> list[str]:
    try:
        return [line for _, line in lines_of(path)]
    except BadInput as error:
        raise BadInput(f"{error}; give --texts FILE, a text a line, instead") from error
