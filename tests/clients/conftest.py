"""A server in a process of its own, for client libraries as their users have them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.bundle import Student, Teacher, load_student, load_teacher
from tests.live import served
from tests.tiny import write_student

ALIASES = "text-embedding-3-small=default,rerank-v3.5=teacher"


@pytest.fixture(scope="session")
def nested_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student, which may be cut to 8 dimensions of 16."""
    return write_student(tmp_path_factory.mktemp("nested") / "bundle", matryoshka=[8])


@pytest.fixture(scope="session")
def url(
    tmp_path_factory: pytest.TempPathFactory, nested_bundle: Path, teacher_bundle: Path, words_index: Path
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("served") / "log"
    options = ("--bundle", nested_bundle, "--teacher", teacher_bundle, "--index", words_index)
    with served(log, *options, DSE_MODEL_ALIASES=ALIASES, DSE_READ_ONLY="true") as address:
        yield address
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="session")
def judge(nested_bundle: Path) -> Student:
    return load_student(nested_bundle, threads=1)


@pytest.fixture(scope="session")
def teacher(teacher_bundle: Path) -> Teacher:
    return load_teacher(teacher_bundle, threads=1)
