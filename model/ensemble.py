"""What do a cross-encoder and a sentence encoder say of a pair together? The mean of their standardised scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.cross_encoder import BothOrders, OnnxCrossEncoder, PairLogits
from model.encoder import OnnxEncoder
from model.head import LOGIT_DECIMALS, Calibration, Head
from model.similarity import PairedTexts, score_paired, tokenize_pairs
from model.tokens import Forward, Run


@dataclass(frozen=True)
class Standard:
    """Mean and deviation of a member's raw scores where they were measured: what makes members comparable."""

    mean: float
    deviation: float

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(pairs,) standardised scores."""
        return (raw - self.mean) / self.deviation


@dataclass(frozen=True)
class EnsembleTokens:
    """Pairs as the tokens of each member."""

    pair: BothOrders
    sentence: PairedTexts

    @property
    def lengths(self) -> NDArray[np.intp]:
        """(pairs,) tokens that the cross-encoder reads."""
        return self.pair.lengths

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """(pairs,) either member would not read the pair to its end."""
        return self.pair.truncated | self.sentence.truncated


@dataclass(frozen=True)
class OnnxEnsemble:
    """A teacher of two members, whose mistakes differ: the teacher signal itself, served.

    A pair's logit is ``slope * mean of the standardised scores + intercept``, as the trainer's signal has it. Safe to
    call from several threads.
    """

    pair: OnnxCrossEncoder
    pair_standard: Standard
    sentence: OnnxEncoder
    sentence_head: Head
    sentence_standard: Standard
    calibration: Calibration

    @property
    def max_tokens(self) -> int:
        """A pair is cut after this many tokens, the longer sentence first."""
        return self.pair.max_tokens

    def with_token_budget(self, token_budget: int) -> "OnnxEnsemble":
        """The same teacher with batches of another size."""
        pair, sentence = self.pair.with_token_budget(token_budget), self.sentence.with_token_budget(token_budget)
        return replace(self, pair=pair, sentence=sentence)

    def queued(self, queue: Callable[[Forward], Run]) -> "OnnxEnsemble":
        """The same teacher, whose members' rows wait in a queue each for its graph."""
        return replace(self, pair=self.pair.queued(queue), sentence=self.sentence.queued(queue))

    def score(self, pairs: Sequence[tuple[str, str]]) -> PairLogits:
        """Logits of pairs, in order; ``truncated`` if either member did not read a pair to its end."""
        return self.read(self.tokenize(pairs))

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> EnsembleTokens:
        """Pairs as tokens, in order."""
        return EnsembleTokens(self.pair.tokenize(pairs), tokenize_pairs(self.sentence, pairs))

    def read(self, pairs: EnsembleTokens) -> PairLogits:
        """Logits of tokenised pairs, in order.

        Raises:
            ArithmeticError: a graph answered a number that is not finite.
        """
        read = self.pair.read(pairs.pair)
        compared = score_paired(self.sentence, self.sentence_head, pairs.sentence)
        standardised = (self.pair_standard(read.logits) + self.sentence_standard(compared.logits)) / 2
        logits = np.round(self.calibration.logits(standardised), LOGIT_DECIMALS)
        return PairLogits(logits, pairs.truncated)
