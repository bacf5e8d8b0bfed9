"""How does a folder of embedded documents become the live generation in Milvus?

Loaded, indexed, tuned, proven, and then made live by switching the alias.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient, MilvusException

from index.documents import Document, Documents
from index.generations import DOCUMENTS_FILE, EMBEDDINGS_FILE
from index.manifest import EncoderIdentity, GenerationManifest, IndexFault
from index.milvus_collections import ROWS_PER_WRITE, collection_at, drop, load, near, set_property
from index.milvus_rows import (
    KEY,
    MANIFEST_PROPERTY,
    METRIC,
    TERMS,
    VECTOR,
    IndexKind,
    chosen,
    collection_of,
    key_of,
    kind_of,
    number_of,
    row_of,
    schema,
)
from index.milvus_server import OPTIONS, Server
from index.milvus_switch import Follower, live_of, overtaken, switch
from index.nearest import Tuning
from index.rebuild import ROUNDS
from index.recall import Aim, prove
from index.recipes import plan

Floats = NDArray[np.float32]


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
            self.kind.efforts(tuning.search, fetched),
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


def publish_folder(
    server: Server,
    home: Path,
    encoder: EncoderIdentity,
    named: str | None,
    aim: Aim,
    measured: dict[str, Any],
    stage: Callable[[str], None] = lambda words: None,
    follows: Follower | None = None,
) -> GenerationManifest:
    """Load the documents and embeddings of a folder as the next generation, prove it, and make it live."""
    started = time.monotonic()
    embeddings = np.load(home / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    documents = Documents(home / DOCUMENTS_FILE)
    rows, dims = embeddings.shape
    kind = kind_of(named or chosen(rows), dims, rows)
    live = collection_at(server) if follows is None else live_of(server, follows.collection)
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
        set_property(server, collection, MANIFEST_PROPERTY, manifest.model_dump_json())
        stage("publishing")
        if follows is not None:
            for _ in range(ROUNDS):
                if not follows.catch_up(collection):
                    break
        switch(server, live, collection, follows)
    except BaseException as error:
        lost = False
        with suppress(IndexFault):
            named = collection_at(server)
            lost = named not in (live, collection)  # to whoever then dropped this collection
            if named != collection:
                drop(server, collection)
        if lost and isinstance(error, IndexFault):
            raise overtaken(server) from error
        raise
    _drop_others(server, {collection, live})
    return manifest


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


def _drop_others(server: Server, kept: set[str | None]) -> None:
    """Forget the generations before the one that was replaced, and what did not come to its end.

    Services of the encoder before may still ask the one that was replaced. Another build that is under way has lost,
    and is refused its next step.
    """
    for collection in server.call("looking for old generations", lambda client: client.list_collections(**OPTIONS)):
        if number_of(server.address.name, collection) is not None and collection not in kept:
            drop(server, collection)


def _batched(documents: Documents) -> Iterator[list[Document]]:
    rows = iter(range(len(documents)))
    while part := list(islice(rows, ROWS_PER_WRITE)):
        yield documents.at(part)
