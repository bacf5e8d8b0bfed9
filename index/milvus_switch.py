"""How does one generation take the place of another in Milvus, and lose no write that was acknowledged?

Writers wait while the last changes are taken in: the generation carries a seal. Milvus cannot compare and set in one
call, so of two that publish at once each looks at the seal before and after it writes its own, and at the alias before
it switches that.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from index.build import Encode
from index.manifest import AwayFault, BusyFault, IndexFault
from index.milvus_collections import (
    ROWS_PER_LOOK,
    Seal,
    by_key,
    check_open,
    collection_at,
    drop,
    put,
    remove,
    scan,
    seal_of,
    set_property,
)
from index.milvus_rows import DIGEST, KEY, SEALED_PROPERTY, STORED, document_of, key_of, row_of
from index.milvus_server import OPTIONS, Server

SEALED_SECONDS = 60.0
"""Within which the last changes are taken in, while writers wait; if whoever does it dies, they go on after that."""

SPARE_SECONDS = 10.0  # of those, not counted on: clocks differ

SWITCHES = 3
"""How often Milvus is asked to switch the alias. Each time writers wait anew, for longer than it may take to answer."""


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


def switch(server: Server, live: str | None, collection: str, follows: Follower | None) -> None:
    """Make a collection the live one instead of ``live``; what is acknowledged before that is in it, if it follows.

    Raises:
        BusyFault: another one was made live meanwhile, or is about to be; or the last changes took too long.
        IndexFault: Milvus is not there, or refuses. In each case what was live still is, and can be changed.
    """
    name = server.address.name
    live_of(server, live)
    if live is None:
        server.call("publishing", lambda client: client.create_alias(collection, name, **OPTIONS), repeat=False)
        return
    if follows is None:
        server.call("publishing", lambda client: client.alter_alias(collection, name, **OPTIONS))
        return
    try:
        sealed = _sealed(server, live, collection)
        follows.catch_up(collection)
        for _ in range(SWITCHES):
            sealed = _sealed(server, live, collection, sealed)
            if _is_switched(server, live, collection, sealed):
                return
        raise AwayFault(
            f"{server.address}: Milvus has not switched the alias in time; see what is live (dse index info) and do it "
            "again"
        )
    except BaseException:
        with suppress(IndexFault):
            if collection_at(server) != collection:
                drop(server, collection)  # before writers go on: a switch that is still on its way comes to nothing
                seal = seal_of(server, live)
                if seal is not None and seal.by == collection:
                    set_property(server, live, SEALED_PROPERTY, str(Seal(0, collection)))
        raise


def live_of(server: Server, *expected: str | None) -> str | None:
    """Which of some collections is live.

    Raises:
        BusyFault: none of them.
    """
    live = collection_at(server)
    if live not in expected:
        raise overtaken(server)
    return live


def overtaken(server: Server) -> BusyFault:
    """What to raise where another generation has been made live in between."""
    return BusyFault(f"{server.address} was published anew meanwhile; do it again")


def _sealed(server: Server, live: str, collection: str, before: float = math.inf) -> float:
    """Have the writers of a generation wait, or go on waiting if they do until ``before``; until when they surely do.

    Raises:
        BusyFault: it took so long that they may have written meanwhile; or they wait for another collection.
    """
    check_open(server, live, collection)
    until = time.time() + SEALED_SECONDS
    set_property(server, live, SEALED_PROPERTY, str(Seal(until, collection)))
    check_open(server, live, collection)  # of two at once, whoever came last has sealed it
    until -= SPARE_SECONDS
    if time.time() > min(before, until):
        raise BusyFault(f"{server.address}: taking in the last changes took too long; do it when less is written")
    return until


def _is_switched(server: Server, live: str, collection: str, sealed: float) -> bool:
    """Try to make a collection the live one while writers wait; whatever became of that, is it?

    Raises:
        BusyFault: neither this one nor the one before is live.
    """
    if live_of(server, live, collection) == collection:  # a former switch came late
        return True
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
