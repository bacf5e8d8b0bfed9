"""How good is a way to embed long texts? On pairs in context, and on sets of long texts; and what does reading cost?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from model.bundle import load_student
from model.encoder import whole_embeddings
from model.similarity import paired_rows
from model.tokens import SentenceTokenizer
from model.training.networks import BiEncoder, make_network, tokenizer_files
from model.training.pairs import Pair
from scripts.evaluation.bootstrap import Estimate, draw
from scripts.evaluation.metrics import Floats, average_precision, mean, pearson, spearman
from scripts.evaluation.retrieval import MOST_HITS, figures, nearest
from scripts.evaluation.sets import Collection, GoldPairs
from scripts.studies.cells import Found
from scripts.studies.length.ground import LongSet
from scripts.studies.length.plan import READ_AT_ONCE, Plan
from scripts.studies.memory import beside, forget_peak, peak_mib

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to (texts, dim) unit embeddings."""

DECIMALS = 7
"""To which cosines are compared: two texts that are cut to the same one are as near to each other as any such two."""


def reader_of(student: BiEncoder) -> Encode:
    """A student as it reads texts, each cut where it was trained to."""
    return lambda texts: student.embed_tokens(student.tokenizer.tokenize(texts))


def control_reader(control: str, plan: Plan) -> tuple[Encode, int | None]:
    """What a control reads: the start of a text, the mean of its pieces, or its words; and the tokens it reads at most.

    None: it reads texts whole.
    """
    if control == "static":
        assert plan.static is not None  # else there is no such cell
        return load_student(plan.static, threads=1).encoder.encode_whole, None
    parent = make_network(plan.network.as_initial.model_copy(update={"max_tokens": 8}), plan.init).eval()
    assert isinstance(parent, BiEncoder)  # the plan's recipe is of one
    at_once = min(READ_AT_ONCE, parent.body.config.max_position_embeddings)
    parent.tokenizer = SentenceTokenizer.load(tokenizer_files(plan.init)[0], at_once)
    if control == "truncated":
        return reader_of(parent), at_once
    return (lambda texts: whole_embeddings(parent.tokenizer, parent.embed_tokens, texts)), None


def cosines(encode: Encode, pairs: Sequence[tuple[str, str]]) -> Floats:
    """(pairs,) cosine of each pair; a text that is in several is embedded once."""
    texts, left, right = paired_rows(pairs)
    embeddings = encode(texts).astype(np.float64)
    return np.round((embeddings[left] * embeddings[right]).sum(-1), DECIMALS)


def in_context(encode: Encode, pairs: Sequence[Pair]) -> tuple[dict[str, float | None], Floats]:
    """Pearson and Spearman with gold, in points, and the (pairs,) cosines."""
    answers = cosines(encode, _sides(pairs))
    return _agreement(answers, pairs), answers


def _sides(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.left, pair.right) for pair in pairs]


def _agreement(answers: Floats, pairs: Sequence[Pair]) -> dict[str, float | None]:
    gold = np.array([pair.gold for pair in pairs])
    drawn = draw({"pearson": pearson(answers, gold), "spearman": spearman(answers, gold)}, len(gold))
    return {name: Estimate.of(samples).value for name, samples in drawn.items()}


def reading(encode: Encode, pairs: Sequence[Pair], tokens: int) -> tuple[Found, Floats]:
    """What :func:`in_context` tells, and what it took to read the pairs: of computing, a token, and of memory.

    Args:
        encode: the reader.
        pairs: in context.
        tokens: that it reads of them, all together.
    """
    encode([pairs[0].left])  # the first text takes what is kept for all others, and is not counted
    forget_peak()
    before, began = peak_mib(), time.process_time()
    answers = cosines(encode, _sides(pairs))
    taken = time.process_time() - began
    cost = {"microseconds_per_token": round(1e6 * taken / tokens, 1), "mib": beside(before)}
    return _agreement(answers, pairs) | cost, answers


def on_long_sets(encode: Encode, sets: Sequence[LongSet]) -> Found:
    """The figures of every set of long texts, each with its interval."""
    return {one.facts.name: _of_pairs(encode, one) if isinstance(one, GoldPairs) else _of(encode, one) for one in sets}


def _of_pairs(encode: Encode, pairs: GoldPairs) -> Found:
    answers = cosines(encode, pairs.pairs)
    metrics = {
        "pearson": pearson(answers, pairs.gold),
        "spearman": spearman(answers, pairs.gold),
        "average_precision": average_precision(answers, pairs.gold == 1),
    }
    return {name: asdict(Estimate.of(drawn)) for name, drawn in draw(metrics, len(answers)).items()}


def _of(encode: Encode, collection: Collection) -> Found:
    queries, documents = encode(collection.queries), encode(collection.documents)
    ranking = nearest(queries, documents, MOST_HITS, collection.themselves)
    values = figures(ranking, collection.judged)["ndcg@10"]
    return {"ndcg@10": asdict(Estimate.of(draw({"": mean(values)}, len(values))[""]))}
