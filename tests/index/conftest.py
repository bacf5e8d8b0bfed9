"""What tests of an index share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.index.lettered import ENCODER, WORDS, build_letters
from tests.standin import ACCESS, StandIn

if TYPE_CHECKING:  # of an extra
    from index.location import MilvusAddress
    from index.milvus import MilvusIndex
    from index.milvus_server import Server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of :data:`WORDS`."""
    return build_letters(tmp_path / "index", WORDS)


@pytest.fixture
def address(milvus: StandIn, tmp_path: Path) -> "MilvusAddress":
    """Of an index in Milvus, of :data:`tests.index.milvus_words.WORDS`."""
    from tests.index.milvus_words import WORDS, build

    place = milvus.address()
    build(place, WORDS, tmp_path)
    return place


@pytest.fixture
def server(address: "MilvusAddress") -> "Iterator[Server]":
    """That holds it."""
    from index.milvus_server import Server

    with Server(address, ACCESS) as server:
        yield server


@pytest.fixture
def index(address: "MilvusAddress") -> "Iterator[MilvusIndex]":
    """It, opened."""
    from index.milvus import MilvusIndex

    with MilvusIndex.open(address, ENCODER, ACCESS, writable=True) as index:
        yield index
