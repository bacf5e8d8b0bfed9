"""What will a build need? Bytes of disk and of memory, and time, told before it begins."""

import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index.documents import Document
from index.finish import SearchWanted
from index.manifest import IndexFault

MILLION = 1_000_000
BYTES_PER_NUMBER = 4
ROW_OVERHEAD = 48  # of SQLite: row number, lengths, two entries of the tree of ids
FILLED = 0.7  # of a page of a tree whose entries come in no order
PAGE = 4096  # of SQLite, with this much room for rows:
ROOM = 4061
COLUMNS = 3  # times the metadata: its inverted lists, sorted in parts, merged, and written


@dataclass(frozen=True)
class Needs:
    """What a build needs, estimated from its first shard."""

    documents: int
    known: bool  # False: the input has no known size, and these are the needs of a million documents
    disk: int  # bytes, at the widest
    memory: int  # bytes, at the widest
    seconds: float | None  # of embedding; None where all of it is one shard


def needs(
    first: Sequence[Document],
    documents: int | None,
    dims: int,
    recipe: str | None,
    search: SearchWanted,
    seconds_per_document: float | None,
) -> Needs:
    """Reckon from the first documents of an input what all of it will need.

    Args:
        first: documents from its beginning.
        documents: how many there are in all; None if nobody knows.
        dims: width of the embeddings.
        recipe: of the FAISS index; None: chosen by rows and memory.
        search: what the FAISS index may take.
        seconds_per_document: of embedding.

    Raises:
        IndexFault: so many do not fit into the memory that it may take.
    """
    total = MILLION if documents is None else documents
    metadata = [len(repr(document.metadata).encode()) for document in first]
    ids = [len(document.id.encode()) for document in first]
    rows = [sum(parts) + len(d.text.encode()) + ROW_OVERHEAD for d, *parts in zip(first, metadata, ids, strict=True)]
    stored = (sum(map(_paged, rows)) + sum(ids) / FILLED + COLUMNS * sum(metadata)) / len(first)
    vectors = total * dims * BYTES_PER_NUMBER
    bounded = search if documents is not None else replace(search, memory=None)  # a guess refuses nothing
    planned = bounded.plan(recipe, total, dims)
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Needs(
        documents=total,
        known=documents is not None,
        disk=int(2 * vectors + planned.index_bytes + total * stored),  # twice: the shards, and the file they become
        memory=now + planned.build_bytes,
        seconds=None if seconds_per_document is None else seconds_per_document * total,
    )


def _paged(size: int) -> float:
    """Bytes that a row of some size takes of a table: what is left of a page is less than a row."""
    return PAGE / (ROOM // size) if size <= ROOM else size + PAGE / 2


def check_disk(folder: Path, needed: Needs, there: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        folder: where it will be written; exists.
        needed: the needs of the whole build.
        there: bytes of it that a former run has written already.

    Raises:
        IndexFault: too little is free; the message has the numbers.
    """
    free = shutil.disk_usage(folder).free
    missing = needed.disk - there
    if needed.known and missing > free:
        raise IndexFault(
            f"{folder}: about {needed.documents:,} documents need about {missing:,} bytes of disk, {free:,} are free; "
            "free some, give another --output, or choose a smaller --recipe (SQ8)"
        )
