"""What is asked of one collection of Milvus, and which one is live? Each a call or two of the server.

A generation is a collection, and the alias of the index's name tells which one is live (:mod:`index.milvus`).
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pymilvus import MilvusClient, MilvusException

from index.location import MilvusAddress
from index.manifest import BusyFault, GenerationManifest, IndexFault
from index.milvus_rows import (
    KEY,
    MANIFEST_PROPERTY,
    MOST_FOUND,
    SEALED_PROPERTY,
    VECTOR,
    IndexKind,
    keys_in,
    kind_of,
    number_of,
)
from index.milvus_server import OPTIONS, Server, is_missing

ROWS_PER_LOOK = 1000
ROWS_PER_WRITE = 1024
MOST_COMPARED = 4096
"""Rows that are compared here rather than left unfound."""

_LEVELS = {"strong": "Strong", "session": "Session", "bounded": "Bounded"}


@dataclass(frozen=True)
class Live:
    """A generation: its collection and its manifest."""

    collection: str
    manifest: GenerationManifest

    @cached_property
    def kind(self) -> IndexKind:
        """What Milvus built of it."""
        return kind_of(self.manifest.recipe, self.manifest.dims, self.manifest.documents)

    def name(self, address: MilvusAddress) -> str:
        """As folders name theirs: a number of six digits or more."""
        return f"{number_of(address.name, self.collection):06d}"


def live_at(server: Server) -> Live:
    """The live generation.

    Raises:
        IndexFault: there is none, or its manifest cannot be read.
    """
    collection = collection_at(server)
    if collection is None:
        raise IndexFault(
            f"{server.address} is not an index (no such alias); make one with dse index build INPUT "
            f"--output {server.address}"
        )
    return Live(collection, manifest_of(server, collection))


def collection_at(server: Server) -> str | None:
    """The collection that is live; None if there is none.

    Raises:
        IndexFault: what the alias names is no generation of this index.
    """

    def asked(client: MilvusClient) -> str | None:
        try:
            return str(client.describe_alias(server.address.name, **OPTIONS)["collection_name"])
        except MilvusException as error:
            if is_missing(error):
                return None
            raise

    named = server.call("looking for the index", asked)
    if named is not None and number_of(server.address.name, named) is None:
        raise IndexFault(f"{server.address}: the alias names {named!r}, which is no generation; choose another name")
    return named


def manifest_of(server: Server, collection: str) -> GenerationManifest:
    """The manifest that a generation carries.

    Raises:
        IndexFault: there is none, or it cannot be read.
    """
    written = properties_of(server, collection).get(MANIFEST_PROPERTY)
    if written is None:
        raise IndexFault(f"{server.address}: {collection} carries no manifest; build the index again (dse index build)")
    try:
        return GenerationManifest.model_validate_json(written)
    except ValidationError as error:
        first = error.errors()[0]
        raise IndexFault(
            f"{server.address}: what {collection} carries is no generation's manifest: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}; build the index again (dse index build)"
        ) from error


def properties_of(server: Server, collection: str) -> dict[str, str]:
    """What a collection carries, by name."""
    described = server.call(
        f"reading what {collection} carries", lambda client: client.describe_collection(collection, **OPTIONS)
    )
    return dict(described.get("properties") or {})


@dataclass(frozen=True)
class Seal:
    """Writers of a generation wait until then, because another collection takes its place."""

    until: float  # seconds since 1970
    by: str  # that collection

    def __str__(self) -> str:
        return f"{self.until} {self.by}"


def seal_of(server: Server, collection: str) -> Seal | None:
    """The seal that a generation is under now, if it is under one."""
    written = properties_of(server, collection).get(SEALED_PROPERTY)
    if written is None:
        return None
    until, _, by = written.partition(" ")
    return Seal(float(until), by) if time.time() < float(until) else None


def check_open(server: Server, collection: str, by: str | None = None) -> None:
    """See that no other generation is about to take the place of this one, or none but ``by``.

    Raises:
        BusyFault: one is.
    """
    seal = seal_of(server, collection)
    if seal is not None and seal.by != by:
        raise BusyFault(f"{server.address}: another generation takes the place of {collection}; try again in a second")


def set_property(server: Server, collection: str, name: str, value: str) -> None:
    """Have a collection carry a value."""
    server.call(
        f"writing {name} of {collection}",
        lambda client: client.alter_collection_properties(collection, {name: value}, **OPTIONS),
    )


def drop(server: Server, collection: str) -> None:
    """Remove a collection, if it is there."""

    def dropped(client: MilvusClient) -> None:
        try:
            client.drop_collection(collection, **OPTIONS)
        except MilvusException as error:
            if not is_missing(error):
                raise

    server.call(f"dropping {collection}", dropped)


def load(server: Server, collection: str) -> None:
    """Have a collection ready to be searched."""
    server.call(f"loading {collection}", lambda client: client.load_collection(collection, **OPTIONS))


def count(server: Server, collection: str, wanted: str = "") -> int:
    """How many documents there are for which an expression holds; empty: all."""
    (row,) = server.call(
        "counting",
        lambda client: client.query(
            collection, filter=wanted, output_fields=["count(*)"], consistency_level=_level(server), **OPTIONS
        ),
    )
    return int(row["count(*)"])


def by_key(
    server: Server, collection: str, keys: Sequence[str], fields: Sequence[str], level: str | None = None
) -> list[dict[str, Any]]:
    """Those of some rows that are there, in no order."""
    if not keys:
        return []
    return list(
        server.call(
            "looking up documents",
            lambda client: client.query(
                collection,
                filter=keys_in(keys),
                output_fields=list(fields),
                consistency_level=level or _level(server),
                **OPTIONS,
            ),
        )
    )


def scan(server: Server, collection: str, fields: Sequence[str], wanted: str = "") -> Iterator[list[Mapping[str, Any]]]:
    """Some fields of every row for which an expression holds, some rows at a time, in the order of their keys."""
    iterator = server.call(
        "reading all documents",
        lambda client: client.query_iterator(
            collection,
            batch_size=ROWS_PER_LOOK,
            filter=wanted,
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


def put(server: Server, collection: str, rows: list[dict[str, Any]]) -> None:
    """Write rows, or replace those of the same keys."""
    server.call("writing", lambda client: client.upsert(collection, rows, **OPTIONS))


def remove(server: Server, collection: str, keys: Sequence[str]) -> None:
    """Delete the rows of some keys."""
    server.call("deleting", lambda client: client.delete(collection, filter=keys_in(keys), **OPTIONS))


def near(
    server: Server,
    collection: str,
    query: NDArray[np.float32],
    depth: int,
    efforts: Iterable[Mapping[str, Any]],
    wanted: str,
    fields: Sequence[str],
) -> list[dict[str, Any]]:
    """Some fields of the at most ``depth`` rows nearest to a (dim,) query, nearest first by Milvus's reckoning.

    Where it brings fewer than there are, it is asked again with more effort, and at last for all of them, to compare
    them here: a server may look for the nearest first, and only then at the filter.

    Args:
        server: to ask.
        collection: to search.
        query: (dim,).
        depth: at most this many.
        efforts: the parameters of the first search, of the next, ... (:meth:`index.milvus_rows.IndexKind.efforts`).
        wanted: only rows for which this expression holds; empty: all.
        fields: that are wanted.
    """
    if depth > MOST_FOUND:
        raise IndexFault(f"Milvus brings at most {MOST_FOUND:,} candidates, and {depth:,} are wanted; ask for fewer")

    def search(params: Mapping[str, Any]) -> list[dict[str, Any]]:
        (hits,) = server.call(
            "searching",
            lambda client: client.search(
                collection,
                data=[query],
                anns_field=VECTOR,
                limit=depth,
                filter=wanted,
                search_params=dict(params),
                output_fields=list(fields),
                consistency_level=_level(server),
                **OPTIONS,
            ),
        )
        return [dict(hit["entity"]) | {KEY: hit[KEY] if KEY in hit else hit["id"]} for hit in hits]

    found: list[dict[str, Any]] = []
    there: int | None = None
    for params in efforts:
        found = search(params)
        if len(found) == depth:
            return found
        there = count(server, collection, wanted) if there is None else there
        if len(found) >= min(depth, there):
            return found
    if there is None or there > MOST_COMPARED:
        return found
    rows = [dict(row) for part in scan(server, collection, [VECTOR, *fields], wanted) for row in part]
    nearness = vectors_of(rows, len(query)) @ query
    return [rows[row] for row in np.argsort(-nearness, kind="stable")[:depth]]


def vectors_of(rows: Sequence[Mapping[str, Any]], dims: int) -> NDArray[np.float32]:
    """(rows, dim) the vectors that were sent along."""
    return np.array([row[VECTOR] for row in rows], np.float32).reshape(len(rows), dims)


def _level(server: Server) -> str:
    return _LEVELS[server.access.consistency]
