"""How fast are sentences embedded, beside peers with the same weights? In turns of one run, there and back."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.similarity import paired_rows
from scripts.benchmarks.contestants import Contestant, Timed
from scripts.console import BadInput
from scripts.evaluation.metrics import spearman


@dataclass(frozen=True)
class Spread:
    """Medians of rounds, and their least and most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        return cls(*(float(f"{value:.4g}") for value in (np.median(values), min(values), max(values))))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


@dataclass(frozen=True)
class Round:
    """What one contestant took in one round, there and back."""

    seconds: float  # for all texts, twice
    cpu: float
    singles: list[float]  # seconds of each
    singles_cpu: float


@dataclass(frozen=True)
class Standing:
    """How one contestant did, and how many times faster the first one was, round by round."""

    name: str
    runs: dict[str, Any]
    per_second: float
    per_cpu_second: float
    p50: float  # milliseconds of one text alone
    p99: float
    single_cpu: float  # milliseconds of computing for one text alone
    behind: Spread | None  # the first one's texts a second / these; None for itself
    behind_cpu: Spread | None
    behind_single: Spread | None  # this one's p50 / the first one's
    agreement: float | None  # mean cosine with the reference's embeddings
    quality: float | None  # Spearman, in points, of the cosines and the gold

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def measure(
    contestants: Sequence[Contestant],
    texts: Sequence[str],
    rounds: int,
    singles: int,
    reference: Contestant | None,
    gold: tuple[Sequence[tuple[str, str]], Sequence[float]] | None,
    stage: Callable[[str], None],
) -> list[Standing]:
    """How each contestant does; the others are compared with the first.

    Args:
        contestants: hold the texts already.
        texts: what they hold.
        rounds: in each, every contestant has a turn in the order given, then one in the reverse order.
        singles: texts that are embedded alone, in each turn.
        reference: whose embeddings the others' are compared with.
        gold: pairs with scores, for the quality of the embeddings.
        stage: told what is done.

    Raises:
        BadInput: the reference's embeddings are of another width.
    """
    stage("warming up")
    for contestant in contestants:
        contestant.all_at_once()
    taken: dict[str, list[Round]] = {contestant.name: [] for contestant in contestants}
    places = np.random.default_rng(0)
    for number in range(rounds):
        chosen = places.choice(len(texts), min(singles, len(texts)), replace=False).tolist()
        turns: dict[str, list[tuple[Timed, Timed]]] = {contestant.name: [] for contestant in contestants}
        for contestant in [*contestants, *reversed(contestants)]:
            stage(f"round {number + 1} of {rounds}: {contestant.name}")
            turns[contestant.name].append((contestant.all_at_once(), contestant.one_by_one(chosen)))
        for name, pair in turns.items():
            taken[name].append(_round(pair))
    stage("comparing embeddings")
    known = None if reference is None else reference.vectors(texts)
    return [
        _standing(
            contestant,
            taken[contestant.name],
            None if contestant is contestants[0] else taken[contestants[0].name],
            len(texts),
            None if known is None or contestant is reference else _agreement(contestant, texts, known),
            None if gold is None else quality(contestant, *gold),
        )
        for contestant in contestants
    ]


def quality(contestant: Contestant, pairs: Sequence[tuple[str, str]], gold: Sequence[float]) -> float:
    """Spearman, in points, of the cosines of pairs and the gold."""
    texts, left, right = paired_rows(pairs)
    vectors = contestant.vectors(texts)
    cosines = (vectors[left] * vectors[right]).sum(axis=1, dtype=np.float64)
    return round(100 * float(spearman(cosines, np.asarray(gold, np.float64))(np.ones((1, len(gold)), np.int64))[0]), 2)


def _round(turns: Sequence[tuple[Timed, Timed]]) -> Round:
    return Round(
        seconds=sum(sum(whole.seconds) for whole, _ in turns),
        cpu=sum(whole.cpu for whole, _ in turns),
        singles=[seconds for _, single in turns for seconds in single.seconds],
        singles_cpu=sum(single.cpu for _, single in turns),
    )


def _standing(
    contestant: Contestant,
    taken: Sequence[Round],
    first: Sequence[Round] | None,
    texts: int,
    agreement: float | None,
    quality: float | None,
) -> Standing:
    singles = np.array([seconds for each in taken for seconds in each.singles])
    p50, p99 = 1000 * np.percentile(singles, [50, 99])
    behind = behind_cpu = behind_single = None
    if first is not None:
        both = list(zip(taken, first, strict=True))
        behind = Spread.of([own.seconds / theirs.seconds for own, theirs in both])
        behind_cpu = Spread.of([own.cpu / theirs.cpu for own, theirs in both])
        behind_single = Spread.of([float(np.median(own.singles) / np.median(theirs.singles)) for own, theirs in both])
    return Standing(
        contestant.name,
        contestant.facts,
        round(2 * texts * len(taken) / sum(each.seconds for each in taken), 1),
        round(2 * texts * len(taken) / sum(each.cpu for each in taken), 1),
        round(float(p50), 3),
        round(float(p99), 3),
        round(1000 * sum(each.singles_cpu for each in taken) / len(singles), 3),
        behind,
        behind_cpu,
        behind_single,
        agreement,
        quality,
    )


def _agreement(contestant: Contestant, texts: Sequence[str], known: NDArray[np.float32]) -> float:
    vectors = contestant.vectors(texts)
    if vectors.shape != known.shape:
        raise BadInput(
            f"{contestant.name} answers {vectors.shape[1]} numbers a text, the peers {known.shape[1]}: "
            "--weights are not those of --bundle; make the bundle with dse benchmark bundle WEIGHTS"
        )
    return round(float((vectors * known).sum(axis=1, dtype=np.float64).mean()), 5)
