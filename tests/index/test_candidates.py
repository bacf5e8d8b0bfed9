import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.candidates import CandidateIndex
from index.exact import exact_search
from index.manifest import IndexFault


def unit_rows(seed: int, rows: int, dims: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dims)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 60), depth=st.integers(1, 80))
def test_flat_index_agrees_with_exhaustive_search(seed: int, rows: int, depth: int) -> None:
    embeddings, query = unit_rows(seed, rows), unit_rows(seed + 1, 1)[0]
    found = CandidateIndex.build(embeddings, "Flat").search(query, depth)
    np.testing.assert_array_equal(found, exact_search(embeddings, query, depth))


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 60))
def test_more_depth_never_loses_a_candidate(seed: int, rows: int) -> None:
    index, query = CandidateIndex.build(unit_rows(seed, rows), "Flat"), unit_rows(seed + 1, 1)[0]
    for depth in range(1, rows):
        assert set(index.search(query, depth)) <= set(index.search(query, depth + 1))


@given(recipe=st.sampled_from(["HNSW8", "SQ8", "SQ4"]), seed=st.integers(0, 100))
def test_an_approximate_recipe_answers_real_rows_only(recipe: str, seed: int) -> None:
    embeddings = unit_rows(seed, 200)
    found = CandidateIndex.build(embeddings, recipe).search(embeddings[3], 250)
    assert len(found) == len(set(found))
    assert set(found) <= set(range(200))


def test_saved_and_loaded_it_answers_the_same(tmp_path) -> None:
    embeddings = unit_rows(7, 50)
    index = CandidateIndex.build(embeddings, "Flat")
    index.save(tmp_path / "candidates.faiss")
    loaded = CandidateIndex.load(tmp_path / "candidates.faiss")
    assert len(loaded) == 50
    np.testing.assert_array_equal(loaded.search(embeddings[0], 50), index.search(embeddings[0], 50))


@pytest.mark.parametrize("recipe", ["Nonsense", "IVF4,Flat", "PQ7", "HNSW0", "Flat,Flat", ""])
def test_a_recipe_that_cannot_be_built_is_refused_by_name(recipe: str) -> None:
    with pytest.raises(IndexFault, match=f"'{recipe}' is not a recipe"):
        CandidateIndex.build(unit_rows(1, 20), recipe)


def test_a_file_that_is_no_index_is_refused(tmp_path) -> None:
    (tmp_path / "candidates.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(IndexFault, match="FAISS cannot read it"):
        CandidateIndex.load(tmp_path / "candidates.faiss")
