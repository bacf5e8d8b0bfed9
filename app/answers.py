"""What do routes ask of a model? To embed texts or score pairs; what may not be cut is refused before it is read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.calls import CALL, stage
from app.errors import ServiceError
from model.bundle import Student, Teacher
from model.cross_encoder import PairLogits
from model.encoder import allowed_width, shortened
from model.faults import DimensionsError
from model.similarity import score_paired, tokenize_pairs


@dataclass(frozen=True)
class Work:
    """What an answer cost."""

    tokens: int  # that were read
    characters: int  # that were sent
    tokenization_seconds: float
    inference_seconds: float  # with the wait for it
    queue_seconds: float = 0.0  # of that wait


@dataclass(frozen=True)
class _Moment:
    """When the texts were tokens, and what the present call had waited for models by then."""

    seconds: float
    queued: float

    @classmethod
    def now(cls) -> Self:
        """This one."""
        return cls(time.perf_counter(), _queued())

    def work(self, started: float, tokens: int, characters: int) -> Work:
        """What it cost, now that the model has answered."""
        inference = time.perf_counter() - self.seconds
        return Work(tokens, characters, self.seconds - started, inference, _queued() - self.queued)


def _queued() -> float:
    call = CALL.get()
    return call.seconds.get("queue", 0.0) if call else 0.0


@dataclass(frozen=True)
class Embedded:
    """Texts, embedded."""

    embeddings: NDArray[np.float32]  # (texts, dims) unit rows
    work: Work


@dataclass(frozen=True)
class Scored:
    """What a model says of pairs. The first four fields are parallel."""

    logits: NDArray[np.float64]  # (pairs,)
    scores: NDArray[np.float64]  # (pairs,) the same, calibrated to 0..1
    similarities: NDArray[np.float64] | None  # (pairs,) cosines; a teacher has none
    truncated: NDArray[np.bool_]  # (pairs,)
    work: Work

    def ranked(self) -> NDArray[np.intp]:
        """(pairs,) rows, the highest logit first, ties in input order."""
        return np.argsort(-self.logits, kind="stable")


def embed(student: Student, texts: Sequence[str], dims: int | None = None, truncate: bool = True) -> Embedded:
    """Embed texts, in order; with ``dims``, cut to that many numbers.

    Raises:
        ServiceError: 422, the student was not trained to be cut there; or a text is longer than the student reads, and
            ``truncate`` does not allow to cut it.
    """
    encoder = student.encoder
    try:
        width = allowed_width(dims, encoder.dims, encoder.matryoshka)
    except DimensionsError as error:
        raise ServiceError(422, str(error), "dimensions") from error
    started = time.perf_counter()
    with stage("tokenize"):
        tokens = encoder.tokenize(texts)
    refuse_cut(tokens.truncated, truncate, student)
    tokenized = _Moment.now()
    embeddings = encoder.embed(tokens)
    work = tokenized.work(started, int(tokens.lengths.sum()), sum(map(len, texts)))
    return Embedded(embeddings if width == encoder.dims else shortened(embeddings, width), work)


def score(model: Student | Teacher, pairs: Sequence[tuple[str, str]], truncate: bool = True) -> Scored:
    """Score pairs, in order: by a student's head, or by the teacher, who reads both sentences together.

    Raises:
        ServiceError: 422, a pair is longer than the model reads, and ``truncate`` does not allow to cut it.
    """
    characters = sum(len(left) + len(right) for left, right in pairs)
    started = time.perf_counter()
    if isinstance(model, Teacher):
        with stage("tokenize"):
            tokens = model.scorer.tokenize(pairs)
        refuse_cut(tokens.truncated, truncate, model)
        tokenized = _Moment.now()
        read = model.scorer.read(tokens)
        work = tokenized.work(started, int(tokens.lengths.sum()), characters)
        return Scored(read.logits, model.score(read.logits), None, read.truncated, work)
    with stage("tokenize"):
        paired = tokenize_pairs(model.encoder, pairs)
    refuse_cut(paired.truncated, truncate, model)
    tokenized = _Moment.now()
    answers = score_paired(model.encoder, model.head, paired)
    work = tokenized.work(started, int(paired.tokens.lengths.sum()), characters)
    return Scored(answers.logits, model.score(answers.logits), answers.similarities, answers.truncated, work)


@dataclass(frozen=True)
class UncutReader:
    """A teacher that reads pairs to their end, or none of them."""

    teacher: Teacher

    def score(self, pairs: Sequence[tuple[str, str]]) -> PairLogits:
        """Logits of pairs, in order.

        Raises:
            ServiceError: 422, a pair is longer than the teacher reads.
        """
        tokens = self.teacher.scorer.tokenize(pairs)
        refuse_cut(tokens.truncated, False, self.teacher)
        return self.teacher.scorer.read(tokens)


def refuse_long(student: Student, texts: Sequence[str], truncate: bool) -> None:
    """Refuse texts that would be cut, where the request does not allow it, before anything is embedded.

    Raises:
        ServiceError: 422.
    """
    if not truncate:
        with stage("tokenize"):
            tokens = student.encoder.tokenize(texts)
        refuse_cut(tokens.truncated, truncate, student)


def refuse_cut(truncated: NDArray[np.bool_], truncate: bool, model: Student | Teacher) -> None:
    """Refuse texts of which one would be cut, where the request does not allow it.

    Raises:
        ServiceError: 422.
    """
    if truncated.any() and not truncate:
        raise ServiceError(
            422,
            f"a text is longer than the {model.max_tokens} tokens that {model.name} reads; shorten it, or allow "
            "truncate",
            "truncate",
        )
