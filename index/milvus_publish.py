"""How does a folder of embedded documents become the live generation in Milvus?

Loaded, indexed, tuned, proven, and then made live by switching the alias.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
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

from index.build import Encode
from index.documents import Document, Documents
from index.generations import DOCUMENTS_FILE, EMBEDDINGS_FILE
from index.manifest import AwayFault, BusyFault, EncoderIdentity, GenerationManifest, IndexFault
from index.milvus_collections import (
    ROWS_PER_LOOK,
    ROWS_PER_WRITE,
    by_key,
    collection_at,
    load,
    near,
    put,
    remove,
    scan,
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

ROUNDS = 3
"""How often what was changed meanwhile is taken in before writers have to wait for the last of it."""

SEALED_SECONDS = 60.0
"""Within which the last changes are taken in, while writers wait; if whoever does it dies, they go on after that."""

SPARE_SECONDS = 10.0  # of those, not counted on: clocks differ

SWITCHES = 3
"""How often Milvus is asked to switch the alias. Each time writers wait anew, for longer than it may take to answer."""

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


class Follower:
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
        set_property(server, collection, MANIFEST_PROPERTY, manifest.model_dump_json())
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


def _switched(server: Server, live: str | None, collection: str, follows: Follower | None) -> None:
    """Make a collection the live one; what is acknowledged before that is in it."""
    name = server.address.name
    if collection_at(server) != live:
        raise BusyFault(f"{server.address} was published anew meanwhile; do it again")
    if live is None:
        server.call("publishing", lambda client: client.create_alias(collection, name, **OPTIONS), repeat=False)
        return
    if follows is None:
        server.call("publishing", lambda client: client.alter_alias(collection, name, **OPTIONS))
        return
    try:
        sealed = _sealed(server, live)
        follows.catch_up(collection)
        for _ in range(SWITCHES):
            sealed = _sealed(server, live, sealed)
            if _is_switched(server, collection, sealed):
                return
        raise AwayFault(
            f"{server.address}: Milvus has not switched the alias in time; see what is live (dse index info) and do it "
            "again"
        )
    except BaseException:
        with suppress(IndexFault):
            if collection_at(server) != collection:
                _drop(server, collection)  # before writers go on: a switch that is still on its way comes to nothing
                set_property(server, live, SEALED_PROPERTY, "0")
        raise


def _sealed(server: Server, collection: str, before: float = math.inf) -> float:
    """Have the writers of a collection wait, or go on waiting if they do until ``before``; until when they surely do.

    Raises:
        BusyFault: it took so long that they may have written meanwhile.
    """
    until = time.time() + SEALED_SECONDS
    set_property(server, collection, SEALED_PROPERTY, str(until))
    until -= SPARE_SECONDS
    if time.time() > min(before, until):
        raise BusyFault(f"{server.address}: taking in the last changes took too long; do it when less is written")
    return until


def _is_switched(server: Server, collection: str, sealed: float) -> bool:
    """Try to make a collection the live one while writers wait; whatever became of that, is it?"""
    # Where nothing is reached pymilvus tries again until the time is over, each time with as much of it.
    seconds = (sealed - time.time()) / 2
    try:
        server.call(
            "publishing",
            lambda client: client.alter_alias(collection, server.address.name, timeout=seconds, **OPTIONS),
            repeat=False,
        )
    except AwayFault:  # it may have been done, or will be
        return collection_at(server) == collection
    return True


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


def set_property(server: Server, collection: str, name: str, value: str) -> None:
    """Have a collection carry a value."""
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


def _batched(documents: Documents) -> Iterator[list[Document]]:
    rows = iter(range(len(documents)))
    while part := list(islice(rows, ROWS_PER_WRITE)):
        yield documents.at(part)
