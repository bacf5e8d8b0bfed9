import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.candidates import CandidateIndex
from index.manifest import IndexFault
from index.recipes import choose, plan
from tests.index.vectors import clustered


@pytest.mark.parametrize(
    ("rows", "memory", "recipe"),
    [
        (1, None, "Flat"),
        (50_000, None, "Flat"),
        (50_001, None, "IVF1024,SQ8"),
        (1_000_000, None, "IVF4096,SQ8"),
        (100_000_000, None, "IVF4096,SQ8"),
        (1_000_000, 2 * 10**9, "IVF4096,SQ8"),
        (1_000_000, 700 * 10**6, "IVF4096,PQ192x4fs"),
        (1_000_000, 300 * 10**6, "IVF1024,PQ96x4fs"),
        (50_000, 200 * 10**6, "IVF1024,SQ8"),
        (50_000, 120 * 10**6, "IVF256,PQ96x4fs"),
    ],
)
def test_the_recipe_follows_from_rows_and_memory(rows: int, memory: int | None, recipe: str) -> None:
    chosen = choose(rows, 384, memory)
    assert chosen.recipe == recipe
    assert memory is None or chosen.build_bytes <= memory


def test_what_cannot_fit_says_what_would() -> None:
    with pytest.raises(IndexFault, match=r"1,000,000 rows of 384 do not fit into 5.0 MB; .*give --memory (\d+)") as no:
        choose(1_000_000, 384, 5_000_000)
    needed = int(str(no.value).partition("--memory ")[2].split()[0])
    assert choose(1_000_000, 384, needed).build_bytes == needed
    with pytest.raises(IndexFault):
        choose(1_000_000, 384, needed - 1)


@settings(max_examples=30)
@given(rows=st.integers(1, 10**8), dims=st.integers(1, 800))
def test_a_recipe_is_chosen_for_any_size_and_can_be_built(rows: int, dims: int) -> None:
    chosen = choose(rows, dims)
    assert chosen == plan(chosen.recipe, rows, dims)
    assert 0 < chosen.index_bytes < chosen.build_bytes


@pytest.mark.parametrize(
    "recipe",
    [
        *("Flat", "SQ8", "SQ4", "RaBitQ", "HNSW16", "HNSW8,SQ8", "PCA16,SQ8"),
        *("IVF16,Flat", "IVF16,SQ8", "IVF16,PQ16x4fs", "IVF16,RaBitQfs"),
    ],
)
def test_a_plan_foretells_the_size_of_the_file(recipe: str, tmp_path) -> None:
    rows = clustered(0, 3000)
    CandidateIndex.build(rows, recipe).save(tmp_path / "file")
    foretold, real = plan(recipe, *rows.shape).index_bytes, (tmp_path / "file").stat().st_size
    assert 0.9 * real - 10_000 <= foretold <= 1.25 * real


def test_a_plan_reads_well() -> None:
    assert str(plan("Flat", 10_000, 256)) == "Flat: 10.2 MB of index, 41.0 MB of memory to make it"
    assert str(plan("Flat", 1, 1)) == "Flat: 4 bytes of index, 24 bytes of memory to make it"
