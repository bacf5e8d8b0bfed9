"""How is the teacher signal made? Its members are trained, standardised and calibrated together."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.faults import TrainingFault
from model.training.networks import Network, load_network
from model.training.pairs import Pair, PairData, read_pairs
from model.training.quality import Correlation, fit_calibration
from model.training.recipes import NetworkRecipe, TeacherRecipe
from model.training.runs import network_digest, train_network
from model.training.signal import Member, Signal, raw_scores
from model.training.trainer import Example, Progress

SIGNAL = "signal.json"


class Ensemble:
    """The folder that :func:`train_teacher` wrote: the members' networks, and the signal they make together."""

    def __init__(self, signal: Signal, networks: Sequence[tuple[Network, NetworkRecipe]]) -> None:
        self.signal, self._networks = signal, networks

    @classmethod
    def load(cls, folder: Path) -> "Ensemble":
        """Read every member, and see that none was altered since the signal was calibrated.

        Raises:
            TrainingFault: not such a folder, or a member is not the one that was calibrated.
        """
        try:
            signal = Signal.from_json(json.loads((folder / SIGNAL).read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise TrainingFault(f"{folder / SIGNAL} cannot be read ({error}); run dse teacher train") from error
        for member in signal.members:
            if (actual := network_digest(folder / member.name)) != member.digest:
                raise TrainingFault(
                    f"{folder / member.name} has been altered: its digest is {actual}, {SIGNAL} says {member.digest}; "
                    "run dse teacher train into a new folder"
                )
        return cls(signal, [load_network(folder / member.name) for member in signal.members])

    def raw_scores(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(pairs, members) what each member says."""
        columns = [raw_scores(network, pairs, recipe.precision) for network, recipe in self._networks]
        return np.stack(columns, axis=1)


def train_teacher(recipe: TeacherRecipe, data: Path, init: str | None, folder: Path, progress: Progress) -> Signal:
    """Train every member, then standardise and calibrate the signal on the dev split; writes ``signal.json``."""
    pairs = PairData(data, recipe.data)
    dev = read_pairs(data, recipe.data.dev)
    gold = np.array([pair.gold for pair in dev])
    members, columns = [], []
    for member in recipe.members:
        stages = [
            [Example(pair, pair.gold, math.nan) for name in stage.sets for pair in pairs.trainable(name)]
            for stage in member.stages
        ]
        network = train_network(member, init or member.init, stages, folder / member.name, progress)
        column = raw_scores(network, dev, member.precision)
        columns.append((column - column.mean()) / column.std())
        members.append(
            Member(
                member.name,
                member.kind,
                network_digest(folder / member.name),
                float(column.mean()),
                float(column.std()),
                Correlation.of(column, gold),
            )
        )
    mean = np.stack(columns, axis=1).mean(axis=1)
    used = sorted({name for member in recipe.members for stage in member.stages for name in stage.sets})
    signal = Signal(
        recipe.name,
        tuple(members),
        fit_calibration(mean, gold),
        Correlation.of(mean, gold),
        tuple(recipe.data.sets[name].described for name in used),
    )
    (folder / SIGNAL).write_text(json.dumps(signal.as_json(), indent=2), "utf-8")
    return signal
