"""What tests of an index share."""

from pathlib import Path

import pytest

from tests.index.lettered import WORDS, build_letters


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of :data:`WORDS`."""
    return build_letters(tmp_path / "index", WORDS)
