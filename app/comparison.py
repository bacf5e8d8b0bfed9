"""Do student and teacher agree? The same candidates, scored and ranked by both."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.answers import score
from app.retriever import CandidateSearch, HeadScorer, PairReader, Retriever
from index.filters import Filter
from model.bundle import Student

ROWS_PER_BLOCK = 256
"""Candidates compared with all others at once, so that many need no more memory than a few."""


@dataclass(frozen=True)
class StudentView:
    """Candidates as the student sees them. The first three fields are parallel."""

    texts: Sequence[str]
    ids: Sequence[str | None]
    logits: NDArray[np.float64]  # (candidates,)
    truncated: bool


def view_of_candidates(student: Student, query: str, candidates: Sequence[str], truncate: bool = True) -> StudentView:
    """Given candidates, scored by the student; without ``truncate``, long ones are refused."""
    answers = score(student, [(query, text) for text in candidates], truncate)
    return StudentView(candidates, [None] * len(candidates), answers.logits, bool(answers.truncated.any()))


def view_of_index(
    student: Student, index: CandidateSearch, query: str, k: int, depth: int, filter: Filter | None = None
) -> StudentView:
    """The student's ``k`` best hits in an index, of the documents that a filter lets through."""
    retriever = Retriever(student.encoder, index)
    embedded = retriever.queries([query])[0]
    hits = retriever.search(embedded, k, depth, HeadScorer(student.head, student.score), filter).hits
    return StudentView(
        [hit.document.text for hit in hits],
        [hit.document.id for hit in hits],
        np.array([hit.logit for hit in hits]),
        embedded.truncated,
    )


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlations, or None where one side does not rank at all (fewer than two, or all equal)."""

    spearman: float | None
    kendall: float | None

    @classmethod
    def of(cls, left: NDArray[np.float64], right: NDArray[np.float64]) -> "RankAgreement":
        """Spearman's rho and Kendall's tau-b of two (candidates,) scores, ties shared."""
        standing = np.zeros((2, len(left)))
        untied, concordant = np.zeros(2), 0.0
        for start in range(0, len(left), ROWS_PER_BLOCK):
            rows = slice(start, start + ROWS_PER_BLOCK)
            signs = np.stack([np.sign(scores[rows, None] - scores[None, :]) for scores in (left, right)])
            # A candidate's mean rank is linear in how many it beats less how many beat it.
            standing[:, rows] = signs.sum(axis=2)
            untied += np.abs(signs).sum(axis=(1, 2))
            concordant += float((signs[0] * signs[1]).sum())
        if not untied.all():
            return cls(None, None)
        spread = float(np.linalg.norm(standing[0]) * np.linalg.norm(standing[1]))
        both = float(standing[0] @ standing[1]) / spread, concordant / float(np.sqrt(untied.prod()))
        spearman, kendall = np.clip(both, -1.0, 1.0).tolist()
        return cls(spearman, kendall)


@dataclass(frozen=True)
class Comparison:
    """Both views of the same candidates."""

    student: StudentView
    teacher_logits: NDArray[np.float64]  # (candidates,)
    agreement: RankAgreement
    student_milliseconds: float
    teacher_milliseconds: float
    teacher_cut: bool  # the teacher did not read some pair to its end


def compare(query: str, student: Callable[[], StudentView], teacher: PairReader) -> Comparison:
    """Let the student answer, then have the teacher read the query with the same candidates; both are timed."""
    started = time.perf_counter()
    view = student()
    student_done = time.perf_counter()
    read = teacher.score([(query, text) for text in view.texts])
    teacher_done = time.perf_counter()
    return Comparison(
        view,
        read.logits,
        RankAgreement.of(view.logits, read.logits),
        1000 * (student_done - started),
        1000 * (teacher_done - student_done),
        bool(read.truncated.any()),
    )


def ranks(raw: NDArray[np.float64]) -> NDArray[np.int64]:
    """(candidates,) rank of each, from 1 for the highest; ties in input order."""
    places = np.empty(len(raw), np.int64)
    places[np.argsort(-raw, kind="stable")] = np.arange(1, len(raw) + 1)
    return places
