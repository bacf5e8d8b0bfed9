"""How does a generation get into Milvus? Loaded, indexed, tuned, proven, and then made live by switching the alias."""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient, MilvusException

from index.build import Encode, EncodeBatches, Watcher
from index.build import build as build_folder
from index.documents import Document, Documents, DocumentsWriter
from index.finish import AS_IT_COMES, SearchWanted
from index.generations import DOCUMENTS_FILE, EMBEDDINGS_FILE, GENERATIONS
from index.manifest import BusyFault, EncoderIdentity, GenerationManifest, IndexFault
from index.milvus import (
    ROWS_PER_WRITE,
    Live,
    by_key,
    collection_at,
    live_at,
    load,
    near,
    put,
    remove,
)
from index.milvus_rows import (
    DIGEST,
    KEY,
    MANIFEST_PROPERTY,
    METRIC,
    SEALED_PROPERTY,
    STORED,
    TERMS,
    VECTOR,
    IndexKind,
    chosen,
    collection_of,
    digest_of,
    document_of,
    key_of,
    kind_of,
    number_of,
    row_of,
    schema,
)
from index.milvus_server import OPTIONS, Server, is_missing
from index.nearest import Tuning
from index.recall import Aim, prove
from index.recipes import plan
from index.sources import Rejects, SourcedDocument

ROWS_PER_LOOK = 1000
ROUNDS = 3
"""How often what was changed meanwhile is taken in before writers have to wait for the last of it."""

SEALED_SECONDS = 60.0
"""Within which the last changes are taken in, while writers wait; if whoever does it dies, they go on after that."""

SPARE_SECONDS = 10.0  # of those, left when the alias is switched: clocks differ

Floats = NDArray[np.float32]
Batches = Iterable[tuple[Sequence[Document], Floats]]


@dataclass(frozen=True)
class _Collection:
    """What finds candidates, as far as it can be tuned."""

    kind: IndexKind

    @property
    def exact(self) -> bool:
        return self.kind.exact

    @property
    def dial(self) -> Any:
        return self.kind.dial


