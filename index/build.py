"""The offline job: documents in, one published generation out."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from index.columns import write_columns
from index.documents import Documents, DocumentsWriter, DuplicateId
from index.finish import AS_IT_COMES, SearchWanted, make_search
from index.generations import (
    CANDIDATES_FILE,
    DOCUMENTS_FILE,
    EMBEDDINGS_FILE,
    FILES,
    METADATA_FILE,
    last_change,
    new_generation,
)
from index.manifest import MANIFEST, EncoderIdentity, GenerationManifest, sha256_of
from index.sources import SourcedDocument, SourceError

DOCUMENTS_PER_SHARD = 4096

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to (texts, dim) unit embeddings."""


def build(
    documents: Iterable[SourcedDocument],
    encode: Encode,
    dims: int,
    encoder: EncoderIdentity,
    folder: Path,
    recipe: str | None = "Flat",
    progress: Callable[[int], None] = lambda documents: None,
    search: SearchWanted = AS_IT_COMES,
    stage: Callable[[str], None] = lambda words: None,
) -> GenerationManifest:
    """Embed documents and publish them as the next generation of the index in ``folder``.

    Documents stream through in shards, so memory does not grow with the input (a flat FAISS index of it must fit).
    Until the last step the index is as it was before; after an error nothing of the new generation is left.

    Args:
        documents: what to index; at least one.
        encode: the encoder, as a function.
        dims: width of its embeddings.
        encoder: its identity, which the index will insist on.
        folder: the index, new or existing.
        recipe: a FAISS ``index_factory`` string; None: chosen by rows and memory.
        progress: told the number of documents after each shard.
        search: what it may take, and what it must be shown to find.
        stage: told what is done after that.

    Raises:
        SourceError: an input is broken, there is none, or two documents have one id.
        IndexFault: not a known recipe, the search is not shown to find what it must, or the folder cannot be written.
    """
    search.check(recipe, dims)
    started = time.monotonic()
    with new_generation(folder) as home:
        through = last_change(folder)  # of the documents that these replace; what comes from here on is kept
        count = _write_rows(documents, encode, dims, home, progress)
        if not count:
            raise SourceError("no documents to index")
        embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
        write_columns(home / METADATA_FILE, Documents(home / DOCUMENTS_FILE).metadata())
        facts, measured = make_search(embeddings, home / CANDIDATES_FILE, recipe, search, stage)
        manifest = GenerationManifest(
            documents=count,
            dims=dims,
            encoder=encoder,
            files={name: sha256_of(home / name) for name in FILES},
            **facts,
            changes_through=through,
            measured={
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - started, 2),
                **measured,
            },
        )
        (home / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    return manifest


def _write_rows(
    documents: Iterable[SourcedDocument],
    encode: Encode,
    dims: int,
    home: Path,
    progress: Callable[[int], None],
) -> int:
    count = 0
    with (
        DocumentsWriter(home / DOCUMENTS_FILE) as writer,
        (home / EMBEDDINGS_FILE).open("wb") as file,
    ):
        _write_header(file, 0, dims)
        for shard in _shards(documents, DOCUMENTS_PER_SHARD):
            try:
                writer.append([sourced.document for sourced in shard])
            except DuplicateId as error:
                raise SourceError(
                    f"{shard[error.row - count].place}: id {error.id!r} is already that of document "
                    f"{error.first + 1} of the input"
                ) from error
            embeddings = encode([sourced.document.text for sourced in shard])
            file.write(np.ascontiguousarray(embeddings, np.float32).tobytes())
            count += len(shard)
            progress(count)
        file.seek(0)
        _write_header(file, count, dims)
    return count


def _write_header(file: BinaryIO, rows: int, dims: int) -> None:
    """The .npy header. numpy leaves room in it for the first axis to grow: its length does not depend on ``rows``."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dims)}
    np.lib.format.write_array_header_1_0(file, header)


def _shards(documents: Iterable[SourcedDocument], size: int) -> Iterator[list[SourcedDocument]]:
    iterator = iter(documents)
    while shard := list(islice(iterator, size)):
        yield shard
