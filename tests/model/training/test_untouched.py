"""Pretrained weights become a bundle as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.bundle import BundleManifest, load_student
from model.faults import TrainingFault
from model.training.export import export_untouched
from model.training.sentence_transformer import SentenceTransformer

TEXTS = ["abc", "a b c d e f", "stuv wxyz", *(" ".join("abcdefgh"[: n % 8 + 1]) for n in range(12))]


def test_a_bundle_answers_as_the_weights_do(pretrained: Path, tmp_path: Path) -> None:
    said: list[str] = []
    manifest = export_untouched(pretrained, TEXTS, tmp_path / "bundle", said.append)
    assert said[0].endswith("export to ONNX")
    assert (manifest.kind, manifest.head, manifest.dims) == ("encoder", "cosine", 32)
    assert BundleManifest.read(tmp_path / "bundle") == manifest
    wanted = SentenceTransformer.load(pretrained).encode(TEXTS)
    fp32 = load_student(tmp_path / "bundle", 1, "fp32").encoder.encode(TEXTS)
    np.testing.assert_allclose(fp32, wanted, atol=1e-5)
    int8 = load_student(tmp_path / "bundle", 1).encoder.encode(TEXTS)
    assert (int8 * wanted).sum(axis=1).min() > 0.9
    with pytest.raises(FileExistsError):
        export_untouched(pretrained, TEXTS, tmp_path / "bundle", said.append)


def test_texts_are_cut_where_sentence_transformers_cuts_them(pretrained: Path, tmp_path: Path) -> None:
    for source in pretrained.iterdir():
        (tmp_path / "weights").mkdir(exist_ok=True)
        (tmp_path / "weights" / source.name).write_bytes(source.read_bytes())
    (tmp_path / "weights" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    manifest = export_untouched(tmp_path / "weights", TEXTS, tmp_path / "bundle", lambda words: None)
    assert (manifest.max_tokens, manifest.name) == (16, "weights")


def test_what_is_no_folder_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match="no folder with a pretrained model"):
        export_untouched(tmp_path / "nothing", TEXTS, tmp_path / "bundle", lambda words: None)
    assert not (tmp_path / "bundle").exists()
