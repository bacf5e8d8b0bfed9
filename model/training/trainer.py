"""One stage of training: batches, one objective, one schedule; stops and resumes without a trace."""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.faults import TrainingFault
from model.training.attention import FeatureMaps, Positions
from model.training.conversion import map_loss
from model.training.imitation import Imitation
from model.training.known import KnownEmbeddings
from model.training.losses import ranking_correlation
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.networks import BiEncoder, Network, mixed_precision
from model.training.objectives import Example, pair_objective, text_objective

CHECKPOINT_SECONDS = 120.0
WINDOW = 32  # batches whose pairs are sorted by length together

Progress = Callable[[str, int, int], None]
"""Told the stage, the steps done and the steps in all."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class TextTarget:
    """A text, and the guide's unit embedding of it, where the stage aims at that."""

    text: str
    embedding: NDArray[np.floating] | None = None  # (dim,)


@dataclass(frozen=True)
class Material:
    """What a stage learns from, or a batch of it; either may be empty, not both."""

    examples: Sequence[Example] = ()
    texts: Sequence[TextTarget] = ()


def batches_of(material: Material, stage: Stage, seed: int) -> Iterator[Material]:
    """Every batch of a stage in order, the same for the same seed.

    Where there are pairs, an epoch is one pass over them, and the texts go round beside it for as long as it takes.
    """
    texts = _endless(material.texts, stage, seed) if material.texts else None
    for epoch in range(stage.epochs):
        shuffler = random.Random(f"{seed}/{stage.name}/{epoch}")
        order = list(material.examples)
        if stage.both_orders:
            order += [example.swapped() for example in material.examples]
        together = stage.losses is not None and "margin-mse" in stage.losses
        batched = _by_query(order, stage.batch, shuffler) if together else None
        for examples in batched or _grouped(order, _pair_length, stage.batch, shuffler):
            yield Material(examples, next(texts) if texts else ())
        if not material.examples:
            for group in _grouped(material.texts, _text_length, stage.text_batch, shuffler):
                yield Material((), group)


def _endless(texts: Sequence[TextTarget], stage: Stage, seed: int) -> Iterator[list[TextTarget]]:
    for turn in itertools.count():
        shuffler = random.Random(f"{seed}/{stage.name}/texts/{turn}")
        yield from _grouped(texts, _text_length, stage.text_batch, shuffler)


def _grouped(
    rows: Sequence[_T], length: Callable[[_T], int], batch: int, shuffler: random.Random
) -> Iterator[list[_T]]:
    """Rows in random batches of like length, so that little is padded.

    They are shuffled, sorted by length within a window of 32 batches, and the window's batches shuffled again.
    """
    order = list(rows)
    shuffler.shuffle(order)
    for start in range(0, len(order), WINDOW * batch):
        window = sorted(order[start : start + WINDOW * batch], key=length)
        groups = [window[at : at + batch] for at in range(0, len(window), batch)]
        shuffler.shuffle(groups)
        yield from groups


def _by_query(rows: Sequence[Example], batch: int, shuffler: random.Random) -> Iterator[list[Example]]:
    """Rows in batches where those of one left text stand together: a loss that compares them sees them at once."""
    queries: dict[str, list[Example]] = {}
    for row in rows:
        queries.setdefault(row.pair.left, []).append(row)
    groups = list(queries.values())
    shuffler.shuffle(groups)
    order = [row for group in groups for row in group]
    yield from (order[at : at + batch] for at in range(0, len(order), batch))


def _pair_length(example: Example) -> int:
    return len(example.pair.left) + len(example.pair.right)


def _text_length(target: TextTarget) -> int:
    return len(target.text)


def steps_of(material: Material, stage: Stage) -> int:
    """How many batches :func:`batches_of` yields."""
    rows = len(material.examples) * (2 if stage.both_orders else 1)
    an_epoch = math.ceil(rows / stage.batch) if rows else math.ceil(len(material.texts) / stage.text_batch)
    return stage.epochs * an_epoch


def check_aims(network: Network, stage: Stage, material: Material) -> None:
    """Refuse a stage that draws embeddings to those of a guide of another width.

    Raises:
        TrainingFault: the widths differ.
    """
    widths = {len(target.embedding) for target in material.texts if target.embedding is not None}
    if stage.regression and isinstance(network, BiEncoder) and widths - {network.dims}:
        raise TrainingFault(
            f"stage {stage.name}: regression draws embeddings of {network.dims} dims to the guide's of {max(widths)}; "
            "give a guide of as many dims, or leave regression out"
        )


