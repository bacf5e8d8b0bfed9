"""Where do a million real sentences come from? Every sentence of a data folder, each once, always in the same order."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.console import BadInput
from scripts.lines import lines_of, objects_of

BUCKETS = 10_000
"""Each document has a ``bucket`` below this, by its id's digest: any share of them can be filtered for."""

LONGEST = 500  # characters; what is longer is no sentence


def documents(data: Path, count: int) -> Iterator[dict[str, Any]]:
    """The first ``count`` sentences: those of ``data/corpus``, then the sides of the pairs in the sets beside it.

    Raises:
        BadInput: there is no such folder, a file cannot be read, or there are fewer sentences; raised at the end then.
    """
    if not data.is_dir():
        raise BadInput(f"{data} is not a folder; give the one that holds corpus/ and the pair sets")
    written = 0
    seen: set[bytes] = set()
    for source, sentence in _sentences(data):
        text = " ".join(sentence.split())
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if not text or len(text) > LONGEST or digest in seen:
            continue
        seen.add(digest)
        id_ = f"{source}/{written}"
        bucket = int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8]) % BUCKETS
        yield {"id": id_, "text": text, "metadata": {"source": source, "bucket": bucket}}
        written += 1
        if written == count:
            return
    raise BadInput(f"{data} holds {written:,} sentences of at most {LONGEST} characters; give --count as many or fewer")


def _sentences(data: Path) -> Iterator[tuple[str, str]]:
    """Every sentence with the name of its source, repeats included."""
    for path in _files(data / "corpus", ".txt"):
        yield from ((_name(path), line) for _, line in lines_of(path))
    for path in _files(data / "corpus", ".jsonl"):
        yield from ((_name(path), sentence) for sentence in _captions_and_titles(path))
    for folder in sorted(path for path in data.iterdir() if path.is_dir() and path.name != "corpus"):
        for path in _files(folder, ".tsv"):
            yield from ((folder.name, sentence) for sentence in _sides(path))


def _captions_and_titles(path: Path) -> Iterator[str]:
    for place, row in objects_of(path):
        captions = row.get("captions", [])
        if not isinstance(captions, list):
            raise BadInput(f"{place}: its captions are no list")
        found = [*captions, row.get("title")]
        yield from (sentence for sentence in found if isinstance(sentence, str))


def _sides(path: Path) -> Iterator[str]:
    """Both sentences of each pair; nothing of a file of another kind."""
    lines = lines_of(path)
    _, header = next(lines, ("", ""))
    if header.split("\t")[:2] == ["sentence1", "sentence2"]:
        for _, line in lines:
            yield from line.split("\t")[:2]


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.removesuffix(".gz").endswith(suffix))


def _name(path: Path) -> str:
    return path.name.partition(".")[0]