@dataclass(frozen=True)
class CollectionSearch:
    """The search of a loaded collection, as it serves, for :func:`index.recall.prove`."""

    server: Server
    collection: str
    kind: IndexKind
    embeddings: Floats  # (rows, dim), perhaps memory-mapped
    documents: Documents

    @property
    def candidates(self) -> _Collection:
        """What finds them."""
        return _Collection(self.kind)

    def query_vectors(self, queries: Floats) -> Floats:
        """(queries, dim), as they are."""
        return queries

    def vectors(self, embeddings: Floats) -> Floats:
        """(rows, dim), as they are."""
        return embeddings

    def closeness(self, query: Floats, embeddings: Floats) -> Floats:
        """(rows,) inner products of (rows, dim) embeddings with a (dim,) query."""
        return embeddings @ query

    def search(self, query: Floats, depth: int, tuning: Tuning) -> tuple[NDArray[np.int64], Floats]:
        """(found,) rows nearest to a (dim,) query and their (found, dim) embeddings, in no order."""
        fetched = max(depth, min(depth * tuning.refine, len(self.embeddings)))
        hits = near(
            self.server,
            self.collection,
            query,
            fetched,
            lambda limit: self.kind.search_params(tuning.search, limit),
            "",
            (KEY, VECTOR),
        )
        keys = np.array([hit[KEY] for hit in hits], self._keys.dtype)
        rows = self._order[np.searchsorted(self._keys, keys, sorter=self._order)]
        embeddings = np.asarray(self.embeddings[rows])
        if len(rows) <= depth:
            return rows, embeddings
        kept = np.lexsort((rows, -self.closeness(query, embeddings)))[:depth]
        return rows[kept], embeddings[kept]

    @cached_property
    def _keys(self) -> NDArray[Any]:
        """(rows,) the key of every row."""
        keys = (key_of(document.id) for batch in _batched(self.documents) for document in batch)
        return np.array([key.encode() for key in keys])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._keys, kind="stable")


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
        put(home)
        return _publish_folder(server, home, encoder, recipe, search.aim, measured, watcher.finishing)

    try:
        return build_folder(
            documents,
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
    finally:
        shutil.rmtree(home, ignore_errors=True)
        for empty in (work / GENERATIONS, work):
            with suppress(OSError):
                empty.rmdir()


def rebuild(
    server: Server,
    encode: Encode,
    dims: int,
    encoder: EncoderIdentity,
    work: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
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

    aim = Aim() if before.proof is None else Aim(target=before.proof.target, k=before.proof.k)
    follower = _Follower(server, live.collection, encode)
    with _staged(work, embedded(), dims) as home:
        _publish_folder(server, home, encoder, before.named, aim, {}, follows=follower)
    return live_at(server)


def copy_into(
    server: Server,
    batches: Batches,
    manifest: GenerationManifest,
    work: Path,
    stage: Callable[[str], None] = lambda words: None,
) -> Live:
    """Load documents with vectors that are there already, as of a folder that is outgrown; nothing is encoded.

    Args:
        server: that will hold the index, new or existing.
        batches: some documents at a time, and their (documents, dim) embeddings.
        manifest: of the generation that they are from; its recipe is kept if Milvus has the like.
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
    aim = Aim() if manifest.proof is None else Aim(target=manifest.proof.target, k=manifest.proof.k)
    with _staged(work, batches, manifest.dims) as home:
        _publish_folder(server, home, manifest.encoder, recipe, aim, {}, stage)
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


def scan(server: Server, collection: str, fields: Sequence[str]) -> Iterator[list[Mapping[str, Any]]]:
    """Some fields of every row, some rows at a time, in the order of their keys."""
    iterator = server.call(
        "reading all documents",
        lambda client: client.query_iterator(
            collection,
            batch_size=ROWS_PER_LOOK,
            filter="",
            output_fields=[KEY, *fields],
            consistency_level="Strong",
            **OPTIONS,
        ),
    )
    try:
        while rows := server.call("reading all documents", lambda client: iterator.next(), repeat=False):
            yield list(rows)
    finally:
        iterator.close()


class _Follower:
    """Takes what was changed in one generation into the next, embedded anew."""

    def __init__(self, server: Server, collection: str, encode: Encode) -> None:
        self.collection = collection
        self._server, self._encode = server, encode

    def catch_up(self, following: str) -> int:
        """Make the next generation hold what this one holds; how many documents were not the same."""
        changed: list[str] = []
        count = 0
        for key, here, there in _compared(self._digests(self.collection), self._digests(following)):
            if here != there:
                changed.append(key)
            if len(changed) == ROWS_PER_LOOK:
                count += self._carried(changed, following)
                changed.clear()
        return count + self._carried(changed, following)

    def _carried(self, keys: Sequence[str], following: str) -> int:
        if not keys:
            return 0
        documents = [document_of(row) for row in by_key(self._server, self.collection, keys, STORED, "Strong")]
        if gone := sorted(set(keys) - {key_of(document.id) for document in documents}):
            remove(self._server, following, gone)
        if documents:
            vectors = self._encode([document.text for document in documents])
            put(self._server, following, list(map(row_of, documents, vectors)))
        return len(keys)

    def _digests(self, collection: str) -> Iterator[tuple[str, str]]:
        for rows in scan(self._server, collection, (DIGEST,)):
            for row in rows:
                yield row[KEY], row[DIGEST]


def _compared(
    left: Iterator[tuple[str, str]], right: Iterator[tuple[str, str]]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Keys of two ordered streams, each once, with what either says of it.

    >>> list(_compared(iter([("a", "1"), ("c", "3")]), iter([("b", "2"), ("c", "4")])))
    [('a', '1', None), ('b', None, '2'), ('c', '3', '4')]
    """
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] < other[0]):
            assert one is not None
            yield one[0], one[1], None
            one = next(left, None)
        elif one is None or other[0] < one[0]:
            yield other[0], None, other[1]
            other = next(right, None)
        else:
            yield one[0], one[1], other[1]
            one, other = next(left, None), next(right, None)


def _publish_folder(
    server: Server,
    home: Path,
    encoder: EncoderIdentity,
    named: str | None,
    aim: Aim,
    measured: dict[str, Any],
    stage: Callable[[str], None] = lambda words: None,
    follows: _Follower | None = None,
) -> GenerationManifest:
    """Load the documents and embeddings of a folder as the next generation, prove it, and make it live."""
    started = time.monotonic()
    embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    documents = Documents(home / DOCUMENTS_FILE)
    rows, dims = embeddings.shape
    kind = kind_of(named or chosen(rows), dims, rows)
    live = collection_at(server)
    if follows is not None and live != follows.collection:
        raise BusyFault(f"{server.address} was published anew meanwhile; do it again")
    collection = collection_of(server.address.name, 1 + (number_of(server.address.name, live) or 0 if live else 0))
    try:
        _loaded(server, collection, documents, embeddings, stage)
        stage(f"indexing by {kind.recipe}")
        _indexed(server, collection, kind)
        facts: dict[str, Any] = {"recipe": kind.recipe, "named": named}
        if rows:
            proven = prove(
                CollectionSearch(server, collection, kind, embeddings, documents),
                kind.recipe,
                plan(kind.recipe, rows, dims).index_bytes,
                aim,
                stage,
            )
            facts |= {"search": dict(proven.tuning.search), "refine": proven.tuning.refine}
            facts |= {"depth": proven.depth, "proof": proven.proof}
            measured = measured | {"search_milliseconds": asdict(proven.milliseconds)}
        manifest = GenerationManifest(
            documents=rows,
            dims=dims,
            encoder=encoder,
            files={},
            **facts,
            measured={
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - started, 2),
            }
            | measured,
        )
        _set(server, collection, MANIFEST_PROPERTY, manifest.model_dump_json())
        stage("publishing")
        if follows is not None:
            for _ in range(ROUNDS):
                if not follows.catch_up(collection):
                    break
        _switched(server, live, collection, follows)
    except BaseException:
        with suppress(IndexFault):
            if collection_at(server) != collection:
                _drop(server, collection)
        raise
    _drop_others(server, {collection, live})
    return manifest


