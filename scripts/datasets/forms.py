"""What does a file of pairs, documents, queries or judgements look like here, and how are its rows written?"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.training.pairs import pair_rows
from scripts.console import BadInput
from scripts.lines import lines_of, objects_of

PAIR_COLUMNS = ("sentence1", "sentence2", "score")
JUDGEMENT_COLUMNS = ("query-id", "corpus-id", "score")
_TO_SPACE = dict.fromkeys([*range(32), 127], " ")  # not U+0080 to U+009F: there they are wrongly decoded letters

Row = Mapping[str, Any]
ToUniform = Callable[[Row], Row | None]
"""Makes a row of a source a row of the uniform form; None where the source gives it no label."""


@dataclass(frozen=True)
class Form:
    """One kind of file: its header, how its rows are read, and the line of a row; None leaves the row out."""

    header: str | None
    read: Callable[[Path], Iterator[Row]]
    line: Callable[[Row], str | None]


def form_of(file: str) -> Form:
    """The form of a file, by its name below the set's folder: train.tsv.gz, corpus.jsonl.gz, qrels/test.tsv."""
    if file.startswith("qrels/"):
        return JUDGEMENTS
    return {"corpus.jsonl.gz": DOCUMENTS, "queries.jsonl.gz": QUERIES}.get(file, PAIRS)


def as_is(row: Row) -> Row:
    """The source's columns are the uniform ones."""
    return row


def clean(value: object) -> str:
    """NFC, one line: every run of white space and ASCII control characters is one space, and none is at the ends.

    Raises:
        TypeError: a list or an object, which is no text.
    """
    if isinstance(value, list | dict):
        raise TypeError(f"{value!r:.40} is no text")
    return " ".join(unicodedata.normalize("NFC", "" if value is None else str(value)).translate(_TO_SPACE).split())


def _read_pairs(path: Path) -> Iterator[Row]:
    return (dict(zip(PAIR_COLUMNS, row, strict=True)) for row in pair_rows(path))


def _pair_line(row: Row) -> str:
    values = [clean(row[column]) for column in PAIR_COLUMNS]
    if not values[2]:
        raise ValueError("score is empty")
    return "\t".join(values)


def _read_objects(path: Path) -> Iterator[Row]:
    return (row for _, row in objects_of(path))


def _document_line(row: Row) -> str:
    return _object({"_id": row["_id"], "title": row.get("title"), "text": row["text"]})


def _query_line(row: Row) -> str:
    more = {name: value for name, value in row.items() if isinstance(value, str) and value}
    return _object({"_id": row["_id"], "text": row["text"]} | more)


def _object(row: Row) -> str:
    cleaned = {name: clean(value) for name, value in row.items()}
    if not cleaned["_id"]:
        raise ValueError("_id is empty")
    return json.dumps(cleaned, ensure_ascii=False)


def _read_judgements(path: Path) -> Iterator[Row]:
    for number, (place, line) in enumerate(lines_of(path)):
        values = tuple(line.split("\t"))
        if number == 0:
            if values != JUDGEMENT_COLUMNS:
                raise BadInput(f"{path}: the header is {list(values)}, not {list(JUDGEMENT_COLUMNS)}")
        elif len(values) != len(JUDGEMENT_COLUMNS):
            raise BadInput(f"{place}: {len(values)} columns, the header has {len(JUDGEMENT_COLUMNS)}")
        else:
            yield dict(zip(JUDGEMENT_COLUMNS, values, strict=True))


def _judgement_line(row: Row) -> str | None:
    """Only what was judged relevant is listed."""
    score = int(row["score"])
    return "\t".join([clean(row["query-id"]), clean(row["corpus-id"]), str(score)]) if score > 0 else None


PAIRS = Form("\t".join(PAIR_COLUMNS), _read_pairs, _pair_line)
DOCUMENTS = Form(None, _read_objects, _document_line)
QUERIES = Form(None, _read_objects, _query_line)
JUDGEMENTS = Form("\t".join(JUDGEMENT_COLUMNS), _read_judgements, _judgement_line)
