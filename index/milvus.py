"""What can be found right now, where the index is in Milvus? The collection that its alias names.

A generation is a collection, ``NAME_g000007_`` and eight more characters; the alias ``NAME`` names the live one, and
publishing another switches it, in one step. The manifest is a property of the collection. Searches and writes name the
collection, not the alias: what was embedded by one encoder is never compared with what another embedded, whenever the
alias is switched.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient, MilvusException

from index.contract import Status
from index.documents import Document
from index.filters import Filter
from index.generations import Candidates, similarities_of
from index.live import check_vectors
from index.location import MilvusAccess, MilvusAddress
from index.manifest import BusyFault, EncoderIdentity, GenerationManifest, IndexFault, ReadOnlyFault
from index.milvus_collections import (
    ROWS_PER_WRITE,
    Live,
    by_key,
    check_open,
    collection_at,
    count,
    live_at,
    load,
    near,
    put,
    remove,
    vectors_of,
)
from index.milvus_rows import (
    BOUNDS,
    DIGEST,
    KEY,
    MOST_FOUND,
    STORED,
    TERMS,
    VECTOR,
    document_of,
    key_of,
    row_of,
)
from index.milvus_server import OPTIONS, Server, is_missing
from index.milvus_terms import expression
from index.nearest import Tuning

KEYS_PER_QUERY = 1024
SECONDS_BETWEEN_COUNTS = 5.0
"""How old the number of documents may be that metrics tell."""


class MilvusView:
    """One generation in Milvus, as it is asked during one request.

    What is written meanwhile may be found by a later search of the same view; a document is always whole, and has the
    vector that it was found by. Rows are numbered as they are found, and mean something to this view alone.
    """

    def __init__(self, server: Server, live: Live, count: int | None = None) -> None:
        self._server, self._live, self._count = server, live, count
        self._found: list[dict[str, Any]] = []
        self._rows: dict[tuple[str, str], int] = {}  # by key, and digest of what was there
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The generation's."""
        return self._live.name(self._server.address)

    @property
    def manifest(self) -> GenerationManifest:
        """The generation's."""
        return self._live.manifest

    @property
    def pending(self) -> int:
        """Milvus folds changes in by itself."""
        return 0

    def __len__(self) -> int:
        return count(self._server, self._live.collection) if self._count is None else self._count

    def search(self, query: NDArray[np.float32], depth: int, filter: Filter | None = None) -> Candidates:
        """At most ``depth`` candidates for a (dim,) query, most similar first.

        Milvus is asked as was proven, and may rank by compressed codes; similarities and their order come from the
        stored embeddings, which it sends along.

        Raises:
            AwayFault: Milvus is not there.
            IndexFault: more candidates are wanted than it can bring.
        """
        wanted = True if filter is None else expression(filter, TERMS, BOUNDS)
        manifest = self._live.manifest
        if wanted is False:
            return Candidates(np.empty(0, np.int64), np.empty(0, np.float32), np.empty((0, manifest.dims), np.float32))
        tuning = Tuning(manifest.search, manifest.refine)
        fetched = max(depth, min(depth * tuning.refine, MOST_FOUND))
        hits = near(
            self._server,
            self._live.collection,
            query,
            fetched,
            self._live.kind.efforts(tuning.search, fetched),
            "" if wanted is True else wanted,
            (KEY, DIGEST, VECTOR, *STORED),
        )
        embeddings = vectors_of(hits, manifest.dims)
        found = Candidates(self._remembered(hits), similarities_of(embeddings, query), embeddings)
        return found.nearest(embeddings @ query, depth) if len(hits) > depth else found.ordered()

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of some rows that this view has found, in the order asked."""
        return [document_of(self._found[row]) for row in np.asarray(rows).tolist()]

    def get(self, id_: str) -> Document | None:
        """The document with an id, or None."""
        found = by_key(self._server, self._live.collection, [key_of(id_)], STORED)
        return document_of(found[0]) if found else None

    def _remembered(self, hits: Sequence[dict[str, Any]]) -> NDArray[np.int64]:
        rows = np.empty(len(hits), np.int64)
        with self._lock:
            for place, hit in enumerate(hits):
                known = hit[KEY], hit[DIGEST]
                row = self._rows.setdefault(known, len(self._found))
                if row == len(self._found):
                    self._found.append({name: hit[name] for name in STORED})
                rows[place] = row
        return rows


class MilvusIndex:
    """An index in Milvus, opened to be searched and perhaps changed. Safe to use from several threads."""

    stays_because: str | None = None

    def __init__(self, server: Server, live: Live, encoder: EncoderIdentity | None, writable: bool) -> None:
        self.address, self.writable = server.address, writable
        self._server, self._encoder = server, encoder
        self._live = self._seen = live
        self._opening = threading.Lock()
        self._count = count(server, live.collection)
        self._counted = time.monotonic()

    @classmethod
    def open(
        cls, address: MilvusAddress, encoder: EncoderIdentity | None, access: MilvusAccess, writable: bool = False
    ) -> Self:
        """The index at an address.

        Args:
            address: of it.
            encoder: what embeds the queries; None where nothing is embedded, which takes the index as it is.
            access: how the server is reached.
            writable: may it be changed?

        Raises:
            AwayFault: the server is not there.
            IndexFault: there is no such index, it was built with another encoder, or it is no index of this program.
        """
        server = Server(address, access)
        try:
            live = live_at(server)
            if encoder is not None:
                live.manifest.check_encoder(address, encoder)
            load(server, live.collection)
            index = cls(server, live, encoder, writable)
            server.watch(index._look, index._back)
        except BaseException:
            server.close()
            raise
        return index

    @property
    def away(self) -> str | None:
        """Why Milvus cannot be asked right now; None: it can."""
        return self._server.away

    @property
    def latest(self) -> MilvusView:
        """The newest generation, with the number of documents as it was a few seconds ago."""
        return MilvusView(self._server, self._live, self._count)

    def view(self) -> MilvusView:
        """The index as of now.

        Raises:
            AwayFault: Milvus is not there.
        """
        return MilvusView(self._server, self._live)

    def upsert(self, documents: Sequence[Document], embeddings: NDArray[np.float32]) -> list[Status]:
        """Add documents, or replace those of the same id; durable and to be found once this returns.

        Args:
            documents: of one id, the last stays.
            embeddings: (documents, dim) unit rows, by the encoder that the index was opened with.

        Returns:
            Of each, whether there was one of its id.

        Raises:
            ReadOnlyFault: not opened for writing, or of another encoder by now.
            BusyFault: another generation takes the place of this one right now.
            AwayFault, IndexFault: it is not known whether anything was written; doing it again does no harm.
        """
        live = self._written()
        check_vectors(documents, embeddings, live.manifest.dims)
        rows = {row[KEY]: row for row in map(row_of, documents, embeddings)}
        known = self._known(live, rows)
        statuses: list[Status] = []
        for document in documents:
            key = key_of(document.id)
            statuses.append("updated" if key in known else "created")
            known.add(key)
        changed = list(rows.values())
        for start in range(0, len(changed), ROWS_PER_WRITE):
            put(self._server, live.collection, changed[start : start + ROWS_PER_WRITE])
        self._check_still(live)
        return statuses

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents; durable, and no longer to be found, once this returns.

        Returns:
            How many of them were there.

        Raises:
            ReadOnlyFault, BusyFault, AwayFault, IndexFault: as for :meth:`upsert`.
        """
        live = self._written()
        keys = sorted(self._known(live, dict.fromkeys(map(key_of, ids))))
        for start in range(0, len(keys), KEYS_PER_QUERY):
            remove(self._server, live.collection, keys[start : start + KEYS_PER_QUERY])
        self._check_still(live)
        return len(keys)

    def compact(self) -> MilvusView:
        """Have Milvus fold its changes in, which it also does by itself; searches and writes go on."""
        live = self._written()
        self._server.call("compacting", lambda client: client.compact(live.collection, **OPTIONS))
        return self.view()

    def reload(self) -> MilvusView:
        """Take up the generation that is live now.

        Raises:
            IndexFault: it is of another encoder; what was served before still is.
        """
        self._take_up(live_at(self._server))
        if self.stays_because is not None:
            raise IndexFault(self.stays_because)
        return self.view()

    def close(self) -> None:
        """Let go of the connection."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _look(self, client: MilvusClient) -> None:
        """What the watcher asks: which collection is live? That answers whether the server is there, too."""
        named = client.describe_alias(self.address.name, **OPTIONS)["collection_name"]
        if named != self._seen.collection:
            self._take_up(live_at(self._server))
        if time.monotonic() - self._counted > SECONDS_BETWEEN_COUNTS and self.away is None:
            self._count, self._counted = count(self._server, self._live.collection), time.monotonic()

    def _back(self, client: MilvusClient) -> None:
        """Another generation may be live by now, and a server that was started again has forgotten what it served."""
        self._take_up(live_at(self._server))
        try:
            client.load_collection(self._live.collection, **OPTIONS)
        except MilvusException as error:
            if not is_missing(error):  # one that was dropped is no outage; what is live is looked for next
                raise

    def _take_up(self, live: Live) -> None:
        """Serve a generation; after an error it has not been seen, and is tried again."""
        with self._opening:
            if live.collection == self._live.collection:
                self._seen, self.stays_because = live, None
                return
            try:
                if self._encoder is not None:
                    live.manifest.check_encoder(self.address, self._encoder)
            except IndexFault as fault:
                self._seen, self.stays_because = live, str(fault)
                return
            load(self._server, live.collection)
            self._live = self._seen = live
            self.stays_because = None

    def _written(self) -> Live:
        """The generation to write to, which is the live one, and may be written to."""
        if not self.writable:
            raise ReadOnlyFault(f"{self.address} is opened for reading only; nothing was changed")
        self._take_up(live_at(self._server))
        if self.stays_because is not None:
            raise ReadOnlyFault(
                f"the live generation of {self.address} cannot be served here ({self.stays_because}); the one before "
                "still is, and can no longer be changed"
            )
        live = self._live
        check_open(self._server, live.collection)
        return live

    def _check_still(self, live: Live) -> None:
        """Acknowledge a write only if its generation was live after it: what came later is not carried over."""
        if collection_at(self._server) != live.collection:
            raise BusyFault(f"{self.address} was published anew while it was written; do it again")
        check_open(self._server, live.collection)

    def _known(self, live: Live, keys: Iterable[str]) -> set[str]:
        wanted, known = list(keys), set[str]()
        for start in range(0, len(wanted), KEYS_PER_QUERY):
            part = wanted[start : start + KEYS_PER_QUERY]
            known.update(row[KEY] for row in by_key(self._server, live.collection, part, (KEY,), "Strong"))
        return known


def read_live(address: MilvusAddress, access: MilvusAccess) -> Live:
    """The live generation at an address, without opening it for search.

    Raises:
        IndexFault: as for :meth:`MilvusIndex.open`.
    """
    server = Server(address, access)
    try:
        return live_at(server)
    finally:
        server.close()
