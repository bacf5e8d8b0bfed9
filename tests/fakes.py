"""Collaborators whose answers a reader can work out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.documents import Document
from index.filters import Filter
from index.generations import Candidates
from model.cross_encoder import PairLogits
from model.tokens import Ragged, Tokens

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


class LetterEncoder:
    """A text's embedding counts its letters, at unit length: anagrams are the same."""

    max_tokens = 100

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        rows = [[ord(letter) for letter in text[:100]] for text in texts]
        return Tokens(Ragged.of(rows), np.array([len(text) > 100 for text in texts]))

    def embed(self, tokens: Tokens) -> NDArray[np.float32]:
        letters, _ = tokens.ids.padded(np.arange(len(tokens)), 0)
        counts = np.array([[(row == ord(letter)).sum() for letter in ALPHABET] for row in letters], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.embed(self.tokenize(texts))


class ExhaustiveIndex:
    """Every document is compared."""

    def __init__(self, documents: Sequence[Document], encoder: LetterEncoder) -> None:
        self._documents = list(documents)
        self._embeddings = encoder.encode([document.text for document in documents])

    def search(self, query: NDArray[np.float32], depth: int, *, filter: Filter | None = None) -> Candidates:
        similarities = self._embeddings @ query
        wanted = [filter is None or filter.matches(document.metadata) for document in self._documents]
        order = np.argsort(-similarities, kind="stable")
        rows = order[np.array(wanted)[order]][:depth]
        return Candidates(rows, similarities[rows], self._embeddings[rows])

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        return [self._documents[row] for row in rows]


class LengthTeacher:
    """Prefers candidates as long as the query: its logit is minus the difference."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> PairLogits:
        logits = np.array([-abs(len(left) - len(right)) for left, right in pairs], np.float64)
        return PairLogits(logits, np.zeros(len(pairs), np.bool_))
