"""Which FAISS recipe suits this many rows, and how much memory does it take?"""

import math
import re
from dataclasses import dataclass
from typing import Any

import faiss

from index.manifest import IndexFault, RecipeFault

FLAT_ROWS = 50_000
"""Up to here every row is looked at: exact, nothing to tune, and a few milliseconds a query."""

MOST_LISTS = 4096
"""Of a recipe that is chosen: more would need a larger sample to train on."""

ROWS_PER_ADD = 16_384
TRAINING_ROWS = 16_384
ROWS_PER_LIST = 40
"""FAISS wants 39 training rows a list."""

LARGEST_NUMBER = 2**20
"""In a factory string. FAISS makes room for as many lists or links as it is told before it looks at any row."""

_PLAIN = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexRaBitQ)
_LISTS = (
    faiss.IndexIVFFlat,
    faiss.IndexIVFScalarQuantizer,
    faiss.IndexIVFPQ,
    faiss.IndexIVFPQFastScan,
    faiss.IndexIVFRaBitQ,
    faiss.IndexIVFRaBitQFastScan,
)
_GRAPHS = (faiss.IndexHNSWFlat, faiss.IndexHNSWSQ, faiss.IndexHNSWPQ)
_ADVICE = (
    "choose Flat (exact), SQ8 (a quarter of the memory), HNSW32 (fastest), IVF1024,SQ8 (large indexes) or "
    "IVF4096,PQ192x4fs (little memory; the number before x4fs divides the dimensions)"
)


@dataclass(frozen=True)
class Plan:
    """A recipe, and the memory it takes over some rows: the index alone, and at most while it is made."""

    recipe: str
    index_bytes: int
    build_bytes: int

    def __str__(self) -> str:
        return f"{self.recipe}: {_size(self.index_bytes)} of index, {_size(self.build_bytes)} of memory to make it"


def choose(rows: int, dims: int, memory: int | None = None) -> Plan:
    """The recipe for this many vectors, by what is lost least: nothing, then bytes to codes, then most of them.

    Flat up to :data:`FLAT_ROWS`, then inverted lists of 8-bit codes, and codes of 2 bits and of 1 bit a dimension only
    where nothing else fits into ``memory`` bytes.

    Raises:
        IndexFault: nothing fits; the message says how much would be needed.
    """
    chosen = choose_or_least(rows, dims, memory)
    if memory is not None and chosen.build_bytes > memory:
        raise IndexFault(
            f"{rows:,} rows of {dims} do not fit into {_size(memory)}; the least that works is {chosen}: "
            f"give --memory {chosen.build_bytes} or more, or index fewer documents"
        )
    return chosen


def choose_or_least(rows: int, dims: int, memory: int | None = None) -> Plan:
    """As :func:`choose`, but where nothing fits what takes the least memory: for rows that are there already."""
    lists = _lists_for(rows)
    half, quarter = _divisor(dims, dims // 2), _divisor(dims, dims // 4)
    wanted = [f"IVF{lists},SQ8", f"IVF{lists},PQ{half}x4fs", f"IVF{max(1, lists // 4)},PQ{quarter}x4fs"]
    if rows <= FLAT_ROWS:
        wanted.insert(0, "Flat")
    plans = [plan(recipe, rows, dims) for recipe in wanted]
    fitting = (one for one in plans if memory is None or one.build_bytes <= memory)
    return next(fitting, min(plans, key=lambda one: one.build_bytes))


def plan(recipe: str, rows: int, dims: int) -> Plan:
    """What a recipe takes over this many vectors.

    Raises:
        IndexFault: not a recipe of :func:`untrained`.
    """
    index = untrained(recipe, dims)
    core = core_of(index)
    if is_graph(core):
        links = core.hnsw.nb_neighbors(0)  # of level 0; a row in some sixteen has half as many on further levels
        row = core_of(core.storage).code_size + 4 * links * 1.1 + 16
    else:
        row = core.code_size
    lists = number_of_lists(core)
    if lists:
        row += 8  # the row's number
        if isinstance(core, (faiss.IndexIVFPQFastScan, faiss.IndexIVFRaBitQFastScan)):
            row += 32 * core.code_size * lists / max(rows, 1)  # lists are filled up to blocks of 32
    index_bytes = math.ceil(rows * row) + 4 * core.d * lists
    sample = 0 if index.is_trained else 4 * dims * training_rows(rows, lists)
    # Trainers copy what they are given (residuals, rotated rows), as do transforms, and what grows moves to more room.
    build_bytes = max(2 * sample, 2 * index_bytes) + 8 * rows + 8 * dims * min(rows, ROWS_PER_ADD)
    return Plan(recipe, index_bytes, build_bytes)


def untrained(recipe: str, dims: int) -> faiss.Index:
    """The empty index that a factory string describes.

    Raises:
        RecipeFault: FAISS cannot build it for inner products, or cannot pass over rows while it searches it.
    """
    if not recipe or any(int(number[:9]) > LARGEST_NUMBER for number in re.findall(r"\d+", recipe)):
        raise RecipeFault(f"{recipe!r} is not a recipe that can be built; {_ADVICE}")
    if re.search(r"(?<!\d)0+(?!\d)|HNSW1(?!\d)", recipe):
        raise RecipeFault(f"{recipe!r} is not a recipe that can be built: nothing can come of 0 or HNSW1; {_ADVICE}")
    try:
        index = faiss.index_factory(dims, recipe, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise RecipeFault(
            f"{recipe!r} is not a recipe that FAISS builds over {dims} dimensions for inner products "
            f"({str(error).splitlines()[-1].rpartition(': ')[2]}); {_ADVICE}"
        ) from error
    core = core_of(index)
    if isinstance(core, faiss.IndexRefine):
        raise RecipeFault(
            f"{recipe!r} is not a recipe for here: it keeps vectors a second time to refine with, and what is found "
            "is always refined from embeddings.npy; leave that part out"
        )
    if not isinstance(core, _PLAIN + _LISTS + _GRAPHS):
        raise RecipeFault(
            f"{recipe!r} is not a recipe for here: FAISS takes no search parameters for {type(core).__name__}, so rows "
            f"that were deleted or filtered out could not be passed over; {_ADVICE}"
        )
    return index


def core_of(index: Any) -> Any:
    """What searches, behind transforms of its vectors."""
    core: Any = faiss.downcast_index(index)
    while isinstance(core, faiss.IndexPreTransform):
        core = faiss.downcast_index(core.index)
    return core


def number_of_lists(core: Any) -> int:
    """Inverted lists of an index; 0 if it has none."""
    return int(core.nlist) if isinstance(core, _LISTS) else 0


def is_graph(core: Any) -> bool:
    """Is it searched along links?"""
    return isinstance(core, _GRAPHS)


def training_rows(rows: int, lists: int) -> int:
    """How many rows to train on: bounded, and enough for the lists."""
    return min(rows, max(TRAINING_ROWS, ROWS_PER_LIST * lists))


def _lists_for(rows: int) -> int:
    """A power of two near four times the square root of ``rows``, and no more than can be trained."""
    most = min(MOST_LISTS, max(1, rows // ROWS_PER_LIST))
    return min(2 ** round(math.log2(4 * math.sqrt(max(rows, 1)))), 2 ** int(math.log2(most)))


def _divisor(dims: int, most: int) -> int:
    """The largest divisor of ``dims`` that is not above ``most``, or 1."""
    return next((number for number in range(most, 0, -1) if dims % number == 0), 1)


def _size(number: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if number >= scale:
            return f"{number / scale:,.1f} {unit}"
    return f"{number:,} bytes"
