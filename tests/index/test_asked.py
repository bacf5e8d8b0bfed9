"""An index that was proven by queries goes on being proven by them, whatever follows its first generation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from index.asked import aim_after
from index.generations import GENERATIONS
from index.live import LiveIndex
from index.manifest import MANIFEST, EncoderIdentity, GenerationManifest, IndexFault, Proof
from index.rebuild import rebuild
from index.snapshot import snapshot
from tests.index.lettered import ASKED, DOCUMENTS, build_asked, embed, open_live, upsert

OTHER = EncoderIdentity(name="other", digest="e" * 64)
HALF = len(ASKED) // 2
"""Of the queries prove; the others tune."""


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return build_asked(tmp_path / "index")


def proof_of(live: LiveIndex) -> Proof:
    proof = live.view().manifest.proof
    assert proof is not None
    return proof


def test_a_compaction_is_proven_by_the_queries_of_the_build(asked: Path) -> None:
    with open_live(asked) as live:
        before, depth = proof_of(live), live.view().manifest.depth
        for number in range(2):
            upsert(live, {f"new{number}": "abcabca"})
            live.compact()
        after = proof_of(live)
        assert (after.asked, after.queries, after.target, after.k) == ("queries", HALF, 0.9, 7)
        assert (before.asked, before.queries) == (after.asked, after.queries)
        assert live.view().manifest.depth == depth is not None


def test_the_queries_of_an_index_without_documents_are_kept(asked: Path) -> None:
    with open_live(asked) as live:
        live.delete(DOCUMENTS)
        live.compact()
        upsert(live, DOCUMENTS)
        live.compact()
        assert (proof_of(live).asked, proof_of(live).queries) == ("queries", HALF)


def test_queries_go_with_a_snapshot(asked: Path, tmp_path: Path) -> None:
    snapshot(asked, tmp_path / "copy")
    with open_live(tmp_path / "copy") as live:
        upsert(live, {"new": "abcabca"})
        live.compact()
        assert proof_of(live).asked == "queries"


def test_a_rebuild_embeds_the_queries_too_and_measures_the_depth_for_its_head(asked: Path) -> None:
    read: list[str] = []

    def shifted(texts: Sequence[str]) -> np.ndarray:
        read.extend(texts)
        return np.roll(embed(texts), 1, axis=1)

    opposite = rebuild(asked, shifted, 26, OTHER, scores=lambda query, embeddings: -(embeddings @ query)).manifest
    assert sorted(read) == sorted([*DOCUMENTS.values(), *ASKED])
    assert opposite.proof is not None
    assert (opposite.proof.asked, opposite.proof.queries) == ("queries", HALF)
    assert opposite.proof.end_to_end is not None
    # What this head likes best is farthest: it is only found among all.
    assert (opposite.depth, opposite.proof.end_to_end.recall[10] < 0.5) == (500, True)
    home = asked / GENERATIONS / "000002"
    np.testing.assert_array_equal(np.load(home / "queries.npy"), np.roll(embed(ASKED), 1, axis=1))


def test_a_depth_that_is_not_measured_again_stays(asked: Path) -> None:
    with open_live(asked) as live:
        depth = live.view().manifest.depth
    assert rebuild(asked, embed, 26, OTHER).manifest.depth == depth is not None


def test_altered_queries_are_noticed(asked: Path) -> None:
    path = asked / GENERATIONS / "000001" / "queries.json"
    path.write_text(path.read_text().replace("a", "b"))
    with pytest.raises(IndexFault, match=r"queries\.json has been altered"):
        open_live(asked)


def test_queries_that_cannot_be_read_are_said_to_be(asked: Path) -> None:
    path = asked / GENERATIONS / "000001" / "queries.npy"
    path.write_bytes(path.read_bytes().replace(b"'shape'", b"('shape'"))
    with pytest.raises(IndexFault, match="the queries that it was proven by cannot be read"):
        aim_after(GenerationManifest.read(path.parent), path.parent)


def test_an_index_whose_queries_were_not_kept_says_that_it_is_proven_by_documents_now(asked: Path, caplog) -> None:
    path = asked / GENERATIONS / "000001" / MANIFEST
    manifest = GenerationManifest.read(path.parent)
    for name in ("queries.json", "queries.npy"):
        del manifest.files[name], manifest.sizes[name]
    path.write_text(manifest.model_dump_json())
    with open_live(asked) as live:
        upsert(live, {"new": "abcabca"})
        live.compact()
        assert proof_of(live).asked == "documents"
    assert "proven by queries that were not kept" in caplog.text
