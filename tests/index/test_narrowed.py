import math

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.narrowed as narrowed_module
from index.candidates import CandidateIndex
from index.exact import exact_search
from index.narrowed import NarrowedSearch, nearest_of
from index.selection import Selection
from tests.index.vectors import unit

ROWS, DIMS, CLUSTERS, LISTS, QUERIES = 6000, 16, 40, 64, 40


@pytest.fixture(scope="module")
def clusters() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, dim) embeddings that lie in clusters, the (rows,) cluster of each, and (queries, dim) more of the same."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLUSTERS, DIMS))
    of_row, of_query = random.integers(0, CLUSTERS, ROWS), random.integers(0, CLUSTERS, QUERIES)
    rows, queries = (centres[of] + 0.6 * random.normal(size=(len(of), DIMS)) for of in (of_row, of_query))
    return unit(rows), of_row, unit(queries)


def index_of(rows: np.ndarray, recipe: str) -> faiss.Index:
    built = faiss.index_factory(rows.shape[1], recipe, faiss.METRIC_INNER_PRODUCT)
    built.train(rows)
    built.add(rows)
    return built


def best_allowed(rows: np.ndarray, query: np.ndarray, allowed: np.ndarray, depth: int) -> np.ndarray:
    """The oracle."""
    some = np.flatnonzero(allowed)
    return some[exact_search(rows[some], query, depth)]


def never(rows: np.ndarray) -> np.ndarray:
    raise AssertionError("every allowed row was compared")


PLACES = {
    # Rows of clusters that are drawn, so that a query's own is among them or is not.
    "drawn": lambda near: np.random.default_rng(1).permutation(CLUSTERS),
    "far": lambda near: near[::-1],
    "beyond the nearest": lambda near: np.roll(near, -CLUSTERS // 4),
}


@pytest.mark.parametrize("share", [0.5, 0.2, 0.1])
@pytest.mark.parametrize("place", ["anywhere", *PLACES])
@pytest.mark.parametrize(
    ("recipe", "params"),
    [
        (f"IVF{LISTS},SQ8", {"nprobe": 6}),
        (f"RR16,IVF{LISTS},Flat", {"nprobe": 6}),
        (f"IVF{LISTS},PQ16x4fs", {"nprobe": 6}),
        ("HNSW16", {"efSearch": 24}),
        ("SQ8", {}),
    ],
)
def test_recall_is_kept_wherever_the_allowed_rows_are(
    clusters, monkeypatch: pytest.MonkeyPatch, recipe: str, params: dict[str, int], place: str, share: float
) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 0)
    rows, cluster, queries = clusters
    index = CandidateIndex(built(rows, recipe))
    narrowed = NarrowedSearch(index)
    everything = np.ones(ROWS, np.bool_)
    recalls = []
    for query in queries:
        if place == "anywhere":
            allowed = np.random.default_rng(2).random(ROWS) < share
        else:
            centres = np.array([rows[cluster == number].mean(axis=0) for number in range(CLUSTERS)])
            allowed = np.isin(cluster, PLACES[place](np.argsort(-centres @ query))[: int(share * CLUSTERS)])
        found = narrowed.search(query, 50, params, Selection(allowed), lambda some: rows[some] @ query)  # noqa: B023
        assert allowed[found].all()
        assert len(found) == len(set(found)) == 50
        share_of = [
            len(set(best_allowed(rows, query, mask, 10)) & set(among)) / 10
            for mask, among in ((allowed, found), (everything, index.search(query, 50, params)))
        ]
        recalls.append(share_of)
    narrow, plain = np.mean(recalls, axis=0)
    assert plain > 0.9
    assert narrow >= min(plain, 0.95)


BUILT: dict[str, faiss.Index] = {}


def built(rows: np.ndarray, recipe: str) -> faiss.Index:
    if recipe not in BUILT:
        BUILT[recipe] = index_of(rows, recipe)
    return BUILT[recipe]


class Watched(CandidateIndex):
    """Remembers the parameters of its searches."""

    def __init__(self, faiss_index: faiss.Index) -> None:
        super().__init__(faiss_index)
        self.asked: list[dict[str, int]] = []

    def search(self, query, depth, params=None, allowed=None):
        self.asked.append(params)
        return super().search(query, depth, params, allowed)


