"""How similar are these pairs? Each sentence is embedded once, however many pairs it is in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.encoder import OnnxEncoder
from model.head import CosineHead, Head


@dataclass(frozen=True)
class PairAnswers:
    """What a head says of pairs. The three fields are parallel."""

    logits: NDArray[np.float64]  # (pairs,)
    similarities: NDArray[np.float64]  # (pairs,) cosines
    truncated: NDArray[np.bool_]  # (pairs,) one of the two was longer than the model reads


def score_pairs(encoder: OnnxEncoder, head: Head, pairs: Sequence[tuple[str, str]]) -> PairAnswers:
    """Score pairs by their embeddings, in order."""
    row_of = {text: row for row, text in enumerate(dict.fromkeys(t for pair in pairs for t in pair))}
    tokens = encoder.tokenize(list(row_of))
    embeddings = encoder.embed(tokens)
    left_rows = [row_of[left] for left, _ in pairs]
    right_rows = [row_of[right] for _, right in pairs]
    left, right = embeddings[left_rows], embeddings[right_rows]
    cosines = CosineHead().logits(left, right)
    return PairAnswers(head.logits(left, right), cosines, tokens.truncated[left_rows] | tokens.truncated[right_rows])