def _switched(server: Server, live: str | None, collection: str, follows: _Follower | None) -> None:
    """Make a collection the live one; what is acknowledged before that is in it."""
    name = server.address.name
    if collection_at(server) != live:
        raise BusyFault(f"{server.address} was published anew meanwhile; do it again")
    if live is None:
        server.call("publishing", lambda client: client.create_alias(collection, name, **OPTIONS), repeat=False)
        return
    until = time.time() + SEALED_SECONDS
    if follows is not None:
        _set(server, live, SEALED_PROPERTY, str(until))
    try:
        if follows is not None:
            follows.catch_up(collection)
            if time.time() > until - SPARE_SECONDS:
                raise BusyFault(
                    f"{server.address}: taking in the last changes took too long; do it when less is written"
                )
        server.call("publishing", lambda client: client.alter_alias(collection, name, **OPTIONS))
    except BaseException:
        if follows is not None:
            with suppress(IndexFault):
                _set(server, live, SEALED_PROPERTY, "0")
        raise


def _loaded(
    server: Server, collection: str, documents: Documents, embeddings: Floats, stage: Callable[[str], None]
) -> None:
    server.call(
        f"making {collection}",
        lambda client: client.create_collection(
            collection, schema=schema(embeddings.shape[1]), consistency_level="Strong", **OPTIONS
        ),
        repeat=False,
    )

    def insert(rows: list[dict[str, Any]]) -> None:
        # Not repeated: a row that is inserted twice is there twice.
        server.call("loading", lambda client: client.insert(collection, rows, **OPTIONS), repeat=False)

    start = 0
    for batch in _batched(documents):
        stage(f"loading {start:,} of {len(embeddings):,}")
        vectors = np.asarray(embeddings[start : start + len(batch)])
        insert(list(map(row_of, batch, vectors)))
        start += len(batch)
    server.call("making it durable", lambda client: client.flush(collection, **OPTIONS))


def _indexed(server: Server, collection: str, kind: IndexKind) -> None:
    wanted = MilvusClient.prepare_index_params()
    wanted.add_index(VECTOR, index_type=kind.index_type, metric_type=METRIC, params=dict(kind.params))
    server.call("indexing", lambda client: client.create_index(collection, wanted, **OPTIONS))
    filtered = MilvusClient.prepare_index_params()
    filtered.add_index(TERMS, index_type="INVERTED")

    def attempted(client: MilvusClient) -> None:
        with suppress(MilvusException):  # a server that has no such index reads the terms of each row instead
            client.create_index(collection, filtered, **OPTIONS)

    server.call("indexing", attempted)
    load(server, collection)


def _set(server: Server, collection: str, name: str, value: str) -> None:
    server.call(
        f"writing {name} of {collection}",
        lambda client: client.alter_collection_properties(collection, {name: value}, **OPTIONS),
    )


def _drop(server: Server, collection: str) -> None:
    def dropped(client: MilvusClient) -> None:
        try:
            client.drop_collection(collection, **OPTIONS)
        except MilvusException as error:
            if not is_missing(error):
                raise

    server.call(f"dropping {collection}", dropped)


def _drop_others(server: Server, kept: set[str | None]) -> None:
    """Forget the generations before the one that was replaced, and what did not come to its end.

    Services of the encoder before may still ask the one that was replaced. Another build that is under way has lost,
    and is refused its next step.
    """
    for collection in server.call("looking for old generations", lambda client: client.list_collections(**OPTIONS)):
        if number_of(server.address.name, collection) is not None and collection not in kept:
            _drop(server, collection)


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
        _write_header(file, 0, dims)
        for documents, vectors in batches:
            writer.append(documents)
            file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
            count += len(documents)
        file.seek(0)
        _write_header(file, count, dims)
    return count


def _write_header(file: Any, rows: int, dims: int) -> None:
    """Of an array of so many rows; its length is the same for any number of them that fits into memory."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, dims)})


def _batched(documents: Documents) -> Iterator[list[Document]]:
    rows = iter(range(len(documents)))
    while part := list(islice(rows, ROWS_PER_WRITE)):
        yield documents.at(part)
