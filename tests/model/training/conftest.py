"""Training tests need torch; they build everything from a seed."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.model.training import tiny_training


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_training.write_pretrained(tmp_path_factory.mktemp("pretrained") / "bert")


@pytest.fixture(scope="session")
def pair_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_training.write_pairs(tmp_path_factory.mktemp("pairs"))
