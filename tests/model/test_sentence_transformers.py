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
    ours = load_student(bundle, threads=1).encoder.encode(TEXTS)
    np.testing.assert_allclose(loaded.encode(TEXTS), ours, atol=1e-5)