def test_among_rows_allowed_at_random_it_looks_no_further_than_needed(clusters, monkeypatch) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 0)
    rows, _, queries = clusters
    index = Watched(built(rows, f"IVF{LISTS},SQ8"))
    narrowed = NarrowedSearch(index)
    allowed = np.random.default_rng(2).random(ROWS) < 0.5
    for query in queries:
        narrowed.search(query, 10, {"nprobe": 6}, Selection(allowed), never)
    assert len(index.asked) == len(queries)
    assert 9 <= np.mean([params["nprobe"] for params in index.asked]) <= 15
    index.asked.clear()
    narrowed.search(queries[0], 10, {"nprobe": 6}, Selection(np.ones(ROWS, np.bool_)), never)
    assert index.asked == [{"nprobe": 6}]


def test_the_depth_is_filled_where_so_many_rows_are_allowed(clusters, monkeypatch) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 0)
    rows, _, (query, *_) = clusters
    allowed = np.random.default_rng(2).random(ROWS) < 0.5
    found = NarrowedSearch(CandidateIndex(built(rows, f"IVF{LISTS},SQ8"))).search(
        query, 1000, {"nprobe": 1}, Selection(allowed), never
    )
    assert len(found) == 1000


@pytest.mark.parametrize("recipe", [f"IVF{LISTS},SQ8", f"RR16,IVF{LISTS},Flat", f"IVF{LISTS},PQ16x4fs"])
def test_among_all_rows_more_lists_are_looked_at_where_those_hold_too_few(clusters, recipe: str) -> None:
    rows, _, (query, *_) = clusters
    index = Watched(built(rows, recipe))
    in_two = len(index.search(query, ROWS, {"nprobe": 2}))
    for depth, widths in (
        (in_two, [2]),
        (in_two + 1, [2, 8]),
        (ROWS, [2, 8, 32, LISTS]),
        (ROWS + 1, [2, 8, 32, LISTS]),
    ):
        index.asked.clear()
        found = NarrowedSearch(index).among_all(query, depth, {"nprobe": 2}, never)
        assert len(np.unique(found)) == len(found) == min(depth, ROWS)
        assert index.asked == [{"nprobe": width} for width in widths]
        every = Selection(np.ones(ROWS, np.bool_))
        assert NarrowedSearch(index).search(query, depth, {"nprobe": 2}, every, never).tolist() == found.tolist()


@pytest.mark.parametrize("twins", [1, 500])
def test_a_graph_finds_as_many_as_are_wanted(clusters, twins: int) -> None:
    """However little it was tuned to walk, and whether or not links lead to all rows, as among many equal ones."""
    rows = np.repeat(clusters[0][:: ROWS // 2000], [twins, *[1] * 1999], axis=0)[:2000]
    narrowed = NarrowedSearch(CandidateIndex(index_of(rows, "HNSW16")))
    every = Selection(np.ones(len(rows), np.bool_))
    for depth in (10, 100, 1000, len(rows), len(rows) + 1):
        recalls = []
        for query in clusters[2][:10]:

            def scan(some: np.ndarray, query: np.ndarray = query) -> np.ndarray:
                return rows[some] @ query

            found = narrowed.among_all(query, depth, {"efSearch": 3}, scan)
            assert len(np.unique(found)) == len(found) == min(depth, len(rows))
            assert narrowed.search(query, depth, {"efSearch": 3}, every, scan).tolist() == found.tolist()
            least = np.sort(rows @ query)[::-1][len(found) - 1]
            recalls.append(np.mean(rows[found] @ query >= least - 1e-6))
        assert np.mean(recalls) > 0.9


def test_a_graph_is_walked_as_much_further_as_fewer_rows_are_allowed(clusters, monkeypatch) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 0)
    rows, _, (query, *_) = clusters
    index = Watched(built(rows, "HNSW16"))
    allowed = np.arange(ROWS) % 4 == 0
    allowed[index.search(query, 24, {"efSearch": 24})[1::2]] = True  # every other near row
    NarrowedSearch(index).search(query, 10, {"efSearch": 24}, Selection(allowed), never)
    assert index.asked[1:] == [{"efSearch": 24}, {"efSearch": math.ceil(24 * ROWS / allowed.sum())}]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 80),
    share=st.floats(0, 1),
    depth=st.integers(1, 90),
    recipe=st.sampled_from(["Flat", "SQ8", "HNSW8"]),
)
def test_few_allowed_rows_are_searched_exactly(seed: int, count: int, share: float, depth: int, recipe: str) -> None:
    random = np.random.default_rng(seed)
    rows, query = unit(random.normal(size=(count, 8))), unit(random.normal(size=(1, 8)))[0]
    allowed = random.random(count) < share
    narrowed = NarrowedSearch(CandidateIndex.build(rows, recipe))
    found = narrowed.search(query, depth, {}, Selection(allowed), lambda some: rows[some] @ query)
    if not allowed.all() or recipe == "Flat":
        np.testing.assert_array_equal(found, best_allowed(rows, query, allowed, depth))


