"""How long will cells of the length study take? One batch of each kind and length is timed, before any is trained."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.training.attention_recipe import AttentionKind
from model.training.networks import BiEncoder, make_network, mixed_precision
from model.training.trainer import Progress
from scripts.evaluation.sets import Collection
from scripts.studies.cells import Cell
from scripts.studies.length.ground import Ground
from scripts.studies.length.judge import reader_of
from scripts.studies.length.plan import READ_AT_ONCE, Plan

Rates = dict[tuple[AttentionKind, int], tuple[float, float]]
"""By attention and tokens of a text: seconds of computing to train on a token, and to read one."""

TOKENS_TIMED = 1024
"""At least so many, of one text or of several."""


def of(plan: Plan, ground: Ground, cells: Sequence[Cell], progress: Progress) -> float:
    """Seconds of computing that cells will take, all together."""
    rates: Rates = {}
    asked: set[tuple[AttentionKind, int]] = {
        (cell.facts["what"], cell.facts["tokens"]) for cell in cells if "seed" in cell.facts
    }
    asked.add(("softmax", READ_AT_ONCE))
    for number, (attention, tokens) in enumerate(sorted(asked, key=lambda one: (one[1], one[0]))):
        progress("estimate", number, len(asked))
        rates[attention, tokens] = _seconds_a_token(plan, ground, attention, tokens)
    progress("estimate", len(asked), len(asked))
    lengths = np.array(ground.lengths(_texts_of_long_sets(ground)))
    _, at_once = rates["softmax", READ_AT_ONCE]
    return sum(
        _student(plan, cell, lengths, rates) if "seed" in cell.facts else _control(plan, cell, lengths, at_once)
        for cell in cells
    )


def _student(plan: Plan, cell: Cell, long: NDArray[np.int64], rates: Rates) -> float:
    tokens = cell.facts["tokens"]
    train, read = rates[cell.facts["what"], tokens]
    steps, sizes, stage = plan.steps(tokens), plan.sizes, plan.stage
    trained = steps * (2 * stage.batch + stage.text_batch) * tokens
    in_context = 2 * (len(plan.looks(tokens)) * sizes.dev + sizes.test) * tokens
    guided = steps * stage.text_batch * tokens * rates["softmax", READ_AT_ONCE][1]
    return trained * train + (in_context + int(np.minimum(long, tokens).sum())) * read + guided


def _control(plan: Plan, cell: Cell, long: NDArray[np.int64], read: float) -> float:
    what, tokens = cell.facts["what"], cell.facts["tokens"]
    if what == "static":
        return 0.0  # a table: next to nothing
    lengths = long if tokens is None else np.full(2 * plan.sizes.test, tokens)
    return read * int((np.minimum(lengths, READ_AT_ONCE) if what == "truncated" else lengths).sum())


def _texts_of_long_sets(ground: Ground) -> list[str]:
    texts: list[str] = []
    for one in ground.long_sets:
        texts += [*one.queries, *one.documents] if isinstance(one, Collection) else [t for p in one.pairs for t in p]
    return texts


def _seconds_a_token(plan: Plan, ground: Ground, attention: AttentionKind, tokens: int) -> tuple[float, float]:
    """Of computing, to train on a token and to read it."""
    recipe = plan.recipe(attention, tokens, seed=0)
    student = make_network(recipe, plan.start(attention)).train()
    assert isinstance(student, BiEncoder)  # the plan's recipe is of one
    texts = [pair.left for pair in ground.judged("test", tokens)[: max(1, TOKENS_TIMED // tokens)]]

    def train() -> None:
        with mixed_precision(recipe):
            loss = student.embed(texts).sum()
        loss.backward()  # type: ignore[no-untyped-call]

    whole = sum(ground.lengths(texts))
    trained = _computing(train, twice=tokens <= READ_AT_ONCE)
    return trained / whole, _computing(lambda: reader_of(student)(texts), twice=False) / whole


def _computing(work: Callable[[], object], twice: bool) -> float:
    """Seconds of computing that some work takes; of the second time, where the first is short and not typical."""
    if twice:
        work()
    began = time.process_time()
    work()
    return time.process_time() - began
