from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.candidates import CandidateIndex, Dial, aligned
from index.exact import exact_search
from index.manifest import IndexFault
from index.selection import Selection
from tests.index.vectors import clustered, unit_rows

KINDS = {  # each searched so that nothing but its codes can cost recall
    "Flat": {},
    "SQ8": {},
    "SQfp16": {},
    "RaBitQ4": {},
    "PCAR16,Flat": {},
    "HNSW16": {"efSearch": 1000},
    "HNSW16,SQ8": {"efSearch": 1000},
    "IVF16,Flat": {"nprobe": 16},
    "IVF16,SQ8": {"nprobe": 16},
    "IVF16_HNSW8,SQ8": {"nprobe": 16},
    "IVF16,PQ16x4": {"nprobe": 16},
    "IVF16,PQ16x4fs": {"nprobe": 16},
    "IVF16,RaBitQ4": {"nprobe": 16},
    "IVF16,RaBitQfs4": {"nprobe": 16},
    "PCA16,IVF16,SQ8": {"nprobe": 16},
}


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


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 500), step=st.integers(1, 2))
def test_faiss_is_given_queries_that_begin_where_a_cache_line_does(seed: int, width: int, step: int) -> None:
    query = unit_rows(seed, 2, dims=step * width)[1, ::step]
    found = aligned(query)
    assert found.ctypes.data % 64 == 0
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, query[None])


@given(recipe=st.sampled_from(["HNSW8", "SQ8", "SQ4"]), seed=st.integers(0, 100))
def test_an_approximate_recipe_answers_real_rows_only(recipe: str, seed: int) -> None:
    embeddings = unit_rows(seed, 200)
    found = CandidateIndex.build(embeddings, recipe).search(embeddings[3], 250)
    assert len(found) == len(set(found))
    assert set(found) <= set(range(200))


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return clustered(0, 1500)


@pytest.fixture(scope="module")
def indexes(embeddings: np.ndarray) -> dict[str, CandidateIndex]:
    return {recipe: CandidateIndex.build(embeddings, recipe) for recipe in KINDS}