class Learner(nn.Module):
    """All that a stage trains: the network, and what its imitation of another body needs besides.

    ``known`` is asked about pairs instead of the network where its body stays as it is.
    """

    def __init__(
        self, network: Network, imitation: Imitation | None = None, known: KnownEmbeddings | None = None
    ) -> None:
        super().__init__()
        self.network, self.imitation = network, imitation
        self._known = known

    def loss(self, recipe: NetworkRecipe, stage: Stage, batch: Material) -> Tensor:
        """What the stage asks of the pairs of a batch, and of its texts."""
        parts, texts = [], [target.text for target in batch.texts]
        if batch.examples:
            with mixed_precision(recipe):
                answers = (self._known or self.network)([example.pair for example in batch.examples])
            parts.append(pair_objective(answers, batch.examples, recipe, stage))
        if texts and stage.regression:
            with mixed_precision(recipe):
                embeddings = self._encoder().embed(texts)
            parts.append(text_objective(embeddings, _aims(batch.texts), recipe, stage))
        if texts and self._known is not None:
            parts.append(stage.search * ranking_correlation(*self._known.search(texts)))
        if texts and stage.maps_only:
            with mixed_precision(recipe):
                parts.append(map_loss(self.network.body, self._encoder().inputs(texts)))
        if texts and self.imitation is not None:
            with mixed_precision(recipe):
                parts.append(self.imitation(self.network.body, self._encoder().inputs(texts)))
        return torch.stack(parts).sum()

    def _encoder(self) -> BiEncoder:
        assert isinstance(self.network, BiEncoder)  # recipes give texts to no other
        return self.network


def _aims(texts: Sequence[TextTarget]) -> Tensor:
    """(texts, dim) what the guide makes of them."""
    return torch.as_tensor(np.stack([target.embedding for target in texts if target.embedding is not None])).float()


def optimiser_of(learner: Learner, stage: Stage) -> torch.optim.AdamW:
    """AdamW over what is not frozen; a head may have its own learning rate.

    Biases and LayerNorm are not decayed, nor feature maps (which start as the identity, not at zero) or positions (of
    which some may be frozen).
    """
    own = learner.network.head
    head = set() if own is None else {id(parameter) for parameter in own.parameters()}
    whole = [module for module in learner.modules() if isinstance(module, FeatureMaps | Positions | nn.LayerNorm)]
    undecayed = {id(parameter) for module in whole for parameter in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name.endswith("bias") or id(parameter) in undecayed else 0.01
            rate = stage.head_learning_rate if id(parameter) in head else None
            groups.setdefault((rate or stage.learning_rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": ps, "lr": lr, "weight_decay": wd} for (lr, wd), ps in groups.items()], fused=True
    )


def warmup_then_linear(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at a step: up over ``warmup`` of the steps, then down to nothing."""
    rising = max(1, round(steps * warmup))
    return lambda step: min((step + 1) / rising, (steps - step) / max(1, steps - rising), 1.0)


def train_stage(
    network: Network,
    recipe: NetworkRecipe,
    stage: Stage,
    material: Material,
    checkpoint: Path,
    progress: Progress,
    imitation: Imitation | None = None,
) -> None:
    """Train a network in place, through one stage of its recipe.

    The state is written to ``checkpoint`` every two minutes; a later call with the same arguments goes on from it and
    ends with the same weights as a run that never stopped (each step seeds its own dropout). The file stays: whoever
    saves the network then removes it.
    """
    total = steps_of(material, stage)
    known = None
    if stage.head_only and isinstance(network, BiEncoder):
        aims = {target.text: target.embedding for target in material.texts if target.embedding is not None}
        known = KnownEmbeddings(network, recipe, [example.pair for example in material.examples], aims)
    learner = Learner(network, imitation, known)
    kept = [parameter for parameter in network.body.parameters() if parameter.requires_grad] if stage.head_only else []
    for parameter in kept:
        parameter.requires_grad_(False)
    optimiser = optimiser_of(learner, stage)
    factor = warmup_then_linear(total, stage.warmup)
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    peaks = [group["lr"] for group in optimiser.param_groups]
    done = _resume(learner, optimiser, checkpoint)
    learner.train()
    if stage.head_only or stage.maps_only:
        network.body.eval()  # type: ignore[no-untyped-call]
    saved = time.monotonic()
    for step, batch in enumerate(batches_of(material, stage, recipe.seed)):
        if step < done:
            continue
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        learner.loss(recipe, stage, batch).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * factor(step)
        optimiser.step()
        optimiser.zero_grad()
        progress(stage.name, step + 1, total)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(learner, optimiser, step + 1, checkpoint)
            saved = time.monotonic()
    for parameter in kept:
        parameter.requires_grad_(True)
    learner.eval()


def _save(learner: Learner, optimiser: torch.optim.AdamW, done: int, path: Path) -> None:
    tensors = {f"learner.{name}": tensor for name, tensor in learner.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value.clone() for name, value in state.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors | {"done": torch.tensor(done)}, partial)
    partial.replace(path)


def _resume(learner: Learner, optimiser: torch.optim.AdamW, path: Path) -> int:
    """Steps already taken by a run that stopped; 0 where there was none."""
    if not path.exists():
        return 0
    tensors = load_file(path)
    done = int(tensors.pop("done"))
    learner.load_state_dict(
        {name.removeprefix("learner."): tensor for name, tensor in tensors.items() if name.startswith("learner.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, slot = name.split(".")
            state.setdefault(int(index), {})[slot] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return done
