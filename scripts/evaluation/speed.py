"""How fast is each model beside the others? Timed in turns, because a machine's speed wanders."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from model.tokens import SentenceTokenizer
from scripts.evaluation.scorers import Model
from scripts.evaluation.sets import GoldPairs

REPEATS = 5
SINGLES = 20  # in each repeat
MOST_PAIRS = 500
MOST_TOKENS = 512
TOKENISING = "tokenising alone"

Unit = Literal["sentence", "pair"]


@dataclass(frozen=True)
class Work:
    """Something to time: what is done to many items at once, or to one."""

    model: str
    unit: Unit
    items: Sequence[Any]
    do: Callable[[Sequence[Any]], object]


@dataclass(frozen=True)
class Pace:
    """Medians over all turns, and throughput relative to the first work of the same unit and to tokenising."""

    model: str
    unit: Unit
    per_second: float  # items, many at once
    milliseconds: float  # for one item alone
    to_first: float
    to_tokenising: float | None  # for sentences


@dataclass(frozen=True)
class Speed:
    """The paces, and what they were taken on."""

    set: str
    sentences: int
    pairs: int
    repeats: int
    threads: int
    paces: list[Pace]


def measure(models: Sequence[Model], of: GoldPairs, threads: int) -> Speed:
    """Sentences a second of the models that embed, pairs a second of all: of the set's first pairs."""
    pairs = of.pairs[:MOST_PAIRS]
    sentences = list(dict.fromkeys(text for pair in pairs for text in pair))
    works = [Work(model.facts.name, "sentence", sentences, model.encode) for model in models if model.encode]
    if files := [model.tokenizer for model in models if model.encode and model.tokenizer]:
        works.append(Work(TOKENISING, "sentence", sentences, SentenceTokenizer.load(files[0], MOST_TOKENS).tokenize))
    works += [Work(model.facts.name, "pair", pairs, model.timed or model.score) for model in models]
    return Speed(of.facts.name, len(sentences), len(pairs), REPEATS, threads, paces(works))


def paces(works: Sequence[Work], clock: Callable[[], float] = time.perf_counter) -> list[Pace]:
    """Time every work in turns, REPEATS times over, after one turn that does not count."""
    many: dict[int, list[float]] = {place: [] for place in range(len(works))}
    single: dict[int, list[float]] = {place: [] for place in range(len(works))}

    def seconds(work: Work, items: Sequence[Any]) -> float:
        started = clock()
        work.do(items)
        return clock() - started

    for work in works:
        work.do(work.items[:SINGLES])
    for _ in range(REPEATS):
        for place, work in enumerate(works):
            many[place].append(seconds(work, work.items))
            single[place] += [seconds(work, [item]) for item in work.items[:SINGLES]]
    rates = [len(work.items) / median(many[place]) for place, work in enumerate(works)]
    first: dict[Unit, float] = {}
    for work, rate in zip(works, rates, strict=True):
        first.setdefault(work.unit, rate)
    tokenising = next((rate for work, rate in zip(works, rates, strict=True) if work.model == TOKENISING), None)
    return [
        Pace(
            work.model,
            work.unit,
            round(rate, 1),
            round(1000 * median(single[place]), 3),
            round(rate / first[work.unit], 4),
            round(rate / tokenising, 4) if tokenising and work.unit == "sentence" else None,
        )
        for place, (work, rate) in enumerate(zip(works, rates, strict=True))
    ]
