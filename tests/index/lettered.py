"""A tiny index of words and the letters that embed them, and what it should answer by exhaustive comparison."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from index.build import build
from index.documents import Document
from index.finish import SearchWanted
from index.generations import similarities_of
from index.live import LiveIndex
from index.manifest import EncoderIdentity
from index.recall import Aim
from index.sources import SourcedDocument
from index.view import View
from tests.fakes import LetterEncoder
from tests.index.vectors import unit

WORDS = {"a": "listen", "b": "silent", "c": "stone", "d": "notes", "e": "banana"}
ENCODER = EncoderIdentity(name="letters", digest="d" * 64)
HALVED = EncoderIdentity(name="halved", digest="e" * 64)


def embed(texts: Sequence[str]) -> np.ndarray:
    return LetterEncoder().encode(texts) if texts else np.empty((0, 26), np.float32)


def embed_halves(texts: list[str]) -> np.ndarray:
    """Another encoder: letters in pairs, so half as wide."""
    counted = embed(texts)
    return unit(counted[:, ::2] + counted[:, 1::2])


def build_letters(folder: Path, texts: Mapping[str, str], recipe: str | None = "Flat") -> Path:
    """An index of texts by id; the metadata is the text's length."""
    documents = [SourcedDocument(document(id_, text), id_) for id_, text in texts.items()]
    build(documents, LetterEncoder().encode, 26, ENCODER, folder, recipe)
    return folder


def document(id_: str, text: str) -> Document:
    return Document(id_, text, {"length": len(text)})


def open_live(folder: Path, writable: bool = True, busy_seconds: float = 10.0) -> LiveIndex:
    return LiveIndex.open(folder, ENCODER, writable, busy_seconds)


def upsert(live: LiveIndex, texts: Mapping[str, str]) -> list[str]:
    return list(live.upsert([document(*item) for item in texts.items()], embed(list(texts.values()))))


def contents(view: View) -> dict[str, str]:
    """Text by id, in the order of the rows; every other way to count and get them has to agree."""
    documents = view.documents(view.rows())
    assert len(documents) == len(view)
    assert all(found.metadata == {"length": len(found.text)} for found in documents)
    np.testing.assert_array_equal(view.embeddings(view.rows()), embed([found.text for found in documents]))
    return {found.id: found.text for found in documents}


def check_search(view: View, expected: Mapping[str, str], query: str, depth: int) -> None:
    """The answer has the similarities that exhaustive comparison finds, and each is that of its own document."""
    asked = embed([query])[0]
    found = view.search(asked, depth)
    every = similarities_of(embed(list(expected.values())), asked)
    np.testing.assert_allclose(found.similarities, np.sort(every)[::-1][:depth], atol=2e-5)
    documents = view.documents(found.rows)
    assert len({hit.id for hit in documents}) == len(documents)
    assert all(expected[hit.id] == hit.text for hit in documents)
    np.testing.assert_array_equal(found.embeddings, embed([hit.text for hit in documents]))
    np.testing.assert_allclose(found.similarities, found.embeddings @ asked, atol=2e-5)
    order = list(zip(-found.similarities, found.rows, strict=True))
    assert order == sorted(order)


def many(count: int) -> dict[str, str]:
    """Texts of seven letters, by id."""
    rng = random.Random(7)
    return {f"d{n}": "".join(rng.choices("abcdefgh", k=7)) for n in range(count)}


DOCUMENTS = many(300)
ASKED = tuple(many(500).values())[300:]


def build_asked(folder: Path, recipe: str = "IVF8,SQ8") -> Path:
    """An index of :data:`DOCUMENTS` that was proven by queries, and measured for a head."""
    documents = [SourcedDocument(document(*item), item[0]) for item in DOCUMENTS.items()]
    aim = Aim(0.9, 7, queries=embed(ASKED), texts=ASKED, scores=lambda query, embeddings: embeddings @ query)
    build(documents, embed, 26, ENCODER, folder, recipe, search=SearchWanted(aim=aim))
    return folder
