"""docs/scaling.md: what it says can be reckoned is what the code reckons."""

from pathlib import Path

from index.recipes import choose, plan

PAGE = (Path(__file__).resolve().parents[1] / "docs/scaling.md").read_text("utf-8")
SIZES = [10**6, 10**7, 10**8, 10**9]
DIMS = 384
BYTES_OF_DOCUMENT = 187.46  # measured: see the page


def row(name: str, sizes: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{size / 1e9:,.1f} GB" for size in sizes) + " |"


def test_the_sizes_of_an_index_are_the_planners() -> None:
    chosen = [choose(rows, DIMS) for rows in SIZES]
    (recipe,) = {one.recipe for one in chosen}
    vectors, stored = [rows * DIMS * 4 for rows in SIZES], [rows * BYTES_OF_DOCUMENT for rows in SIZES]
    disk = [2 * v + one.index_bytes + s for v, one, s in zip(vectors, chosen, stored, strict=True)]
    for name, sizes in {
        f"index in memory (`{recipe}`, chosen by the build)": [one.index_bytes for one in chosen],
        "memory to make it, besides what is mapped": [one.build_bytes for one in chosen],
        "embeddings, mapped": vectors,
        "documents": stored,
        "disk, at the widest of a build": disk,
        "the same in Milvus, in memory: `HNSW32_SQ8`": [plan("HNSW32_SQ8", rows, DIMS).index_bytes for rows in SIZES],
        "`HNSW32`": [plan("HNSW32", rows, DIMS).index_bytes for rows in SIZES],
    }.items():
        assert row(name, sizes) in PAGE, row(name, sizes)
