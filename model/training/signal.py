"""What is the teacher signal? Several networks' scores, standardised, averaged, and put on the scale of a logit."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from model.head import Calibration
from model.tokens import plan_batches
from model.training.networks import Network
from model.training.pairs import Pair
from model.training.quality import Correlation

SIGNAL = "signal.json"
"""In a teacher's folder, and beside every network it taught."""

TOKENS_PER_BATCH = 4096


def raw_scores(network: Network, pairs: Sequence[Pair], precision: str) -> NDArray[np.float64]:
    """(pairs,) what a network ranks pairs by, averaged over both orders of each pair."""
    lengths = [len(pair.left) + len(pair.right) for pair in pairs]
    scores = np.empty(len(pairs))
    for rows in plan_batches(lengths, 4 * TOKENS_PER_BATCH):  # about four characters a token
        batch = [pairs[row] for row in rows]
        both = batch + [pair.swapped() for pair in batch]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            logits = network(both).logit
        scores[rows] = logits.double().reshape(2, -1).mean(0).numpy()
    return scores


@dataclass(frozen=True)
class Member:
    """One scorer of the signal: whose weights, and how its raw scores are standardised (on the dev split)."""

    name: str
    kind: str
    digest: str
    mean: float
    deviation: float
    dev: Correlation


@dataclass(frozen=True)
class Signal:
    """The teacher signal: the mean of its members' standardised scores, on the scale of a logit.

    ``sigmoid(slope * mean + intercept)`` is the expected gold score, so ``slope * mean + intercept`` is the logit.
    """

    name: str
    members: tuple[Member, ...]
    calibration: Calibration
    dev: Correlation
    trained_on: tuple[str, ...] = ()  # each set's file and terms

    def logits(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(pairs,) logits of (pairs, members) raw scores."""
        means = np.array([member.mean for member in self.members])
        deviations = np.array([member.deviation for member in self.members])
        standard = ((raw - means) / deviations).mean(axis=1)
        return self.calibration.slope * standard + self.calibration.intercept

    def as_json(self) -> dict[str, object]:
        """What a file that holds this signal's logits says of it."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Any) -> "Signal":
        """The reverse of :meth:`as_json`."""
        return TypeAdapter(Signal).validate_python(facts)
