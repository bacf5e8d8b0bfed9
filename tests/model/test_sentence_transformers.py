"""A bundle also loads where people already load models. Needs an environment of its own: ``make test-interop``."""

from pathlib import Path

import numpy as np
import pytest

from app.settings import Settings
from model.bundle import load_student

sentence_transformers = pytest.importorskip("sentence_transformers", reason="make test-interop has it")

STUDENTS = sorted(listed.parent for listed in Settings().bundle.parent.glob("*/modules.json"))
TEXTS = ["A man is playing a flute.", "Wait.", "word " * 400]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bundle", STUDENTS, ids=lambda folder: folder.name)
def test_sentence_transformers_gives_the_same_embeddings(bundle: Path) -> None:
    loaded = sentence_transformers.SentenceTransformer(
        str(bundle), backend="onnx", model_kwargs={"file_name": "onnx/model_int8.onnx"}
    )
    ours, theirs = load_student(bundle, threads=1).encoder.encode(TEXTS), loaded.encode(TEXTS)
    # onnxruntime is asked for other fusions there; a sum that rounds otherwise may fall on the next step of int8.
    assert (ours * theirs).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1.0, atol=1e-5)
