"""A few words in a Milvus, and what tests do with them."""

from pathlib import Path

import pytest

pytest.importorskip("pymilvus", reason="needs pymilvus: pip install '.[scale]'")

import grpc

from index.location import MilvusAddress
from index.manifest import EncoderIdentity
from index.milvus import MilvusIndex
from index.places import build_at, rebuild_at
from index.sources import SourcedDocument
from tests.index.lettered import ENCODER, document, embed
from tests.standin import ACCESS

WORDS = {"a": "listen", "b": "silent", "c": "stone"}
OTHER = EncoderIdentity(name="other", digest="e" * 64)


def build(place: MilvusAddress, texts: dict[str, str], folder: Path, recipe: str | None = "Flat") -> None:
    documents = [SourcedDocument(document(*item), item[0]) for item in texts.items()]
    wanted = {"documents": documents, "encode": embed, "dims": 26, "encoder": ENCODER, "recipe": recipe}
    build_at(place, ACCESS, folder / "work", **wanted)


def rebuild(address: MilvusAddress, folder: Path, encode=embed) -> None:
    rebuild_at(address, ACCESS, folder / "work", encode, 26, OTHER, None, lambda done, total: None)


def upsert(index: MilvusIndex, texts: dict[str, str]) -> list[str]:
    return list(index.upsert([document(*item) for item in texts.items()], embed(list(texts.values()))))


def found(index: MilvusIndex, ids: str) -> dict[str, str]:
    every = {id_: index.view().get(id_) for id_ in ids}
    return {id_: one.text for id_, one in every.items() if one is not None}


class Refused(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "said so"
