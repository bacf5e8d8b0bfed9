import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["app.main", "app.loading", "index.build", "scripts.dse", "scripts.use_commands"])
def test_serving_never_loads_torch(module: str) -> None:
    code = f"import {module}, sys; print(sorted({{'torch', 'transformers', 'scipy', 'onnx'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_serving_a_search_never_loads_torch(student_bundle, teacher_bundle, words_index) -> None:
    code = f"""
import sys
from pathlib import Path
from app.loading import load
from app.settings import Settings
from app.retriever import HeadScorer, Retriever
service = load(Settings(
    bundle=Path({str(student_bundle)!r}), teacher=Path({str(teacher_bundle)!r}), index=Path({str(words_index)!r})
))
found = Retriever(service.student.encoder, service.index)
scorer = HeadScorer(service.student.head, service.student.score)
print(len(found.search(found.queries(["listen"])[0], 3, 5, scorer)), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "3 False"
