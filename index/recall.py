"""How much of an exhaustive search's answer does this one find, and what must it be asked so that it is enough?

The cheapest parameters that reach the target are looked for with one half of the queries. The other half then tests
settings that were fixed by the first, from sixteen times that effort downwards, each by a one-sided 95 % bound, until
one fails; the last that passed is taken. Testing in an order fixed beforehand, up to the first failure, keeps the
chance that a setting is taken wrongly at 5 % without a correction for the number of tests.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from index.candidates import Dial
from index.manifest import EndToEnd, IndexFault, Proof, RecipeFault
from index.nearest import Tuning

Floats = NDArray[np.float32]
Scores = Callable[[Floats, Floats], NDArray[np.floating]]
"""A (dim,) query and (rows, dim) embeddings to a head's (rows,) logits."""

Z = 1.6448536269514722
"""95 % of a normal distribution lie below this many deviations."""

TOLERANCE = 1e-5  # of a similarity or a logit: what is beyond depends on the kernel, not on the texts
LEAST_QUERIES = 1000  # in each half, of those that are sampled
QUERIES_OF_AN_EXACT_INDEX = 100  # a check, not an estimate
QUERIES_TO_REFINE_BY = 200
MOST_REFINE = 64
SHARE_OF_CODES = 1 / 4
"""Of the answers that may be missed, how many may be missed because codes are coarse."""
MARGINS = (16.0, 8.0, 4.0, 3.0, 2.0, 1.5, 1.25, 1.0)
TIMED_QUERIES = 200
DEPTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
HEAD_PAIRS = 2_000_000
LEAST_HEAD_QUERIES, MOST_HEAD_QUERIES = 20, 100
BLOCK_BYTES = 2**23
HEAD_ROWS = 4096
DECIMALS = 6


class Tunable(Protocol):
    """What finds candidates, as far as it can be tuned."""

    @property
    def exact(self) -> bool:
        """Does it compare every vector, as it was given?"""
        ...

    @property
    def dial(self) -> Dial | None:
        """What there is to tune."""
        ...


class Searched(Protocol):
    """A search to be proven: of a folder's FAISS index, or of a collection in Milvus."""

    @property
    def candidates(self) -> Tunable:
        """What finds them."""
        ...

    @property
    def embeddings(self) -> Floats:
        """(rows, dim) of everything that can be found, perhaps memory-mapped."""
        ...

    def query_vectors(self, queries: Floats) -> Floats:
        """(queries, width) of (queries, dim) embeddings: what is asked with."""
        ...

    def vectors(self, embeddings: Floats) -> Floats:
        """(rows, width) of (rows, dim) embeddings: what is compared with."""
        ...

    def closeness(self, query: Floats, embeddings: Floats) -> Floats:
        """(rows,) how near (rows, dim) embeddings are to a (dim,) query, exactly."""
        ...

    def search(self, query: Floats, depth: int, tuning: Tuning) -> tuple[NDArray[np.int64], Floats]:
        """(found,) rows nearest to a (dim,) query and their (found, dim) embeddings, in no order."""
        ...


@dataclass(frozen=True)
class Aim:
    """What a search must be shown to find before it is published."""

    target: float = 0.95
    """Recall@k that the lower bound must reach."""
    k: int = 10
    queries: Floats | None = None
    """(queries, dim) embeddings of what will be asked; None: documents, each looking for the others."""
    texts: tuple[str, ...] = ()
    """The queries, to be kept for generations that follow; none: they are not."""
    scores: Scores | None = None
    """The head, for the recall end to end and the depth; None: neither is measured."""
    depth: int | None = None
    """For the head, where it is not measured."""

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise IndexFault(f"a target recall of {self.target} cannot be proven; give one above 0 and below 1")


@dataclass(frozen=True)
class Milliseconds:
    """Of one search for ``depth`` candidates on one machine, one query at a time."""

    p50: float
    p99: float
    depth: int


@dataclass(frozen=True)
class Proven:
    """How to search, and what that was shown to find."""

    tuning: Tuning
    proof: Proof
    depth: int | None
    milliseconds: Milliseconds