@pytest.mark.parametrize("recipe", KINDS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
def test_every_kind_passes_over_what_is_not_allowed(
    recipe: str, indexes: dict[str, CandidateIndex], embeddings: np.ndarray, seed: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    allowed = random.random(len(embeddings)) < share
    query = embeddings[random.integers(len(embeddings))]
    found = indexes[recipe].search(query, 40, KINDS[recipe], Selection(allowed))
    assert allowed[found].all()
    if not recipe.startswith("HNSW"):  # a graph is followed through what is not allowed, and may not reach the rest
        assert len(found) == min(40, allowed.sum())
        best = [row for row in exact_search(embeddings, query, len(embeddings)) if allowed[row]][:10]
        assert len(set(best) & set(found)) >= 0.7 * len(best)


@pytest.mark.parametrize(("recipe", "floor"), [("IVF16,Flat", 1.0), ("HNSW16", 0.99), ("SQ8", 0.95)])
def test_with_enough_effort_a_kind_finds_what_exhaustive_search_finds(
    recipe: str, floor: float, indexes: dict[str, CandidateIndex], embeddings: np.ndarray
) -> None:
    found = [len(set(indexes[recipe].search(q, 10, KINDS[recipe])) & set(exact_search(embeddings, q, 10)))
             for q in embeddings[:100]]  # fmt: skip
    assert np.mean(found) / 10 >= floor


@pytest.mark.parametrize(("recipe", "name", "values"), [("IVF16,Flat", "nprobe", (1, 16)),
                                                        ("HNSW8", "efSearch", (1, 600))])  # fmt: skip
def test_searches_with_different_parameters_do_not_disturb_each_other(
    recipe: str, name: str, values: tuple[int, int], tmp_path
) -> None:
    embeddings = unit_rows(0, 3000, dims=32)
    index = CandidateIndex.build(embeddings, recipe)
    index.save(tmp_path / "before")
    queries = unit_rows(1, 40, dims=32)

    def answers(value: int) -> list[list[int]]:
        return [index.search(query, 10, {name: value}).tolist() for query in queries]

    alone = {value: answers(value) for value in values}
    assert alone[values[0]] != alone[values[1]]  # so that a parameter that leaked would show
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(answers, values * 20))
    assert together == [alone[value] for value in values * 20]
    index.save(tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


def test_what_is_to_be_tuned(indexes: dict[str, CandidateIndex]) -> None:
    assert indexes["Flat"].dial is None
    assert indexes["PCA16,IVF16,SQ8"].dial == Dial("nprobe", 16)
    assert indexes["HNSW16,SQ8"].dial == Dial("efSearch", 1500)
    assert [recipe for recipe in KINDS if indexes[recipe].exact] == ["Flat"]


def test_a_parameter_of_another_kind_is_refused(indexes: dict[str, CandidateIndex], embeddings: np.ndarray) -> None:
    for recipe in ("Flat", "IVF16,SQ8"):
        with pytest.raises(IndexFault, match=r"has no search parameter \['efSearch'\]"):
            indexes[recipe].search(embeddings[0], 1, {"efSearch": 3})
    with pytest.raises(IndexFault, match=r"7 flags say which of 1500 rows"):
        indexes["Flat"].search(embeddings[0], 1, allowed=Selection(np.ones(7, np.bool_)))


@pytest.mark.parametrize("recipe", ["IVF16,SQ8", "IVF16,PQ16x4fs", "HNSW16", "PCA16,IVF16,RaBitQ"])
def test_the_same_rows_give_the_same_bytes_whatever_the_threads(recipe: str, embeddings: np.ndarray, tmp_path) -> None:
    before = faiss.omp_get_max_threads()
    for number, threads in enumerate((1, 4, 4)):
        faiss.omp_set_num_threads(threads)
        try:
            CandidateIndex.build(embeddings, recipe).save(tmp_path / str(number))
            assert faiss.omp_get_max_threads() == threads
        finally:
            faiss.omp_set_num_threads(before)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("recipe", ["SQ8", "IVF16,SQ8"])
def test_rows_are_added_in_parts_that_do_not_show(
    recipe: str, embeddings: np.ndarray, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CandidateIndex.build(embeddings, recipe).save(tmp_path / "whole")
    monkeypatch.setattr("index.candidates.ROWS_PER_ADD", 700)  # of 1500: two parts and a rest
    CandidateIndex.build(embeddings, recipe).save(tmp_path / "parts")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_saved_and_loaded_it_answers_the_same(
    tmp_path, indexes: dict[str, CandidateIndex], embeddings: np.ndarray
) -> None:
    for recipe, params in KINDS.items():
        indexes[recipe].save(tmp_path / "candidates.faiss")
        loaded = CandidateIndex.load(tmp_path / "candidates.faiss")
        assert (len(loaded), loaded.dial) == (1500, indexes[recipe].dial)
        for query in embeddings[:5]:
            np.testing.assert_array_equal(
                loaded.search(query, 50, params), indexes[recipe].search(query, 50, params), recipe
            )


REFUSED = {
    "Nonsense": "could not parse", "Flat,Flat": "could not parse", "": "choose Flat",
    "PQ7": "multiple of the number of subquantizers", "IVF99999999999,Flat": "choose Flat",
    "PQ8": "no search parameters for IndexPQ", "PQ8x4fs": "no search parameters for IndexPQFastScan",
    "NSG16": "no search parameters for IndexNSGFlat", "IVF4,LSQ4x4": "no search parameters for IndexIVFLocalSearch",
    "IVF4,SQ8,RFlat": "keeps vectors a second time",
} | dict.fromkeys(
    ["HNSW0", "HNSW00", "HNSW1", "IVF0,Flat", "IVF00,Flat", "RR0,Flat", "IVF4,PQ4x00", "PCAR0,SQ8", "IVF2_HNSW0,Flat"],
    "nothing can come of 0 or HNSW1",
)  # fmt: skip


@pytest.mark.parametrize("recipe", REFUSED)
def test_a_recipe_that_cannot_be_built_is_refused_by_name(recipe: str) -> None:
    with pytest.raises(IndexFault, match=f"'{recipe}' is not a recipe.*{REFUSED[recipe]}"):
        CandidateIndex.build(unit_rows(1, 20), recipe)


def test_too_few_rows_to_train_on(tmp_path) -> None:
    with pytest.raises(IndexFault, match=r"FAISS cannot build 'IVF64,SQ8' over 20 rows of 8: .*choose another"):
        CandidateIndex.build(unit_rows(1, 20), "IVF64,SQ8")


def test_a_file_that_is_no_index_is_refused(tmp_path) -> None:
    (tmp_path / "candidates.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(IndexFault, match="FAISS cannot read it"):
        CandidateIndex.load(tmp_path / "candidates.faiss")
