"""Which pairs are worth asking the teacher about? Neighbours, in the proportions in which people scored pairs."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import bm25s
import faiss
import numpy as np
from numpy.typing import NDArray

from model.faults import TrainingFault
from model.training.pairs import SOURCES, TrainingData, normalised
from model.training.recipes import SilverRecipe

SENTENCES_PER_CHUNK = 8192

Progress = Callable[[str, int, int], None]
Pairs = NDArray[np.int64]
"""(pairs, 2) rows of sentences, the smaller first."""


class SentenceScorer(Protocol):
    """An encoder whose embeddings can be compared to a score of 0..1, as a student's can."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings."""
        ...

    def scores(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
        """(pairs,) scores, 0..1, of (pairs, dim) embeddings."""
        ...


def make_silver(
    recipe: SilverRecipe,
    data: TrainingData,
    scorer: SentenceScorer,
    output: Path,
    progress: Progress,
) -> int:
    """Write silver pairs: sentences that resemble each other, for a teacher to score (Augmented SBERT, 2010.08240).

    Random pairs are nearly all unlike and teach nothing. Here the candidates are each sentence's neighbours by BM25 and
    by its embedding, near and further off; of these, pairs are drawn so that the histogram of the encoder's scores is
    that of the gold scores of one set. Where the neighbours do not fill a bin, it stays as full as it is.

    The file is a pair file as every other (sentence1, sentence2, score), where the score is the encoder's. Beside it
    stands where its sentences are from, and on which terms.

    Args:
        recipe: which sentences, how many neighbours, how many pairs.
        data: gives sentences, without those that are held out.
        scorer: embeds the sentences and scores the candidates.
        output: a ``.tsv.gz`` file, replaced when it is whole.
        progress: told the step and how far it is.

    Returns:
        How many pairs were written.

    Raises:
        TrainingFault: the sentences have no neighbours to draw from.
    """
    sentences, like = _sentences(recipe, data), data.pairs(recipe.like)
    if not sentences or not like:
        raise TrainingFault(f"{recipe.name}: {'its sets and texts' if like else recipe.like} have no rows")
    embeddings = _embed(scorer, sentences, progress)
    candidates = _unique(
        np.concatenate(
            [
                _by_embedding(embeddings, recipe.embedding, recipe.apart),
                _by_bm25(sentences, recipe.bm25, progress),
            ]
        )
    )
    candidates = _without_known(candidates, sentences, recipe, data)
    if not len(candidates):
        raise TrainingFault(f"{recipe.name}: {len(sentences)} sentences gave no neighbours; name more sets or texts")
    scores = _scores(scorer, embeddings, candidates, progress)
    gold = np.array([pair.gold for pair in like])
    chosen = matched(scores, gold, recipe.pairs, recipe.seed)
    sources = data.described_by_name([*recipe.sets, *recipe.texts])
    write_silver(output, [(sentences[i], sentences[j]) for i, j in candidates[chosen]], scores[chosen], sources)
    return len(chosen)


def matched(scores: NDArray[np.floating], gold: NDArray[np.floating], count: int, seed: int) -> NDArray[np.int64]:
    """Rows of ``scores``, at most ``count``, whose histogram over ten equal bins of 0..1 is that of ``gold``.

    A bin that holds too few gives all it has.
    """
    draw = np.random.default_rng(seed)
    edges = np.linspace(0, 1, 11)[1:-1]
    wanted = np.bincount(np.digitize(gold, edges), minlength=10) * count / len(gold)
    bins = np.digitize(scores, edges)
    rows = []
    for number in range(10):
        held = np.flatnonzero(bins == number)
        rows.append(draw.choice(held, min(len(held), int(wanted[number])), replace=False))
    return np.sort(np.concatenate(rows))


def _sentences(recipe: SilverRecipe, data: TrainingData) -> list[str]:
    """Every sentence of the recipe's sets and texts, once."""
    found: dict[str, str] = {}
    for name in recipe.sets:
        for pair in data.pairs(name):
            for text in (pair.left, pair.right):
                found.setdefault(normalised(text), text)
    for name in recipe.texts:
        for text in data.texts(name):
            found.setdefault(normalised(text), text)
    return [text for text in found.values() if len(text) <= recipe.max_characters]


def _embed(scorer: SentenceScorer, sentences: Sequence[str], progress: Progress) -> NDArray[np.float32]:
    chunks = []
    for start in range(0, len(sentences), SENTENCES_PER_CHUNK):
        chunks.append(scorer.encode(sentences[start : start + SENTENCES_PER_CHUNK]))
        progress("embed sentences", min(start + SENTENCES_PER_CHUNK, len(sentences)), len(sentences))
    return np.concatenate(chunks)


def _by_embedding(embeddings: NDArray[np.float32], nearest: int, apart: int) -> Pairs:
    """Each sentence with its ``nearest`` neighbours, and with as many again, each ``apart`` ranks further off."""
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    ranks = [*range(1, nearest + 1), *(nearest + apart * step for step in range(1, nearest + 1))]
    depth = min(ranks[-1] + 1, len(embeddings))
    _, found = index.search(embeddings, depth)
    return _pairs(found[:, [rank for rank in ranks if rank < depth]])


def _by_bm25(sentences: Sequence[str], nearest: int, progress: Progress) -> Pairs:
    """Each sentence with the ``nearest`` others that share its rarest words."""
    tokens = bm25s.tokenize(list(sentences), stopwords="en", show_progress=False)
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    found = np.full((len(sentences), nearest), -1)
    for row, words in enumerate(tokens.ids):
        if not words:  # nothing but stop words: it shares no rare word with any other
            continue
        scores = index.get_scores(words)
        scores[row] = 0.0
        for rank in range(nearest):  # a few maxima cost a fraction of what partitioning so many zeros does
            if scores[best := int(scores.argmax())] > 0:
                found[row, rank], scores[best] = best, 0.0
        if row % SENTENCES_PER_CHUNK == 0:
            progress("bm25 neighbours", row, len(sentences))
    progress("bm25 neighbours", len(sentences), len(sentences))
    return _pairs(found)


def _pairs(neighbours: NDArray[np.integer]) -> Pairs:
    """(sentences, k) neighbours as pairs."""
    own = np.repeat(np.arange(len(neighbours)), neighbours.shape[1])
    return np.stack([own, neighbours.reshape(-1)], axis=1).astype(np.int64)


def _unique(pairs: Pairs) -> Pairs:
    """Each pair of two different sentences once, whatever its order."""
    ordered = np.sort(pairs, axis=1)
    found = ordered[:, 0] >= 0  # -1: there was no such neighbour
    return np.unique(ordered[found & (ordered[:, 0] != ordered[:, 1])], axis=0)


def _without_known(candidates: Pairs, sentences: Sequence[str], recipe: SilverRecipe, data: TrainingData) -> Pairs:
    """The candidates that are no pair of the sets: those are trained on already."""
    rows = {normalised(text): row for row, text in enumerate(sentences)}
    ends = (
        (rows.get(normalised(p.left)), rows.get(normalised(p.right))) for name in recipe.sets for p in data.pairs(name)
    )
    known = {tuple(sorted((i, j))) for i, j in ends if i is not None and j is not None}
    kept = [row for row, (i, j) in enumerate(candidates.tolist()) if (i, j) not in known]
    return candidates[kept]


def _scores(
    scorer: SentenceScorer, embeddings: NDArray[np.float32], pairs: Pairs, progress: Progress
) -> NDArray[np.float64]:
    scores = np.empty(len(pairs))
    for start in range(0, len(pairs), SENTENCES_PER_CHUNK):
        rows = pairs[start : start + SENTENCES_PER_CHUNK]
        scores[start : start + len(rows)] = scorer.scores(embeddings[rows[:, 0]], embeddings[rows[:, 1]])
        progress("score candidates", start + len(rows), len(pairs))
    return scores


def write_silver(
    path: Path, pairs: Sequence[tuple[str, str]], scores: NDArray[np.floating], sources: Sequence[str]
) -> None:
    """Write a pair file, ``.tsv.gz``, which takes its place when it is whole; beside it, where its sentences are from.

    Args:
        path: of the file.
        pairs: its pairs.
        scores: (pairs,).
        sources: each file that the sentences are from, and its terms.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
    writer.writerow(["sentence1", "sentence2", "score"])
    for (left, right), score in zip(pairs, scores, strict=True):
        writer.writerow([" ".join(left.split()), " ".join(right.split()), f"{score:.4f}"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    path.with_name(path.name + SOURCES).write_text(json.dumps(sources, indent=1), "utf-8")
    partial.replace(path)
