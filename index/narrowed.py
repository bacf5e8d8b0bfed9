"""How is a search among some of the rows as good as one among all of them?

Few rows are all compared. Among more, FAISS passes over those that are not allowed, and where it looks at a part of
the rows only it has to look further than it was tuned to: as far as it takes to see as many allowed rows as a search
among all would see. That is enough where the rows near the query are as likely allowed as others. Where they are less
so, what is nearest among the allowed is nothing that the index was tuned to find; then the search is widened until its
best no longer change. Where hardly a row is not allowed, a few more than are wanted are found among all, and those that
are not allowed left out.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.candidates import CandidateIndex
from index.selection import Selection

EXACT_ROWS = 16_384
"""Up to so many allowed rows each is compared, which is exact. At 384 dimensions it takes 5 ms for all of them, as long
as FAISS takes for their 8-bit codes; beyond, reading whole embeddings is slower than reading codes."""

ROWS_PER_BLOCK = 2048
FEW = 1 / 20
"""Up to this share of rows that are not allowed, as of those deleted, a search among all is tried first."""

SPARE, LEAST_SPARE = 1 / 8, 4
"""How many more it then asks for, as a share of the depth: of so many nearest that are not allowed it is as good."""

FAMILIAR = 0.8
"""How likely, at least, a row near the query is allowed, as a share of how likely any row is."""

GROWTH = 4
"""How much further each next look goes. Three times out of four the last one is the whole cost."""

SETTLED = 10
"""How many of the best have to stay the same."""

Scan = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""(rows,) to their (rows,) exact nearness to the query, higher is nearer."""


@dataclass(frozen=True)
class _Look:
    """How far to look for a query: the parameter's name, where to begin, its end, and whether to stop there."""

    parameter: str
    start: int
    most: int
    familiar: bool
    exhaustive: bool  # is every row seen at ``most``?


class NarrowedSearch:
    """Searches of a FAISS index among allowed rows. Safe to use from several threads."""

    def __init__(self, candidates: CandidateIndex) -> None:
        self._candidates = candidates
        self._transforms, self._core = _layers(candidates.raw)

    def search(
        self,
        query: NDArray[np.float32],
        depth: int,
        params: Mapping[str, int],
        allowed: Selection,
        scan: Scan,
    ) -> NDArray[np.int64]:
        """(found,) rows near a query, allowed ones only: ``depth``, or some more, or all that there are.

        Args:
            query: (width,) as FAISS is asked.
            depth: how many are wanted.
            params: what a search among all rows was tuned to.
            allowed: which rows may be found.
            scan: how near some rows are, exactly.
        """
        count = allowed.count
        if count == len(allowed):
            return self.among_all(query, depth, params, scan)
        if count <= max(EXACT_ROWS, depth):
            return nearest_of(allowed.rows, depth, scan)
        if len(allowed) - count <= FEW * len(allowed):
            near = self._candidates.search(query, depth + max(LEAST_SPARE, int(SPARE * depth)), params)
            near = near[allowed.flags[near]]
            if len(near) >= depth:
                return near  # which of equals are kept is not for FAISS to say
        share = count / len(allowed)
        if isinstance(self._core, faiss.IndexIVF):
            look = self._through_lists(query, params, allowed, share)
        elif isinstance(self._core, faiss.IndexHNSW):
            effort = self._effort(params, depth)["efSearch"]
            near = self._candidates.search(query, effort, params)
            if len(near) >= depth and allowed.flags[near[:depth]].all():
                return near[:depth]
            look = _along_links(near, effort, allowed, share)
        else:  # every row is looked at
            return self._candidates.search(query, depth, params, allowed)
        settled: set[int] | None = None
        for width in _widths(look):
            found = self._candidates.search(query, depth, {**params, look.parameter: width}, allowed)
            best = set(found[:SETTLED].tolist())
            if len(found) == depth and (look.familiar or best == settled):
                return found
            settled = best
        return found if look.exhaustive else nearest_of(allowed.rows, depth, scan)

    def among_all(
        self, query: NDArray[np.float32], depth: int, params: Mapping[str, int], scan: Scan
    ) -> NDArray[np.int64]:
        """(found,) rows near a query, nearest first: ``depth``, or all if there are fewer.

        Args:
            query: (width,) as FAISS is asked.
            depth: at most this many rows.
            params: what it was tuned to, which is for a few of the nearest: so few lists may hold fewer than ``depth``,
                and so few steps along links find them no better than by chance.
            scan: how near some rows are, exactly.
        """
        linked = isinstance(self._core, faiss.IndexHNSW)
        found = self._candidates.search(query, depth, self._effort(params, depth) if linked else params)
        wanted = min(depth, len(self._candidates))
        if isinstance(self._core, faiss.IndexIVF):
            nprobe, most = params.get("nprobe", int(self._core.nprobe)), int(self._core.nlist)
            while len(found) < wanted and nprobe < most:
                nprobe = min(GROWTH * nprobe, most)
                found = self._candidates.search(query, depth, {**params, "nprobe": nprobe})
        elif linked and len(found) < wanted:  # no links lead to the others
            return nearest_of(np.arange(len(self._candidates)), depth, scan)
        return found

    def _effort(self, params: Mapping[str, int], depth: int) -> dict[str, int]:
        """What a graph is walked with for so many: it stops once that many of those it saw lead to none better."""
        return {**params, "efSearch": max(params.get("efSearch", int(self._core.hnsw.efSearch)), depth)}

    def _through_lists(
        self, query: NDArray[np.float32], params: Mapping[str, int], allowed: Selection, share: float
    ) -> _Look:
        for transform in self._transforms:
            query = transform.apply_py(query[None])[0]
        nprobe = params.get("nprobe", int(self._core.nprobe))
        lists, local = self._lists.reach(query, nprobe, allowed)
        return _Look("nprobe", lists, int(self._core.nlist), local >= FAMILIAR * share, exhaustive=True)

    @cached_property
    def _lists(self) -> "_Lists":
        return _Lists(self._core)


