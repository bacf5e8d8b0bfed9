"""Filters over whole generations: built, opened, searched."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import index.narrowed as narrowed_module
from index.build import build
from index.documents import Document
from index.exact import exact_search
from index.filters import parse_filter
from index.generations import METADATA_FILE, Generation
from index.manifest import EncoderIdentity, IndexFault
from index.selection import Selection
from index.sources import SourcedDocument
from tests.index.vectors import unit

ROWS, DIMS = 600, 8
ENCODER = EncoderIdentity(name="numbers", digest="d" * 64)
FILTERS: list[dict[str, Any]] = [
    {"lang": "en"},
    {"number": {"$gte": 100, "$lt": 130}, "tags": {"$ne": "odd"}},
    {"$or": [{"lang": "de", "author.age": {"$lt": 3}}, {"number": {"$in": [7, 70, 500]}}]},
    {"author.age": None},
    {"lang": {"$exists": False}},
    {},
]


def metadata_of(row: int) -> dict[str, Any]:
    author = {} if row % 3 else {"author": {"age": row % 7}}
    return {"lang": "en" if row % 2 else "de", "number": row, "tags": ["odd", "x"] if row % 2 else []} | author


def encode(texts: list[str]) -> np.ndarray:
    return unit(np.stack([np.random.default_rng(int(text)).normal(size=DIMS) for text in texts]))


def build_numbers(folder: Path, recipe: str = "Flat") -> Path:
    documents = [SourcedDocument(Document(f"d{row}", str(row), metadata_of(row)), f"{row}") for row in range(ROWS)]
    build(documents, encode, DIMS, ENCODER, folder, recipe)
    return folder


@pytest.fixture(scope="module", params=["Flat", "SQ8", "HNSW16"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return build_numbers(tmp_path_factory.mktemp("numbers"), request.param)


@pytest.mark.parametrize("exact_rows", [0, ROWS])
@pytest.mark.parametrize("value", FILTERS)
def test_a_filtered_search_is_a_search_of_what_is_let_through(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: dict[str, Any], exact_rows: int
) -> None:
    monkeypatch.setattr(narrowed_module, "EXACT_ROWS", exact_rows)
    generation, wanted = Generation.open(folder), parse_filter(value)
    embeddings = encode([str(row) for row in range(ROWS)])
    some = np.array([row for row in range(ROWS) if wanted.matches(metadata_of(row))], np.int64)
    shares = []
    for query in encode([str(number) for number in range(991, 1011)]):
        found = generation.search(query, 20, filter=wanted)
        assert set(found.rows) <= set(some)
        assert len(found.rows) == min(20, len(some))
        assert list(found.similarities) == sorted(found.similarities, reverse=True)
        np.testing.assert_allclose(found.similarities, embeddings[found.rows] @ query, atol=1e-5)
        np.testing.assert_array_equal(found.embeddings, embeddings[found.rows])
        expected = some[exact_search(embeddings[some], query, 10)]
        shares.append(len(set(found.rows) & set(expected)) / max(len(expected), 1))
    # The build tuned the ten best to 0.95, asked by documents; a graph is harder to walk from a stranger.
    assert np.mean(shares) >= 0.8 * bool(len(some))


def test_allowed_rows_and_a_filter_both_hold(folder: Path) -> None:
    generation = Generation.open(folder)
    allowed = np.arange(ROWS) < 50
    found = generation.search(encode(["5"])[0], ROWS, Selection(allowed), parse_filter({"lang": "en"}))
    assert sorted(found.rows) == list(range(1, 50, 2))
    assert sorted(generation.search(encode(["5"])[0], ROWS, Selection(allowed)).rows) == list(range(50))
    assert allowed.sum() == 50


def test_a_selection_is_remembered_and_cannot_be_changed(folder: Path) -> None:
    generation = Generation.open(folder)
    selected = generation.select(parse_filter({"lang": "en"}))
    assert generation.select(parse_filter({"lang": "en"})) is selected
    with pytest.raises(ValueError, match="read-only"):
        selected.flags[0] = True


def without_columns(folder: Path) -> None:
    """As a generation was before there were any."""
    home = folder / "generations/000001"
    manifest = json.loads((home / "manifest.json").read_text())
    del manifest["files"][METADATA_FILE]
    manifest.get("sizes", {}).pop(METADATA_FILE, None)
    (home / "manifest.json").write_text(json.dumps(manifest))
    (home / METADATA_FILE).unlink()


def test_a_generation_without_columns_answers_the_same(tmp_path: Path) -> None:
    build_numbers(tmp_path)
    new = Generation.open(tmp_path)
    without_columns(tmp_path)
    old = Generation.open(tmp_path)
    query = encode(["4"])[0]
    for wanted in map(parse_filter, FILTERS):
        np.testing.assert_array_equal(old.select(wanted).flags, new.select(wanted).flags)
        np.testing.assert_array_equal(
            old.search(query, 9, filter=wanted).rows, new.search(query, 9, filter=wanted).rows
        )
    with pytest.raises(ValueError, match="read-only"):
        old.select(wanted).flags[0] = True


def test_columns_of_another_number_of_rows_are_refused(tmp_path: Path) -> None:
    from index.columns import write_columns
    from index.manifest import sha256_of

    build_numbers(tmp_path)
    home = tmp_path / "generations/000001"
    write_columns(home / METADATA_FILE, [{}])
    manifest = json.loads((home / "manifest.json").read_text())
    manifest["files"][METADATA_FILE] = sha256_of(home / METADATA_FILE)
    manifest.get("sizes", {METADATA_FILE: 0})[METADATA_FILE] = (home / METADATA_FILE).stat().st_size
    (home / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFault, match=r"the files disagree: .*, metadata 1; build"):
        Generation.open(tmp_path)
