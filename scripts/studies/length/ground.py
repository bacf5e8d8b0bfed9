"""What do the cells of one length have in common? The pairs in context that they learn from and are judged by."""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from model.spaced import spaced
from model.tokens import SentenceTokenizer
from model.training.guide import guide_embeddings
from model.training.network_recipe import NetworkRecipe
from model.training.networks import tokenizer_files
from model.training.objectives import Example
from model.training.pairs import Pair, TrainingData, data_digest
from model.training.recipes import DistillationRecipe
from model.training.trainer import Material, Progress, TextTarget
from scripts.evaluation.sets import Collection, GoldPairs
from scripts.studies.length.context import Context
from scripts.studies.length.plan import CONTEXT, READ_AT_ONCE, Plan

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

LongSet = GoldPairs | Collection


class Ground:
    """Pairs of every split, each split with sentences of its own to stand around them, and sets of long texts."""

    def __init__(self, plan: Plan, data: TrainingData, long_sets: Sequence[LongSet]) -> None:
        self._plan = plan
        self.long_sets = [_some(one, plan.sizes.long_pairs) for one in long_sets]
        self.tokenizer = SentenceTokenizer.load(tokenizer_files(plan.init)[0], READ_AT_ONCE)
        sentences = data.texts(CONTEXT)
        self._contexts = {
            split: Context(sentences[number :: len(SPLITS)], self.tokenizer) for number, split in enumerate(SPLITS)
        }
        sizes = plan.sizes
        self._pairs: dict[Split, list[Pair]] = {
            "train": spaced([pair for name in plan.stage.sets for pair in data.pairs(name)], sizes.train),
            "dev": spaced(data.dev, sizes.dev),
            "test": spaced(data.test, sizes.test),
        }

    def judged(self, split: Split, tokens: int) -> list[Pair]:
        """The pairs of a split in texts of so many tokens: the same for every cell."""
        return self._contexts[split].around(self._pairs[split], tokens, split)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, whole."""
        pieces = self.tokenizer.pieces(texts)
        return np.bincount(pieces.owners, pieces.lengths, len(texts)).astype(int).tolist()

    def material(self, recipe: NetworkRecipe, steps: int, shared: Path, progress: Progress) -> Material:
        """What a cell learns from in so many steps: each time that a pair comes round, it is in another context.

        The texts that are drawn to where the parent embeds them are left texts of these pairs.
        """
        stage, tokens = self._plan.stage, recipe.max_tokens
        pairs, learned = list(self._pairs["train"]), list[Pair]()
        random.Random(recipe.seed).shuffle(pairs)  # a cell of long texts may see but the first of them
        while len(learned) < steps * stage.batch:
            salt = f"{recipe.seed}/{len(learned) // len(pairs)}"
            left = steps * stage.batch - len(learned)
            learned += self._contexts["train"].around(pairs[:left], tokens, salt)
        texts = spaced([pair.left for pair in learned], steps * stage.text_batch)
        aims = guide_embeddings(recipe, self._plan.init, texts, shared, progress)
        return Material(
            [Example(pair, pair.gold, np.nan) for pair in learned],
            [TextTarget(text, aim) for text, aim in zip(texts, aims, strict=True)],
        )


def ground_digest(recipe: DistillationRecipe, root: Path, long_sets: Sequence[LongSet]) -> str:
    """One digest of every file that decides what cells learn from and are judged by.

    Raises:
        PairFileError: a file of the recipe's is missing.
    """
    stage = recipe.network.stages[0]
    learned = data_digest(root, recipe.data, [*stage.sets, *stage.texts])
    judged = {one.facts.name: one.facts.files for one in long_sets}
    return hashlib.sha256(json.dumps([learned, judged], sort_keys=True).encode()).hexdigest()[:16]


def _some(of: LongSet, pairs: int) -> LongSet:
    """The first pairs of a set (evenly spaced ones might all be of one label); a collection is taken whole."""
    if isinstance(of, Collection):
        return of
    return GoldPairs(of.facts, of.pairs[:pairs], of.gold[:pairs])
