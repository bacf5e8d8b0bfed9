import os
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
found = Retriever(service.student.encoder, service.index.view())
scorer = HeadScorer(service.student.head, service.student.score)
print(len(found.search(found.queries(["listen"])[0], 3, 5, scorer).hits), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "3 False"


def test_loading_a_model_leaves_no_trace_outside_and_reports_nothing(student_bundle, tmp_path) -> None:
    """onnxruntime's telemetry writes an identifier under the home folder before it sends anything."""
    code = f"""
from pathlib import Path
from model.bundle import load_student
load_student(Path({str(student_bundle)!r}), threads=1).encoder.encode(["a"])
"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_the_program_starts_without_the_training_code() -> None:
    """The container image leaves model/training out."""
    code = (
        "import scripts.dse, app.main, sys; print([name for name in sys.modules if name.startswith('model.training')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