def test_equal_rows_are_ordered_by_row_across_blocks(monkeypatch) -> None:
    monkeypatch.setattr(narrowed_module, "ROWS_PER_BLOCK", 3)
    nearness = np.array([0, 5, 5, 9, 5, 5, 5, 1], np.float32)
    assert nearest_of(np.arange(8), 4, lambda rows: nearness[rows]).tolist() == [3, 1, 2, 4]
    assert nearest_of(np.array([6, 7]), 4, lambda rows: nearness[rows]).tolist() == [6, 7]
    assert nearest_of(np.empty(0, np.int64), 4, never).tolist() == []


def test_the_threshold_is_counted_in_allowed_rows(clusters, monkeypatch) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 100)
    rows, _, (query, *_) = clusters
    narrowed = NarrowedSearch(CandidateIndex(built(rows, "SQ8")))
    allowed = np.zeros(ROWS, np.bool_)
    allowed[:101] = True
    assert len(narrowed.search(query, 5, {}, Selection(allowed), never)) == 5
    allowed[0] = False
    with pytest.raises(AssertionError, match="every allowed row"):
        narrowed.search(query, 5, {}, Selection(allowed), never)


def test_a_graph_whose_answer_is_allowed_is_walked_once(clusters, monkeypatch) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 0)
    rows, _, (query, *_) = clusters
    index = Watched(built(rows, "HNSW16"))
    plain = index.search(query, 10, {"efSearch": 24})
    allowed = np.ones(ROWS, np.bool_)
    allowed[np.setdiff1d(np.arange(ROWS), plain)[:3000]] = False
    index.asked.clear()
    found = NarrowedSearch(index).search(query, 10, {"efSearch": 24}, Selection(allowed), never)
    np.testing.assert_array_equal(found, plain)
    assert index.asked == [{"efSearch": 24}]


@pytest.mark.parametrize(
    ("recipe", "params"), [(f"IVF{LISTS},SQ8", {"nprobe": 6}), ("HNSW16", {"efSearch": 60}), ("SQ8", {})]
)
@pytest.mark.parametrize("depth", [10, 50])
def test_where_hardly_a_row_is_not_allowed_one_plain_search_is_enough(
    clusters, monkeypatch, recipe: str, params: dict[str, int], depth: int
) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 0)
    rows, _, queries = clusters
    index = Watched(built(rows, recipe))
    selection = Selection(np.random.default_rng(3).random(ROWS) > 0.01)
    found = [NarrowedSearch(index).search(query, depth, params, selection, never) for query in queries]
    assert index.asked == [params] * QUERIES
    assert "bitmap" not in vars(selection)  # nothing was packed for FAISS
    for query, near in zip(queries, found, strict=True):
        plain = index.search(query, 2 * depth, params)
        np.testing.assert_array_equal(near, plain[selection.flags[plain]][: len(near)])
        assert len(near) >= depth


@pytest.mark.parametrize("recipe", [f"IVF{LISTS},SQ8", f"RR16,IVF{LISTS},Flat"])
def test_where_just_the_nearest_are_not_allowed_it_looks_further(clusters, monkeypatch, recipe: str) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", 0)
    rows, _, queries = clusters
    params = {"nprobe": 6}
    shares = []
    for query in queries:
        allowed = np.ones(ROWS, np.bool_)
        allowed[exact_search(rows, query, ROWS // 25)] = False
        narrowed = NarrowedSearch(CandidateIndex(built(rows, recipe)))
        found = narrowed.search(query, 10, params, Selection(allowed), never)
        assert allowed[found].all()
        assert len(found) == 10
        shares.append(len(set(found) & set(best_allowed(rows, query, allowed, 10))) / 10)
    assert np.mean(shares) > 0.9
