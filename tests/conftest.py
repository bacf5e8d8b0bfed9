"""What many tests share: tiny bundles, a tiny index, and the data folder where there is one."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from fastapi.testclient import TestClient

from app.loading import identity
from app.main import create_app
from app.settings import Settings
from index.build import build
from index.documents import Document
from index.sources import SourcedDocument
from model.bundle import Student, load_student
from tests.standin import StandIn
from tests.tiny import write_student, write_teacher

# Timings belong in benchmarks: a slow machine is no failure. A failing example prints how to replay it.
hypothesis.settings.register_profile("dse", deadline=None, print_blob=True)
hypothesis.settings.load_profile("dse")

WORDS = ["listen", "silent", "enlist", "tinsel", "google", "banana", "cabana", "stone", "notes", "onset"]


@pytest.fixture(scope="session")
def student_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("student") / "bundle")


@pytest.fixture(scope="session")
def teacher_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "bundle")


@pytest.fixture(scope="session")
def student(student_bundle: Path) -> Student:
    return load_student(student_bundle, threads=1)


def build_index(folder: Path, student: Student, texts: list[str], recipe: str = "Flat") -> Path:
    """An index of texts whose ids are ``d0``, ``d1``, ..."""
    documents = (
        SourcedDocument(Document(f"d{row}", text, {"length": len(text)}), f"texts:{row + 1}")
        for row, text in enumerate(texts)
    )
    build(documents, student.encoder.encode, student.encoder.dims, identity(student), folder, recipe)
    return folder


@pytest.fixture(scope="session")
def words_index(tmp_path_factory: pytest.TempPathFactory, student: Student) -> Path:
    return build_index(tmp_path_factory.mktemp("words") / "index", student, WORDS)


@pytest.fixture(scope="session")
def settings(student_bundle: Path, teacher_bundle: Path, words_index: Path) -> Settings:
    return Settings(bundle=student_bundle, teacher=teacher_bundle, index=words_index, threads=1)


@pytest.fixture(scope="session")
def client(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), raise_server_exceptions=False)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data sets; tests that need it skip without it."""
    folder = os.environ.get("DSE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs DSE_DATA: a folder of public data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A server that speaks Milvus's protocol; tests that need it skip without the packages for it."""
    for package in ("pymilvus", "milvus_lite"):
        pytest.importorskip(package, reason=f"needs {package}: pip install '.[scale]'")
    server = StandIn(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()
