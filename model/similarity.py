"""How similar are these pairs? Each sentence is embedded once, however many pairs it is in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.encoder import OnnxEncoder, Read
from model.head import CosineHead, Head


@dataclass(frozen=True)
class PairedTexts:
    """Pairs, tokenised: what the model would read is known before it does."""

    tokens: Read  # of each text once
    left: NDArray[np.intp]  # (pairs,) rows of tokens
    right: NDArray[np.intp]  # (pairs,)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """(pairs,) one of the two is longer than the model reads."""
        return self.tokens.truncated[self.left] | self.tokens.truncated[self.right]


@dataclass(frozen=True)
class PairAnswers:
    """What a head says of pairs. The three fields are parallel."""

    logits: NDArray[np.float64]  # (pairs,)
    similarities: NDArray[np.float64]  # (pairs,) cosines
    truncated: NDArray[np.bool_]  # (pairs,) one of the two was longer than the model reads


def score_pairs(encoder: OnnxEncoder, head: Head, pairs: Sequence[tuple[str, str]]) -> PairAnswers:
    """Score pairs by their embeddings, in order."""
    return score_paired(encoder, head, tokenize_pairs(encoder, pairs))


def tokenize_pairs(encoder: OnnxEncoder, pairs: Sequence[tuple[str, str]]) -> PairedTexts:
    """Pairs as tokens, in order; a text that is in several is tokenised once."""
    texts, left, right = paired_rows(pairs)
    return PairedTexts(encoder.tokenize(texts), left, right)


def paired_rows(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], NDArray[np.intp], NDArray[np.intp]]:
    """The texts of pairs, each once, and the (pairs,) rows among them of the left and of the right ones.

    >>> texts, left, right = paired_rows([("a", "b"), ("c", "a")])
    >>> texts, left.tolist(), right.tolist()
    (['a', 'b', 'c'], [0, 2], [1, 0])
    """
    row_of = {text: row for row, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
    left, right = (np.array([row_of[pair[side]] for pair in pairs], np.intp) for side in (0, 1))
    return list(row_of), left, right


def score_paired(encoder: OnnxEncoder, head: Head, paired: PairedTexts) -> PairAnswers:
    """Score tokenised pairs by their embeddings, in order."""
    embeddings = encoder.embed(paired.tokens)
    left, right = embeddings[paired.left], embeddings[paired.right]
    return PairAnswers(head.logits(left, right), CosineHead().logits(left, right), paired.truncated)
