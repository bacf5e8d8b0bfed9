"""Which of more rows than are wanted are kept? The nearest by the stored embeddings, equals by row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.candidates import CandidateIndex
from index.generations import similarities_of
from index.nearest import NearestSearch, Tuning
from index.selection import Selection
from tests.index.vectors import unit_rows


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 40), depth=st.integers(1, 40))
def test_of_equal_rows_the_first_are_kept(seed: int, rows: int, depth: int) -> None:
    """Though a product of matrices may give equal rows sums that differ in their last bit, by where they stand."""
    one, query = unit_rows(seed, 1, dims=64), unit_rows(seed + 1, 1, dims=64)[0]
    embeddings = np.repeat(one, rows, axis=0)
    search = NearestSearch(CandidateIndex.build(embeddings, "SQ8"), embeddings, None)
    found, _ = search.search(query, depth, Tuning(refine=rows))  # so that all are fetched
    assert sorted(found.tolist()) == list(range(min(depth, rows)))


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 40), depth=st.integers(1, 40))
def test_of_equal_rows_that_are_compared_one_by_one_the_first_are_kept(seed: int, rows: int, depth: int) -> None:
    one, query = unit_rows(seed, 1, dims=64), unit_rows(seed + 1, 1, dims=64)[0]
    embeddings = np.repeat(one, 20 * rows, axis=0)
    allowed = Selection(np.arange(len(embeddings)) % 20 == seed % 20)  # few, so that nothing else is looked at
    search = NearestSearch(CandidateIndex.build(embeddings, "HNSW8"), embeddings, None)
    found, _ = search.search(query, depth, Tuning({"efSearch": 16}), allowed)
    assert sorted(found.tolist()) == allowed.rows[: min(depth, rows)].tolist()


def test_a_similarity_has_as_many_decimals_as_mean_something() -> None:
    similarities = similarities_of(unit_rows(0, 60), unit_rows(1, 1)[0])
    np.testing.assert_array_equal(similarities, similarities.round(5))


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 60), depth=st.integers(1, 60))
def test_what_codes_confuse_is_put_right_by_the_embeddings(seed: int, rows: int, depth: int) -> None:
    embeddings, query = unit_rows(seed, rows, dims=16), unit_rows(seed + 1, 1, dims=16)[0]
    search = NearestSearch(CandidateIndex.build(embeddings, "SQ4"), embeddings, None)
    found, theirs = search.search(query, depth, Tuning(refine=rows))
    nearness = np.round(embeddings.astype(np.float64) @ query, 4)
    np.testing.assert_allclose(np.sort(nearness[found]), np.sort(nearness)[-min(depth, rows) :], atol=2e-4)
    np.testing.assert_array_equal(theirs, embeddings[found])