class _Lists:
    """Which rows are in which inverted list? Views into the FAISS index, which they keep."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self._rows = [_rows_of(index.invlists, number) for number in range(index.nlist)]

    def reach(self, query: NDArray[np.float32], nprobe: int, allowed: Selection) -> tuple[int, float]:
        """How many lists hold as many allowed rows as the nearest ``nprobe`` hold rows; the share allowed in those."""
        number = 2 * nprobe
        counts: list[int] = []
        while True:
            _, (nearest,) = self._index.quantizer.search(query[None], min(number, self._index.nlist))
            near = nearest[nearest >= 0].tolist()
            counts += [allowed.in_list(which, self._rows[which]) for which in near[len(counts) :]]
            wanted = sum(len(self._rows[which]) for which in near[:nprobe])
            seen = np.cumsum(counts)
            if seen[-1] >= wanted or len(near) < number:
                lists = int(np.searchsorted(seen, wanted)) + 1
                return max(nprobe, min(lists, len(near))), sum(counts[:nprobe]) / max(wanted, 1)
            number *= GROWTH


def nearest_of(rows: NDArray[np.int64], depth: int, scan: Scan) -> NDArray[np.int64]:
    """(found,) the ``depth`` nearest of some rows, nearest first, ties by row; read in the order of the file."""
    if not len(rows):
        return rows
    parts = [scan(rows[start : start + ROWS_PER_BLOCK]) for start in range(0, len(rows), ROWS_PER_BLOCK)]
    nearness = np.concatenate(parts)  # (rows,)
    if len(rows) > depth:
        least = np.partition(nearness, len(rows) - depth)[len(rows) - depth]
        kept = nearness >= least
        rows, nearness = rows[kept], nearness[kept]
    return rows[np.lexsort((rows, -nearness))][:depth]


def _along_links(near: NDArray[np.int64], effort: int, allowed: Selection, share: float) -> _Look:
    local = float(allowed.flags[near].mean()) if len(near) else 0.0
    # Walking through an eighth of a graph costs more than comparing all of its rows.
    most = len(allowed) // 8
    return _Look("efSearch", math.ceil(effort / share), most, local >= FAMILIAR * share, exhaustive=False)


def _widths(look: _Look) -> Iterator[int]:
    width = look.start
    while width < look.most:
        yield width
        width *= GROWTH
    if look.exhaustive:
        yield look.most


def _layers(index: faiss.Index) -> tuple[list[Any], Any]:
    """What is done to a vector before it is searched for, and what searches."""
    transforms: list[Any] = []
    layer: Any = faiss.downcast_index(index)
    while isinstance(layer, faiss.IndexPreTransform):
        chain: Any = layer.chain  # a vector of C++, which the stubs take for a list
        transforms += [faiss.downcast_VectorTransform(chain.at(at)) for at in range(chain.size())]
        layer = faiss.downcast_index(layer.index)
    return transforms, layer


def _rows_of(lists: Any, number: int) -> NDArray[np.int64]:
    """(size,) the rows of one list, as a view."""
    size = lists.list_size(number)
    return faiss.rev_swig_ptr(lists.get_ids(number), size) if size else np.empty(0, np.int64)
