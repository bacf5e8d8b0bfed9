"""How does a generation get into Milvus? Embedded into a folder first, or copied from one; then published."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.asked import aim_after
from index.build import Encode, EncodeBatches, Watcher
from index.build import build as build_folder
from index.documents import Document, DocumentsWriter
from index.finish import AS_IT_COMES, SearchWanted
from index.generations import DOCUMENTS_FILE, EMBEDDINGS_FILE, GENERATIONS
from index.headers import write_embeddings_header
from index.manifest import EncoderIdentity, GenerationManifest, IndexFault
from index.milvus_collections import Live, collection_at, live_at, load, scan
from index.milvus_publish import publish_folder
from index.milvus_rows import DIGEST, KEY, STORED, VECTOR, check_size, digest_of, document_of, key_of, kind_of
from index.milvus_server import Server
from index.milvus_switch import Follower
from index.recall import Aim, Scores
from index.sources import Rejects, SourcedDocument, SourceError

Floats = NDArray[np.float32]
Batches = Iterable[tuple[Sequence[Document], Floats]]


def build(
    documents: Iterable[SourcedDocument],
    encode: Encode,
    dims: int,
    encoder: EncoderIdentity,
    server: Server,
    work: Path,
    recipe: str | None = None,
    *,
    search: SearchWanted = AS_IT_COMES,
    resume: bool = True,
    rejects: Rejects | None = None,
    share_read: Callable[[], float | None] = lambda: None,
    watcher: Watcher | None = None,
    encode_batches: EncodeBatches | None = None,
    workers: int = 1,
) -> GenerationManifest:
    """Embed documents, load them into Milvus, and make them the live generation.

    What is embedded is kept in ``work`` until they are: after an error or a kill, the same call goes on from there.
    They replace whatever was there, what is written meanwhile included; :func:`rebuild` keeps that.

    Args:
        documents, encode, dims, encoder, search, resume, rejects, share_read, watcher, encode_batches, workers: as for
            :func:`index.build.build`.
        server: that holds the index, new or existing.
        work: a folder for what is embedded; removed once it is loaded.
        recipe: a FAISS ``index_factory`` string that Milvus has the like of; None: chosen by rows.

    Raises:
        SourceError, IndexFault: as for :func:`index.build.build`; or Milvus is not there, or refuses.
    """
    if search.head is not None:
        raise IndexFault("Milvus ranks by similarity; leave --rank-by out, or keep the index in a folder")
    if recipe is not None:
        kind_of(recipe, dims, 1)
    watcher = watcher or Watcher()
    collection_at(server)  # before anything is embedded
    home = work / "loading"

    def publish(put: Callable[[Path], None], measured: dict[str, Any]) -> GenerationManifest:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        try:
            put(home)
            return publish_folder(server, home, encoder, recipe, search.aim, measured, watcher.finishing)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    manifest = build_folder(
        _fitting(documents, rejects),
        encode,
        dims,
        encoder,
        work,
        recipe,
        search=search,
        resume=resume,
        rejects=rejects,
        share_read=share_read,
        watcher=watcher,
        encode_batches=encode_batches,
        workers=workers,
        publish=publish,
    )
    for empty in (work / GENERATIONS, work):  # left by a former run that this one went on from
        with suppress(OSError):
            empty.rmdir()
    return manifest


def _fitting(documents: Iterable[SourcedDocument], rejects: Rejects | None) -> Iterator[SourcedDocument]:
    """Those that Milvus can keep; known before they are embedded, so that none is for nothing."""
    for sourced in documents:
        try:
            check_size(sourced.document)
        except IndexFault as fault:
            if rejects is None:
                raise SourceError(f"{sourced.place}: {fault}") from fault
            rejects.add(sourced.place, str(fault), sourced.line)
            continue
        yield sourced


def rebuild(
    server: Server,
    encode: Encode,
    dims: int,
    encoder: EncoderIdentity,
    work: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    scores: Scores | None = None,
) -> Live:
    """Embed every document of an index again and make that the live generation; its recipe is kept.

    What is changed meanwhile is embedded as well: by comparing digests, a few times over while writers go on, and once
    more while they wait, just before the alias is switched.

    Args:
        server: that holds the index.
        encode: the new encoder, as a function.
        dims: width of its embeddings.
        encoder: its identity, which the index will insist on from then.
        work: a folder for what is embedded.
        progress: told how many documents are embedded, and of how many.
        scores: the head that goes with it, to measure how many candidates it should be given; None: as many as before.

    Raises:
        BusyFault: another generation was published meanwhile, or the last changes took too long.
        IndexFault: it cannot be read or written; it is as it was.
    """
    live = live_at(server)
    load(server, live.collection)
    before, total, done = live.manifest, live.manifest.documents, 0

    def embedded() -> Iterator[tuple[Sequence[Document], Floats]]:
        nonlocal done
        for rows in scan(server, live.collection, STORED):
            documents = list(map(document_of, rows))
            done += len(documents)
            progress(done, max(total, done))
            yield documents, encode([document.text for document in documents])

    aim = aim_after(before, None, scores=scores)
    follower = Follower(server, live.collection, encode)
    with _staged(work, embedded(), dims) as home:
        publish_folder(server, home, encoder, before.named, aim, {}, follows=follower)
    return live_at(server)


def copy_into(
    server: Server,
    batches: Batches,
    manifest: GenerationManifest,
    aim: Aim,
    work: Path,
    stage: Callable[[str], None] = lambda words: None,
) -> Live:
    """Load documents with vectors that are there already, as of a folder that is outgrown; nothing is encoded.

    Args:
        server: that will hold the index, new or existing.
        batches: some documents at a time, and their (documents, dim) embeddings.
        manifest: of the generation that they are from; its recipe is kept if Milvus has the like.
        aim: what it must be shown to find.
        work: a folder for what is on its way.
        stage: told what is being done.

    Raises:
        IndexFault: Milvus is not there, or refuses; what was live still is.
    """
    if manifest.head is not None:
        raise IndexFault(
            f"this index is ranked by the head of {manifest.head.name}, and Milvus ranks by similarity; build it again "
            "without --rank-by"
        )
    recipe = manifest.named
    if recipe is not None:
        try:
            kind_of(recipe, manifest.dims, 1)
        except IndexFault:
            recipe = None
    with _staged(work, batches, manifest.dims) as home:
        publish_folder(server, home, manifest.encoder, recipe, aim, {}, stage)
    return live_at(server)


def verify(server: Server) -> tuple[Live, int]:
    """Compare every row of the live generation with its digest and its key; the generation, and how many there are.

    Raises:
        IndexFault: rows are altered; the message names the first.
    """
    live = live_at(server)
    load(server, live.collection)
    count = 0
    for rows in scan(server, live.collection, (DIGEST, VECTOR, *STORED)):
        for row in rows:
            document = document_of(row)
            vector = np.array(row[VECTOR], np.float32)
            whole = row[KEY] == key_of(document.id) and row[DIGEST] == digest_of(document)
            if not whole or len(vector) != live.manifest.dims or not np.isfinite(vector).all():
                raise IndexFault(
                    f"{server.address}: {live.collection}: the document {document.id[:100]!r} has been altered by "
                    "something else than this program; write it again, or build the index again"
                )
        count += len(rows)
    return live, count


@contextmanager
def _staged(work: Path, batches: Batches, dims: int) -> Iterator[Path]:
    """A folder that holds documents and their embeddings, for as long as they are on their way."""
    work.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{work.name}.", dir=work.parent) as folder:
        home = Path(folder)
        stage_documents(home, batches, dims)
        yield home


def stage_documents(home: Path, batches: Batches, dims: int) -> int:
    """Write documents and their embeddings as a build would; how many there are."""
    count = 0
    with DocumentsWriter(home / DOCUMENTS_FILE) as writer, (home / EMBEDDINGS_FILE).open("wb") as file:
        write_embeddings_header(file, 0, dims)
        for documents, vectors in batches:
            writer.append(documents)
            file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
            count += len(documents)
        file.seek(0)
        write_embeddings_header(file, count, dims)
    return count
