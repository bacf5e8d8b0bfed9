"""What was the student distilled for? One query against every document: by index, by head alone, by teacher."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.retriever import HeadScorer, Query, Retriever
from index.view import View
from model.bundle import Student, Teacher
from scripts.benchmarks.encode import Spread

K = 10
QUERIES = 8
"""Different ones, a turn: the index answers one in too little time to measure it alone."""
INDEX, HEAD, TEACHER = "student: index, then head", "student: head over all", "teacher, extrapolated"


@dataclass(frozen=True)
class Way:
    """One way to rank every document by a query."""

    name: str
    milliseconds: float  # a query, median of all turns
    pairs_per_second: float
    faster: Spread | None  # than the teacher, round by round

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def measure(
    view: View,
    student: Student,
    teacher: Teacher,
    depth: int,
    pairs: int,
    rounds: int,
    stage: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Way]:
    """Milliseconds a query of each way, in turns; the teacher's from ``pairs`` pairs, as if it read all documents.

    The student's ways begin with the query's text; the documents' embeddings are stored, as in any index.
    """
    rows = view.rows()
    embeddings = view.embeddings(rows)  # (documents, dim)
    drawn = np.random.default_rng(0).permutation(rows)
    texts = [document.text for document in view.documents(drawn[:QUERIES])]
    candidates = [document.text for document in view.documents(drawn[:pairs])]
    retriever = Retriever(student.encoder, view)
    scorer = HeadScorer(student.head, student.score)

    def by_index(query: Query) -> object:
        return retriever.search(query, K, depth, scorer)

    def by_head(query: Query) -> object:
        return np.argpartition(-student.head.logits(query.embedding[None], embeddings), min(K, len(rows) - 1))

    def seconds(work: Callable[[Query], object]) -> float:
        """Of one query, the mean of a few."""
        began = clock()
        for text in texts:
            work(retriever.queries([text])[0])
        return (clock() - began) / len(texts)

    def teacher_seconds() -> float:
        began = clock()
        teacher.scorer.score([(texts[0], candidate) for candidate in candidates])
        return (clock() - began) * len(rows) / len(candidates)

    turns: dict[str, Callable[[], float]] = {
        INDEX: lambda: seconds(by_index),
        HEAD: lambda: seconds(by_head),
        TEACHER: teacher_seconds,
    }
    seconds(by_index)  # does not count
    taken: dict[str, list[float]] = {name: [] for name in turns}  # a round, there and back
    for number in range(rounds):
        here = dict.fromkeys(turns, 0.0)
        for name in [*turns, *reversed(turns)]:
            stage(f"round {number + 1} of {rounds}: {name}")
            here[name] += turns[name]() / 2
        for name, mean in here.items():
            taken[name].append(mean)
    return [_way(name, taken[name], taken[TEACHER], len(rows)) for name in turns]


def _way(name: str, taken: Sequence[float], teacher: Sequence[float], documents: int) -> Way:
    median = float(np.median(taken))
    ratios = [slow / own for own, slow in zip(taken, teacher, strict=True)]
    faster = None if name == TEACHER else Spread.of(ratios)
    return Way(name, round(1000 * median, 3), round(documents / median, 1), faster)
