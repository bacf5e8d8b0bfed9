"""One stage of training: batches, one objective, one schedule; stops and resumes without a trace."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.training.losses import cosent, pair_logit_loss, ranking_target
from model.training.networks import BiEncoder, CrossEncoder, Network
from model.training.pairs import Pair
from model.training.recipes import NetworkRecipe, Stage

CHECKPOINT_SECONDS = 120.0
WINDOW = 32  # batches whose pairs are sorted by length together

Progress = Callable[[str, int, int], None]
"""Told the stage, the steps done and the steps in all."""


@dataclass(frozen=True)
class Example:
    """A pair and its targets; NaN stands for one that there is not."""

    pair: Pair
    gold: float  # 0..1
    teacher: float  # a logit

    def swapped(self) -> "Example":
        """The same pair read in the other order: its targets are the same."""
        return Example(self.pair.swapped(), self.gold, self.teacher)


def batches_of(examples: Sequence[Example], stage: Stage, seed: int) -> Iterator[list[Example]]:
    """Every batch of a stage in order, the same for the same seed.

    Examples are shuffled every epoch, then sorted by length within a window of 32 batches, whose order is shuffled
    again: batches hold texts of like length, so that little is padded.
    """
    for epoch in range(stage.epochs):
        shuffler = random.Random(f"{seed}/{stage.name}/{epoch}")
        order = [e.swapped() for e in examples] + list(examples) if stage.both_orders else list(examples)
        shuffler.shuffle(order)
        window = WINDOW * stage.batch
        for start in range(0, len(order), window):
            rows = sorted(order[start : start + window], key=_length)
            batches = [rows[at : at + stage.batch] for at in range(0, len(rows), stage.batch)]
            shuffler.shuffle(batches)
            yield from batches


def _length(example: Example) -> int:
    return len(example.pair.left) + len(example.pair.right)


def steps_of(examples: Sequence[Example], stage: Stage) -> int:
    """How many batches :func:`batches_of` yields."""
    rows = len(examples) * (2 if stage.both_orders else 1)
    return stage.epochs * math.ceil(rows / stage.batch)


def objective(network: Network, recipe: NetworkRecipe, batch: Sequence[Example]) -> Tensor:
    """The loss of a batch: the DSE objective on the logits, and CoSENT on the cosines of a bi-encoder."""
    gold = torch.tensor([example.gold for example in batch])
    teacher = torch.tensor([example.teacher for example in batch])
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
        logit, similarity = network([example.pair for example in batch])
    if isinstance(network, CrossEncoder):
        return pair_logit_loss(logit, gold, teacher, recipe.distillation)
    target = ranking_target(gold, teacher, recipe.distillation)
    ranking = recipe.cosine_weight * cosent(similarity, target, recipe.cosine_scale)
    if network.head is None:  # a cosine is no logit: the ranking loss alone shapes the embedding
        return ranking
    return pair_logit_loss(logit, gold, teacher, recipe.distillation) + ranking


def optimiser_of(network: Network, stage: Stage) -> torch.optim.AdamW:
    """AdamW; biases and LayerNorm are not decayed; a head may have its own learning rate."""
    head: set[int] = set()
    if isinstance(network, BiEncoder) and network.head is not None:
        head = {id(parameter) for parameter in network.head.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.01
        rate = stage.head_learning_rate if id(parameter) in head else None
        groups.setdefault((rate or stage.learning_rate, decay), []).append(parameter)
    return torch.optim.AdamW([{"params": ps, "lr": lr, "weight_decay": wd} for (lr, wd), ps in groups.items()])


def warmup_then_linear(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at a step: up over ``warmup`` of the steps, then down to nothing."""
    rising = max(1, round(steps * warmup))
    return lambda step: min((step + 1) / rising, (steps - step) / max(1, steps - rising), 1.0)


def train_stage(
    network: Network,
    recipe: NetworkRecipe,
    stage: Stage,
    examples: Sequence[Example],
    checkpoint: Path,
    progress: Progress,
) -> None:
    """Train a network in place, through one stage of its recipe.

    The state is written to ``checkpoint`` every two minutes; a later call with the same arguments goes on from it and
    ends with the same weights as a run that never stopped (each step seeds its own dropout). The file is removed at
    the end of the stage.
    """
    total = steps_of(examples, stage)
    optimiser = optimiser_of(network, stage)
    factor = warmup_then_linear(total, stage.warmup)
    peaks = [group["lr"] for group in optimiser.param_groups]
    done = _resume(network, optimiser, checkpoint)
    network.train()
    saved = time.monotonic()
    for step, batch in enumerate(batches_of(examples, stage, recipe.seed)):
        if step < done:
            continue
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        objective(network, recipe, batch).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * factor(step)
        optimiser.step()
        optimiser.zero_grad()
        progress(stage.name, step + 1, total)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(network, optimiser, step + 1, checkpoint)
            saved = time.monotonic()
    network.eval()
    checkpoint.unlink(missing_ok=True)


def _save(network: nn.Module, optimiser: torch.optim.AdamW, done: int, path: Path) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value.clone() for name, value in state.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors | {"done": torch.tensor(done)}, partial)
    partial.replace(path)


def _resume(
    network: nn.Module,
    optimiser: torch.optim.AdamW,
    path: Path,
) -> int:
    """Steps already taken by a run that stopped; 0 where there was none."""
    if not path.exists():
        return 0
    tensors = load_file(path)
    done = int(tensors.pop("done"))
    network.load_state_dict(
        {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, slot = name.split(".")
            state.setdefault(int(index), {})[slot] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return done
