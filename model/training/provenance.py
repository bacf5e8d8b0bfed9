"""What has a model learned from? Its own sets, its teacher's, and those of the models it starts from or is drawn to."""

import json
import re
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from model.bundle import MANIFEST, BundleManifest
from model.faults import TrainingFault
from model.training.network_recipe import NetworkRecipe
from model.training.networks import Sources
from model.training.pairs import TrainingData
from model.training.signal import Signal

TRAINED_ON = "trained_on.json"
"""In the folder of every network that was trained here: a list, each entry one file and its terms."""

_RESTRICTED = re.compile(r"research|academic|non-?commercial|\bNC\b|stated", re.IGNORECASE)


def learned_from(network: NetworkRecipe, data: TrainingData, signal: Signal | None, sources: Sources) -> list[str]:
    """Every set that a network of this recipe will have learned from, by itself or through others.

    Weights and encoders that were not made here (a hub id, somebody's folder) have their own cards, and no part in
    this.

    Args:
        network: what is trained.
        data: its pairs and texts.
        signal: what its teacher learned from.
        sources: the weights that it starts from, keeps of and is drawn to.
    """
    own = data.described(network.stages)
    return unique(
        [
            *own,
            *(signal.trained_on if signal else ()),
            *(one for source in dict.fromkeys(astuple(sources)) for one in _of(source)),
        ]
    )


def unique(described: Iterable[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(described))


def write_learned_from(folder: Path, described: list[str]) -> None:
    """Keep it beside the network."""
    (folder / TRAINED_ON).write_text(json.dumps(described, indent=1), "utf-8")


def read_learned_from(folder: Path) -> list[str]:
    """What was kept beside a network.

    Raises:
        TrainingFault: nothing was.
    """
    try:
        return [str(described) for described in json.loads((folder / TRAINED_ON).read_text("utf-8"))]
    except (OSError, ValueError) as error:
        raise TrainingFault(
            f"{folder / TRAINED_ON} cannot be read ({error}): run the command that trained it again, which writes that "
            "file and trains nothing anew"
        ) from error


def restricted(described: Iterable[str]) -> list[str]:
    """The files among these whose terms do not let everyone train a product on them, or that state none."""
    return unique(one.split(":")[0] for one in described if _RESTRICTED.search(one.partition(":")[2]))


def _of(source: str) -> list[str]:
    folder = Path(source)
    if (folder / MANIFEST).exists():
        return BundleManifest.read(folder).trained_on
    return read_learned_from(folder) if (folder / TRAINED_ON).exists() else []
