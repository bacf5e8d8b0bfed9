"""What does the teacher say of a pair? Several networks, standardised and averaged into one signal."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from model.faults import TrainingFault
from model.head import Calibration
from model.manifest import digests_of
from model.tokens import plan_batches
from model.training.networks import Network, load_network, make_network, save_network
from model.training.pairs import HeldOut, Pair, read_pairs
from model.training.quality import Correlation, fit_calibration
from model.training.recipes import NetworkRecipe, Stage, TeacherRecipe
from model.training.trainer import Example, Progress, train_stage

TOKENS_PER_BATCH = 4096


def raw_scores(
    network: Network,
    pairs: Sequence[Pair],
    precision: str,
    progress: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.float64]:
    """(pairs,) what a network ranks pairs by, averaged over both orders of each pair."""
    lengths = [len(pair.left) + len(pair.right) for pair in pairs]
    scores = np.empty(len(pairs))
    for rows in plan_batches(lengths, 4 * TOKENS_PER_BATCH):  # about four characters a token
        batch = [pairs[row] for row in rows]
        both = batch + [pair.swapped() for pair in batch]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            _, ranked_by = network(both)
        scores[rows] = ranked_by.double().reshape(2, -1).mean(0).numpy()
        progress(len(batch))
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


class Teacher:
    """A trained teacher folder: the members' networks and the signal they make together."""

    def __init__(self, signal: Signal, networks: Sequence[tuple[Network, NetworkRecipe]]) -> None:
        self.signal, self._networks = signal, networks

    @classmethod
    def load(cls, folder: Path) -> "Teacher":
        """Read what :func:`train_teacher` wrote."""
        try:
            signal = Signal.from_json(json.loads((folder / "teacher.json").read_text("utf-8")))
        except OSError as error:
            raise TrainingFault(f"{folder}: {error.strerror}; run dse teacher train") from error
        for member in signal.members:
            if (actual := network_digest(folder / member.name)) != member.digest:
                raise TrainingFault(
                    f"{folder / member.name} has been altered: its digest is {actual}, teacher.json says "
                    f"{member.digest}; run dse teacher train again"
                )
        return cls(signal, [load_network(folder / member.name) for member in signal.members])

    def raw_scores(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(pairs, members) what each member says."""
        return np.stack(
            [raw_scores(network, pairs, recipe.precision) for network, recipe in self._networks],
            axis=1,
        )


def network_digest(folder: Path) -> str:
    """One digest for a network's weights and head."""
    names = [name for name in ("model.safetensors", "head.safetensors") if (folder / name).exists()]
    return "+".join(digests_of(folder, names).values())


def train_network(
    recipe: NetworkRecipe,
    init: Path | str,
    examples_of: Callable[[Stage, str], list[Example]],
    folder: Path,
    progress: Progress,
) -> Network:
    """Train one network through the stages of its recipe; a folder left by a run that stopped is taken up again.

    Args:
        recipe: what to train.
        init: local folder or hub id of the pretrained weights.
        examples_of: the examples of a named set in a stage.
        folder: where the network is written; stage folders inside it are removed at the end.
        progress: told the stage and its steps.

    Raises:
        TrainingFault: the folder holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, recipe)
    if (folder / "network.json").exists():
        return load_network(folder)[0]
    torch.manual_seed(recipe.seed)
    network = make_network(recipe, init)
    for number, stage in enumerate(recipe.stages):
        finished = folder / f"stage-{number}"
        if (finished / "network.json").exists():
            network = load_network(finished)[0]
            continue
        examples = [example for name in stage.sets for example in examples_of(stage, name)]
        checkpoint = folder / f"stage-{number}.safetensors"
        train_stage(network, recipe, stage, examples, checkpoint, progress)
        save_network(network, recipe, init, finished)
    _keep_initial(network, recipe, init)
    save_network(network, recipe, init, folder)
    return network


def _claim(folder: Path, recipe: NetworkRecipe) -> None:
    """Write the recipe into its run's folder, or see that the same one is there."""
    path, text = folder / "recipe.json", recipe.model_dump_json(indent=2)
    if path.exists() and path.read_text("utf-8") != text:
        raise TrainingFault(
            f"{folder} holds a run of another recipe (its recipe.json differs); name another --output, or remove it"
        )
    path.write_text(text, "utf-8")


def _keep_initial(network: Network, recipe: NetworkRecipe, init: Path | str) -> None:
    """Average the body's weights with those it started from (WiSE-FT, Wortsman et al., arXiv 2109.01903)."""
    if recipe.keep_initial == 0:
        return
    initial = make_network(recipe, init).body.state_dict()
    for name, tensor in network.body.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(initial[name], recipe.keep_initial)


def train_teacher(recipe: TeacherRecipe, data: Path, init: str | None, folder: Path, progress: Progress) -> Signal:
    """Train every member, then standardise and calibrate the signal on the dev split; writes ``teacher.json``."""
    held_out = HeldOut.read(data, recipe.data.held_out)

    def examples_of(_: Stage, name: str) -> list[Example]:
        pairs = held_out.without(read_pairs(data, recipe.data.sets[name]))
        return [Example(pair, pair.gold, math.nan) for pair in pairs]

    dev = read_pairs(data, recipe.data.dev)
    gold = np.array([pair.gold for pair in dev])
    members, columns = [], []
    for member in recipe.members:
        network = train_network(member, init or member.init, examples_of, folder / member.name, progress)
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
    (folder / "teacher.json").write_text(json.dumps(signal.as_json(), indent=2), "utf-8")
    return signal
