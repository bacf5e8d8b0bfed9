"""What is the teacher signal? Several networks' scores, standardised, averaged, and put on the scale of a logit."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from model.faults import TrainingFault
from model.head import Calibration
from model.training.quality import Correlation

SIGNAL = "signal.json"
"""In a teacher's folder, and beside every network it taught."""


@dataclass(frozen=True)
class Member:
    """One scorer of the signal: whose weights, and how its raw scores are standardised (on the dev split).

    ``graph`` is the sha256 of the file that labels, where that was noted: older signals are the same without it.
    """

    name: str
    kind: str
    digest: str
    mean: float
    deviation: float
    dev: Correlation
    graph: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Signal:
    """The teacher signal: the mean of its members' standardised scores, on the scale of a logit.

    ``sigmoid(slope * mean + intercept)`` is the expected gold score, so ``slope * mean + intercept`` is the logit.
    """

    name: str
    members: tuple[Member, ...]
    calibration: Calibration
    dev: Correlation
    max_tokens: int
    trained_on: tuple[str, ...] = ()  # each set's file and terms

    def logits(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(pairs,) logits of (pairs, members) raw scores; (pairs, outputs) of (pairs, outputs, members)."""
        means = np.array([member.mean for member in self.members])
        deviations = np.array([member.deviation for member in self.members])
        standard = ((raw - means) / deviations).mean(axis=-1)
        return self.calibration.slope * standard + self.calibration.intercept

    def as_json(self) -> dict[str, object]:
        """What a file that holds this signal's logits says of it."""
        return asdict(self)

    @classmethod
    def read(cls, folder: Path) -> "Signal":
        """The signal that is written in a teacher's folder, or beside a network.

        Raises:
            TrainingFault: there is none, or it is damaged.
        """
        try:
            return cls.from_json(json.loads((folder / SIGNAL).read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise TrainingFault(
                f"{folder / SIGNAL} cannot be read ({error}); run dse teacher train, or what wrote it, again"
            ) from error

    @classmethod
    def from_json(cls, facts: Any) -> "Signal":
        """The reverse of :meth:`as_json`."""
        return TypeAdapter(Signal).validate_python(facts)
