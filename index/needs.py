"""What will a build need? Bytes of disk and of memory, and time, told before it begins."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index.documents import Document
from index.finish import SearchWanted
from index.manifest import IndexFault
from index.recipes import Plan

MILLION = 1_000_000
BYTES_PER_NUMBER = 4
ROW_OVERHEAD = 48  # of SQLite: row number, lengths, two entries of the tree of ids
FILLED = 0.7  # of a page of a tree whose entries come in no order
PAGE = 4096  # of SQLite, with this much room for rows:
ROOM = 4061
FEWER = 8
"""Times as few documents as a file's beginning lets expect may come: its first ones may be its shortest."""
COLUMNS = 3  # times the metadata: its inverted lists, sorted in parts, merged, and written


@dataclass(frozen=True)
class Needs:
    """What a build needs, estimated from its first shard."""

    documents: int
    known: bool  # False: the input has no known size, and these are the needs of a million documents
    certain: bool  # their number was counted, and not guessed from the input's beginning
    disk: int  # bytes, at the widest
    free: int  # bytes of disk that are free, or written by a former run
    memory: int  # bytes, at the widest
    seconds: float | None  # of embedding; None where all of it is one shard


def needs(
    first: Sequence[Document],
    documents: int | None,
    dims: int,
    recipe: str | None,
    search: SearchWanted,
    seconds_per_document: float | None,
    free: int,
) -> Needs:
    """Reckon from the first documents of an input what all of it will need.

    Args:
        first: documents from its beginning.
        documents: how many there are in all; None if nobody knows.
        dims: width of the embeddings.
        recipe: of the FAISS index; None: chosen by rows and memory.
        search: what the FAISS index may take.
        seconds_per_document: of embedding.
        free: bytes of disk that it may take.

    Raises:
        IndexFault: so many do not fit into the memory that it may take; nor would :data:`FEWER`, where their number is
            guessed.
    """
    total = MILLION if documents is None else documents
    metadata = [len(repr(document.metadata).encode()) for document in first]
    ids = [len(document.id.encode()) for document in first]
    rows = [sum(parts) + len(d.text.encode()) + ROW_OVERHEAD for d, *parts in zip(first, metadata, ids, strict=True)]
    stored = (sum(map(_paged, rows)) + sum(ids) / FILLED + COLUMNS * sum(metadata)) / len(first)
    vectors = total * dims * BYTES_PER_NUMBER
    certain = documents == len(first)
    planned = _planned(search if documents is not None else replace(search, memory=None), recipe, total, dims, certain)
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Needs(
        documents=total,
        known=documents is not None,
        certain=certain,
        disk=int(2 * vectors + planned.index_bytes + total * stored),  # twice: the shards, and the file they become
        free=free,
        memory=now + planned.build_bytes,
        seconds=None if seconds_per_document is None else seconds_per_document * total,
    )


def _planned(search: SearchWanted, recipe: str | None, rows: int, dims: int, certain: bool) -> Plan:
    try:
        return search.plan(recipe, rows, dims)
    except IndexFault:
        if certain:
            raise
        search.plan(recipe, max(1, rows // FEWER), dims)
        return replace(search, memory=None).plan(recipe, rows, dims)


def _paged(size: int) -> float:
    """Bytes that a row of some size takes of a table: what is left of a page is less than a row."""
    return PAGE / (ROOM // size) if size <= ROOM else size + PAGE / 2


def check_disk(folder: Path, needed: Needs) -> None:
    """Refuse to begin what the disk clearly cannot hold.

    Args:
        folder: where it will be written.
        needed: the needs of the whole build.

    Raises:
        IndexFault: too little is free, also for :data:`FEWER` documents where their number is guessed; the message has
            the numbers.
    """
    least = needed.disk if needed.certain else needed.disk // FEWER
    if needed.known and least > needed.free:
        raise IndexFault(
            f"{folder}: about {needed.documents:,} documents need about {needed.disk:,} bytes of disk, {needed.free:,} "
            "are free; free some, or give another --output"
        )
