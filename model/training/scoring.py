"""What do an exported graph and its head answer on pairs?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle import GRAPH_FILES, HEAD, TOKENIZER, Graph
from model.cross_encoder import OnnxCrossEncoder
from model.encoder import OnnxEncoder
from model.head import Calibration, CosineHead, Head, load_head
from model.sessions import GraphRunner
from model.similarity import score_pairs
from model.tokens import PairTokenizer, SentenceTokenizer
from model.training.network_recipe import NetworkRecipe
from model.training.pairs import Pair
from model.training.quality import Correlation, calibration_error


@dataclass(frozen=True)
class Scored:
    """Answers on pairs beside the gold. The fields are parallel."""

    logits: NDArray[np.float64]  # (pairs,)
    similarities: NDArray[np.float64] | None  # (pairs,) cosines; a teacher has none
    gold: NDArray[np.float64]  # (pairs,) in 0..1


class OnnxScorer:
    """Scores pairs with one graph of a bundle that is being made."""

    def __init__(self, model: OnnxEncoder | OnnxCrossEncoder, head: Head) -> None:
        self.model, self.head = model, head

    @classmethod
    def load(cls, folder: Path, graph: Graph, recipe: NetworkRecipe, max_tokens: int) -> "OnnxScorer":
        """One graph of ``folder``, in as many threads as torch has; the recipe says which kind it is."""
        opened = GraphRunner(folder / GRAPH_FILES[graph], torch.get_num_threads())
        if recipe.kind == "cross-encoder":
            return cls(OnnxCrossEncoder(opened, PairTokenizer.load(folder / TOKENIZER, max_tokens)), CosineHead())
        tokenizer = SentenceTokenizer.load(folder / TOKENIZER, max_tokens)
        assert recipe.head.kind != "classifier"  # recipes give it to cross-encoders alone
        return cls(OnnxEncoder(opened, tokenizer, opened.width), load_head(recipe.head.kind, folder / HEAD))

    def __call__(self, pairs: Sequence[Pair]) -> Scored:
        """The graph's answers on pairs."""
        gold = np.array([pair.gold for pair in pairs])
        rows = [(pair.left, pair.right) for pair in pairs]
        if isinstance(self.model, OnnxCrossEncoder):
            return Scored(self.model.score(rows).logits, None, gold)
        answers = score_pairs(self.model, self.head, rows)
        return Scored(answers.logits, answers.similarities, gold)


def figures(scored: Scored, calibrations: Mapping[str, Calibration]) -> dict[str, dict[str, float]]:
    """Pearson and Spearman (points) and calibration error of the score, and of the similarity where there is one."""
    raw = {"score": scored.logits}
    if scored.similarities is not None:
        raw["similarity"] = scored.similarities
    found = {}
    for name, values in raw.items():
        calibrated = calibrations[name](values)
        # the similarity that is served is the cosine itself; its calibration only matters without a head
        served = calibrated if name == "score" else values
        found[name] = asdict(Correlation.of(served, scored.gold)) | {
            "calibration_error": round(calibration_error(calibrated, scored.gold), 4)
        }
    return found