@dataclass(frozen=True)
class Trial:
    """Queries whose right answers are known. A query that is a document does not look for itself."""

    nearest: Searched
    queries: Floats  # (queries, dim)
    own: NDArray[np.int64] | None  # (queries,) the row that each query is; None: they are no documents
    wanted: int

    @cached_property
    def k(self) -> int:
        """Answers a query: as many as are wanted and there are."""
        return min(self.wanted, len(self.nearest.embeddings) - (self.own is not None))

    @cached_property
    def least(self) -> Floats:
        """(queries,) how near the k-th nearest row is, by exhaustive search. Rows that tie with it are as right."""
        vectors = self.nearest.query_vectors(self.queries)
        best = np.full((len(vectors), max(self.k, 1)), -np.inf, np.float32)
        for start, block in self._blocks(max(1, BLOCK_BYTES // (4 * max(1, len(vectors))))):
            closeness = vectors @ self.nearest.vectors(block).T  # (queries, block)
            if self.own is not None:
                inside = np.flatnonzero((self.own >= start) & (self.own < start + len(block)))
                closeness[inside, self.own[inside] - start] = -np.inf
            best = _largest(np.concatenate([best, closeness], axis=1), best.shape[1])
        return best.min(axis=1)

    def recalls(self, tuning: Tuning) -> NDArray[np.float64]:
        """(queries,) share of each query's k nearest that is found when k are asked for."""
        if not self.k:
            return np.ones(len(self.queries))
        found = np.empty(len(self.queries))
        for number, query in enumerate(self.queries):
            closeness = self.nearest.closeness(query, self.others(number, self.k, tuning))
            found[number] = np.count_nonzero(closeness >= self.least[number] - TOLERANCE)
        return np.minimum(found, self.k) / self.k

    def others(self, number: int, depth: int, tuning: Tuning) -> Floats:
        """(found, dim) embeddings of the at most ``depth`` candidates of one query, itself left out."""
        query = self.queries[number]
        if self.own is None:
            return self.nearest.search(query, depth, tuning)[1]
        rows, embeddings = self.nearest.search(query, depth + 1, tuning)
        embeddings = embeddings[rows != self.own[number]]
        if len(embeddings) > depth:
            order = np.argsort(-self.nearest.closeness(query, embeddings), kind="stable")
            embeddings = embeddings[order[:depth]]
        return embeddings

    def first(self, count: int) -> "Trial":
        """The same of fewer queries."""
        return replace(self, queries=self.queries[:count], own=None if self.own is None else self.own[:count])

    def least_logits(self, scores: Scores) -> NDArray[np.float64]:
        """(queries,) the head's k-th best logit over all rows."""
        least = np.empty(len(self.queries))
        for number, query in enumerate(self.queries):
            best = np.full((1, self.k), -np.inf)
            for start, block in self._blocks(HEAD_ROWS):
                logits = np.array(scores(query, block), np.float64)
                if self.own is not None and start <= self.own[number] < start + len(block):
                    logits[self.own[number] - start] = -np.inf
                best = _largest(np.concatenate([best, logits[None]], axis=1), self.k)
            least[number] = best.min()
        return least

    def _blocks(self, rows: int) -> Iterator[tuple[int, Floats]]:
        for start in range(0, len(self.nearest.embeddings), rows):
            yield start, np.asarray(self.nearest.embeddings[start : start + rows])


def prove(
    nearest: Searched, recipe: str, index_bytes: int, aim: Aim, stage: Callable[[str], None] = lambda words: None
) -> Proven:
    """Tune a search until it finds what it must, and show that it does.

    Args:
        nearest: what to search; one row or more.
        recipe: what it was built by, for messages.
        index_bytes: the size of its FAISS file, for the proof.
        aim: what it must find.
        stage: told what is being done.

    Raises:
        RecipeFault: the lower bound does not reach the target; the message says what was reached, and what to do.
    """
    tuned_by, trial, method = _trials(nearest, aim)
    if method == "exhaustive":
        stage("comparing with exhaustive search")
        tuning, recalls, curve = Tuning(), trial.recalls(Tuning()), dict[int, float]()
        if _bound(recalls, method) < aim.target:
            raise _unproven(recipe, aim, recalls, method, tuning)
    else:
        stage("tuning search parameters")
        cheapest, most, at, curve = _tuned(tuned_by, aim.target)
        stage("proving recall")
        tuning, recalls = _last_to_pass(trial, at, cheapest, most, recipe, aim, method)
    depth, end_to_end = aim.depth, None
    if aim.scores is not None and trial.k:
        stage("comparing with the head's exhaustive ranking")
        depth, end_to_end = _end_to_end(trial, aim.scores, tuning, aim.target)
    proof = Proof(
        target=aim.target,
        k=aim.k,
        asked="queries" if aim.queries is not None else "documents",
        queries=len(recalls),
        recall=round(float(recalls.mean()), DECIMALS),
        lower_bound=round(_bound(recalls, method), DECIMALS),
        method=method,
        curve=curve,
        index_bytes=index_bytes,
        end_to_end=end_to_end,
    )
    return Proven(tuning, proof, depth, _timed(trial, tuning, depth or aim.k))


def lower_bound(recall: float, queries: int) -> float:
    """Wilson's score bound, one-sided, at 95 %, of the mean of so many recalls.

    A recall lies between 0 and 1, so it varies at most as much as a coin of the same mean, for which the bound is made.

    >>> round(lower_bound(0.96, 1000), 4), round(lower_bound(1.0, 1000), 4)
    (0.9485, 0.9973)
    """
    shrink = Z**2 / queries
    spread = Z * math.sqrt(recall * (1 - recall) / queries + shrink / (4 * queries))
    return (recall + shrink / 2 - spread) / (1 + shrink)


def least_queries(target: float) -> int:
    """How many queries it takes to prove a target when every one of them finds everything."""
    return math.ceil(Z**2 * target / (1 - target))


Method = Literal["wilson", "every document", "exhaustive"]


def _trials(nearest: Searched, aim: Aim) -> tuple[Trial, Trial, Method]:
    """Queries to tune with, queries to prove with, and what kind of proof they make.

    Both are in the order in which they were drawn, so that the first few are a sample as well.
    """
    rows, dims = nearest.embeddings.shape
    each = max(LEAST_QUERIES, 2 * least_queries(aim.target))
    if aim.queries is not None and (aim.queries.ndim != 2 or aim.queries.shape[1] != dims or len(aim.queries) < 2):
        raise IndexFault(f"queries of shape {aim.queries.shape} do not fit; give two or more of {dims} dimensions")
    asked = rows if aim.queries is None else len(aim.queries)
    picked = np.random.default_rng(0).permutation(asked)

    def trial(numbers: NDArray[np.int64]) -> Trial:
        if aim.queries is None:
            in_order, places = np.unique(numbers, return_inverse=True)  # as a memory map is read best
            return Trial(nearest, np.asarray(nearest.embeddings[in_order])[places], numbers, aim.k)
        return Trial(nearest, aim.queries[numbers], None, aim.k)

    if nearest.candidates.exact:
        one = trial(picked[:QUERIES_OF_AN_EXACT_INDEX])
        return one, one, "exhaustive"
    if aim.queries is None and rows <= 2 * each:
        one = trial(picked)
        return one, one, "every document"
    half = asked // 2 if aim.queries is not None else each
    return trial(picked[half : 2 * half]), trial(picked[:half]), "wilson"


def _bound(recalls: NDArray[np.float64], method: Method) -> float:
    mean = float(recalls.mean())
    return lower_bound(mean, len(recalls)) if method == "wilson" else mean


def _tuned(trial: Trial, target: float) -> tuple[int, int, Callable[[int], Tuning], dict[int, float]]:
    """The least value of what there is to turn that reaches the target, the largest, what it means, and the curve."""
    dial = trial.nearest.candidates.dial
    most_refine = max(1, min(MOST_REFINE, math.ceil(len(trial.nearest.embeddings) / (trial.k + 1))))
    if dial is None:
        most = most_refine

        def at(value: int) -> Tuning:
            return Tuning({}, value)

    else:
        name, most, few = dial.name, dial.most, trial.first(QUERIES_TO_REFINE_BY)
        enough = 1 - SHARE_OF_CODES * (1 - target)
        refine = 1
        while refine < most_refine and few.recalls(Tuning({name: most}, refine)).mean() < enough:
            refine = min(2 * refine, most_refine)

        def at(value: int) -> Tuning:
            return Tuning({name: value}, refine)

    curve: dict[int, float] = {}

    def reaches(value: int) -> bool:
        curve[value] = round(float(trial.recalls(at(value)).mean()), DECIMALS)
        return curve[value] >= target

    return _least(reaches, most), most, at, curve


def _least(reaches: Callable[[int], bool], most: int) -> int:
    """About the smallest value from 1 to ``most`` that reaches what is wanted; ``most`` if none below does."""
    below, value = 0, 1
    while value < most and not reaches(value):
        below, value = value, min(2 * value, most)
    if value == most and not reaches(most):
        return most
    while value - below > max(1, below // 16):
        middle = (below + value) // 2
        below, value = (below, middle) if reaches(middle) else (middle, value)
    return value


def _last_to_pass(
    trial: Trial, at: Callable[[int], Tuning], cheapest: int, most: int, recipe: str, aim: Aim, method: Method
) -> tuple[Tuning, NDArray[np.float64]]:
    """Of settings in falling order of effort, the last before the first that cannot be proven."""
    passed = None
    for value in sorted({min(most, math.ceil(margin * cheapest)) for margin in MARGINS}, reverse=True):
        tuning = at(value)
        recalls = trial.recalls(tuning)
        if _bound(recalls, method) < aim.target:
            break
        passed = tuning, recalls
    if passed is None:
        raise _unproven(recipe, aim, recalls, method, tuning)
    return passed


def _unproven(recipe: str, aim: Aim, recalls: NDArray[np.float64], method: Method, tuning: Tuning) -> RecipeFault:
    count, needed = len(recalls), least_queries(aim.target)
    asked = ", ".join(f"{name} {value}" for name, value in [*tuning.search.items(), ("refine", tuning.refine)])
    reached = (
        f"recall@{aim.k} of {aim.target} is not proven for {recipe}: with {asked} it finds {recalls.mean():.4f}, lower "
        f"bound {_bound(recalls, method):.4f}, over {count:,} {'queries' if aim.queries is not None else 'documents'}; "
        "nothing is published: "
    )
    if method == "wilson" and count < needed:
        return RecipeFault(
            f"{reached}so few could not prove it if all were found: give {2 * needed:,} queries or more (half of them "
            "tune), or leave --queries out"
        )
    return RecipeFault(
        f"{reached}choose a recipe that loses less (--recipe Flat is exact, SQ8 and IVF...,SQ8 nearly so), or lower "
        "--target-recall"
    )


def _end_to_end(trial: Trial, scores: Scores, tuning: Tuning, target: float) -> tuple[int, EndToEnd]:
    """The least depth at which the head is given enough of what it would rank highest, and the recall by depth."""
    rows = len(trial.nearest.embeddings)
    few = trial.first(min(MOST_HEAD_QUERIES, max(LEAST_HEAD_QUERIES, HEAD_PAIRS // rows)))
    least, k = few.least_logits(scores), few.k
    recall: dict[int, float] = {}
    for depth in sorted({max(trial.wanted, depth) for depth in DEPTHS}):
        found = np.empty(len(few.queries))
        for number, query in enumerate(few.queries):
            logits = scores(query, few.others(number, depth, tuning))
            found[number] = min(k, int(np.count_nonzero(logits >= least[number] - TOLERANCE))) / k
        recall[depth] = round(float(found.mean()), DECIMALS)
        if recall[depth] >= target or depth >= rows:
            break
    return depth, EndToEnd(queries=len(few.queries), recall=recall)


def _timed(trial: Trial, tuning: Tuning, depth: int) -> Milliseconds:
    taken = []
    for query in trial.queries[:TIMED_QUERIES]:
        started = time.perf_counter()
        trial.nearest.search(query, depth, tuning)
        taken.append(1000 * (time.perf_counter() - started))
    p50, p99 = np.percentile(taken, [50, 99])
    return Milliseconds(round(float(p50), 3), round(float(p99), 3), depth)


def _largest(values: NDArray[np.floating], count: int) -> NDArray[np.floating]:
    """(rows, count) the largest of each row, in no order."""
    return np.partition(values, values.shape[1] - count, axis=1)[:, -count:]
