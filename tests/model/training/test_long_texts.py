"""Texts beyond the positions that the initial weights had: what they aim at, and the bundle that reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle import load_student
from model.faults import TrainingFault
from model.head import Calibration
from model.training.export import export_network
from model.training.guide import guide_embeddings
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, make_network, save_network
from model.training.provenance import write_learned_from
from model.training.quality import Correlation
from model.training.signal import SIGNAL, Signal
from tests import tiny
from tests.model.training.tiny_training import WORDS, network, student_recipe, training_data

LONG = " ".join(WORDS * 3)


def test_long_texts_aim_at_the_mean_of_what_a_guide_says_of_their_pieces(tmp_path: Path, pretrained: Path) -> None:
    """Of a bundle and of weights alike, both of which read less than the student will."""
    what = NetworkRecipe.model_validate(
        network("bi-encoder", positions={"tokens": 200}, max_tokens=200, guide_pieces=True)
    )
    bundle = tiny.write_student(tmp_path / "bundle", max_tokens=32)
    encoder = load_student(bundle, threads=1).encoder
    texts = [LONG, "apple"]
    found = guide_embeddings(what, bundle, texts, tmp_path / "a", lambda *_: None)
    np.testing.assert_allclose(found, encoder.encode_whole(texts), atol=1e-3)
    cut = guide_embeddings(
        what.model_copy(update={"guide_pieces": False}), bundle, texts, tmp_path / "a", lambda *_: None
    )
    np.testing.assert_allclose(cut, encoder.encode(texts), atol=1e-3)
    guide = make_network(NetworkRecipe.model_validate(network("bi-encoder", max_tokens=64)), pretrained).eval()
    assert isinstance(guide, BiEncoder)
    pieces = guide.tokenizer.pieces(texts)
    assert pieces.owners.tolist().count(0) > 2
    rows = guide.embed_tokens(pieces.tokens) * pieces.lengths[:, None]
    sums = np.stack([rows[pieces.owners == text].sum(0) for text in range(2)])
    expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    found = guide_embeddings(what, pretrained, texts, tmp_path / "b", lambda *_: None)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_table_reads_texts_of_any_length(pretrained: Path) -> None:
    what = NetworkRecipe.model_validate(network("bi-encoder", body="static", max_tokens=500, head={"kind": "cosine"}))
    table = make_network(what, pretrained)
    assert isinstance(table, BiEncoder)
    assert table.tokenizer.max_tokens == 500
    assert table.inputs([LONG])["input_ids"].shape[1] > 150
    assert torch.isfinite(table.embed([LONG])).all()


@pytest.fixture
def run(tmp_path: Path, pretrained: Path) -> Path:
    what = student_recipe(positions={"tokens": 150}, attention=["softmax", "hedgehog"], max_tokens=150).network
    torch.manual_seed(0)
    save_network(make_network(what, pretrained), what, pretrained, tmp_path / "run")
    signal = Signal("none", (), Calibration(1.0, 0.0), Correlation(0, 0), max_tokens=48)
    (tmp_path / "run" / SIGNAL).write_text(json.dumps(signal.as_json()))
    write_learned_from(tmp_path / "run", ["`long.txt`: made in a test"])
    return tmp_path / "run"


def test_a_bundle_declares_how_much_it_reads_and_reads_it(tmp_path: Path, pair_files: Path, run: Path) -> None:
    what = student_recipe(positions={"tokens": 150}, attention=["softmax", "hedgehog"], max_tokens=150)
    what = what.model_copy(update={"export": what.export.model_copy(update={"max_tokens": 140})})
    manifest = export_network(what, run, training_data(pair_files), tmp_path / "bundle", False, lambda _: None)
    assert manifest.max_tokens == 140
    encoder = load_student(tmp_path / "bundle", threads=1).encoder
    assert encoder.max_tokens == 140
    one, other = (" ".join("a" * 130 + end) for end in ("bccc", "xccc"))  # they part far beyond the 64 of before
    assert not encoder.tokenize([one]).truncated.any()
    assert encoder.tokenize([LONG]).truncated.all()
    similar = encoder.encode([one, other, one])
    assert np.array_equal(similar[0], similar[2])
    assert 0.5 < similar[0] @ similar[1] < 1 - 1e-5


def test_a_bundle_cannot_declare_more_than_its_body_reads(tmp_path: Path, pair_files: Path, run: Path) -> None:
    what = student_recipe(positions={"tokens": 150}, attention=["softmax", "hedgehog"], max_tokens=150)
    what = what.model_copy(update={"export": what.export.model_copy(update={"max_tokens": 151})})
    with pytest.raises(TrainingFault, match="max_tokens is 151, but the body has 150 positions"):
        export_network(what, run, training_data(pair_files), tmp_path / "bundle", False, lambda _: None)
    assert not (tmp_path / "bundle").exists()
