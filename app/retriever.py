"""The online path: encode, find candidates, score, rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from app.calls import stage
from index.documents import Document
from index.filters import Filter
from index.generations import Candidates
from index.nearest import DECIMALS
from model.cross_encoder import PairLogits
from model.encoder import Read
from model.head import Calibration, Head


class Encoder(Protocol):
    """Texts to embeddings, in two steps so that a caller may look at the tokens between them."""

    def tokenize(self, texts: Sequence[str]) -> Read:
        """Texts as tokens."""
        ...

    def embed(self, tokens: Read) -> NDArray[np.float32]:
        """(texts, dim) unit rows."""
        ...


class CandidateSearch(Protocol):
    """Which documents are worth scoring, and what they say."""

    def search(self, query: NDArray[np.float32], depth: int, filter: Filter | None = None) -> Candidates:
        """At most ``depth`` candidates for a (dim,) query, of the documents that a filter lets through."""
        ...

    def documents(self, rows: NDArray[np.int64]) -> list[Document]:
        """The documents of some rows, in the order asked."""
        ...


class PairReader(Protocol):
    """A teacher: reads both sentences of a pair together."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> PairLogits:
        """One logit a pair."""
        ...


@dataclass(frozen=True)
class Query:
    """A text, embedded."""

    text: str
    embedding: NDArray[np.float32]  # (dim,)
    truncated: bool


class _Documents(Sequence[Document]):
    """The documents of some rows. All are read when one is looked at, and only then: a head looks at none."""

    def __init__(self, index: CandidateSearch, rows: NDArray[np.int64]) -> None:
        self._index, self._rows = index, rows
        self._read: list[Document] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Document: ...
    @overload
    def __getitem__(self, place: slice) -> list[Document]: ...
    def __getitem__(self, place: int | slice) -> Document | list[Document]:
        if self._read is None:
            self._read = self._index.documents(self._rows)
        return self._read[place]

    def at(self, places: NDArray[np.int64]) -> list[Document]:
        """Those at some places; no other is read for it."""
        if self._read is None:
            return self._index.documents(self._rows[places])
        return [self._read[place] for place in places.tolist()]


@dataclass(frozen=True)
class Hit:
    """A document that was found and scored."""

    document: Document
    logit: float
    score: float
    similarity: float


@dataclass(frozen=True)
class Found:
    """Hits, best first, and whether any text was longer than a model reads, and was cut."""

    hits: list[Hit]
    truncated: bool


@dataclass(frozen=True)
class Scores:
    """One raw score a candidate, higher is better, and whether a text was cut to get it."""

    raw: NDArray[np.float64]  # (candidates,)
    truncated: bool = False


class Scorer(Protocol):
    """Who ranks the candidates, and what the raw scores mean in 0..1."""

    @property
    def calibration(self) -> Calibration:
        """From raw scores to 0..1."""
        ...

    def score(self, query: Query, candidates: Candidates, documents: Sequence[Document]) -> Scores:
        """One raw score a candidate."""
        ...


@dataclass(frozen=True)
class HeadScorer:
    """The student's head over stored embeddings."""

    head: Head
    calibration: Calibration

    def score(self, query: Query, candidates: Candidates, documents: Sequence[Document]) -> Scores:
        """The head's logits."""
        return Scores(self.head.logits(query.embedding[None], candidates.embeddings))


@dataclass(frozen=True)
class CosineScorer:
    """The similarity alone; where the index ranks by a head, it puts the head's nearest in another order."""

    calibration: Calibration

    def score(self, query: Query, candidates: Candidates, documents: Sequence[Document]) -> Scores:
        """The cosines."""
        return Scores(_widened(candidates.similarities))


@dataclass(frozen=True)
class TeacherScorer:
    """The teacher, reading the query with each candidate: slow, and what the student learned from."""

    teacher: PairReader
    calibration: Calibration

    def score(self, query: Query, candidates: Candidates, documents: Sequence[Document]) -> Scores:
        """The teacher's logits."""
        read = self.teacher.score([(query.text, document.text) for document in documents])
        return Scores(read.logits, bool(read.truncated.any()))


class Retriever:
    """Answers a query from an index."""

    def __init__(self, encoder: Encoder, index: CandidateSearch) -> None:
        self._encoder, self._index = encoder, index

    def queries(self, texts: Sequence[str]) -> list[Query]:
        """Texts, embedded together."""
        with stage("tokenize"):
            tokens = self._encoder.tokenize(texts)
        embeddings = self._encoder.embed(tokens)
        return [Query(*query) for query in zip(texts, embeddings, tokens.truncated.tolist(), strict=True)]

    def search(self, query: Query, k: int, depth: int, scorer: Scorer, filter: Filter | None = None) -> Found:
        """The ``k`` best of ``depth`` candidates by the scorer's raw score, ties by id."""
        with stage("candidates"):
            candidates = self._index.search(query.embedding, max(k, depth), filter=filter)
            documents = _Documents(self._index, candidates.rows)
        with stage("scores"):
            scores = scorer.score(query, candidates, documents)
        best = _best(scores.raw, k)
        raw, similarities = scores.raw[best], _widened(candidates.similarities[best])
        values = zip(raw.tolist(), scorer.calibration(raw).tolist(), similarities.tolist(), strict=True)
        with stage("documents"):
            read = documents.at(best)
        hits = [Hit(document, *numbers) for document, numbers in zip(read, values, strict=True)]
        hits = sorted(hits, key=lambda hit: (-hit.logit, hit.document.id))[:k]
        return Found(hits, query.truncated or scores.truncated)


def _widened(similarities: NDArray[np.float32]) -> NDArray[np.float64]:
    """(candidates,) the same decimals, as the nearest numbers of 64 bits: 0.81407, not 0.8140699863433838."""
    return similarities.astype(np.float64).round(DECIMALS)


def _best(raw: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """(best,) places of the ``k`` highest scores, and of those that tie with the last of them."""
    if len(raw) <= k:
        return np.arange(len(raw))
    return np.flatnonzero(raw >= np.partition(raw, -k)[-k])
