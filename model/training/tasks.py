"""How much of its teacher's figure does a student keep on a pair task? Both are trained, then judged alike."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.head import Calibration
from model.training.answers import torch_logits
from model.training.guide import guide_embeddings
from model.training.logits import TeacherLogits, label
from model.training.material import materials, pairs_to_train, stage_examples
from model.training.neighbours import write_neighbours
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.networks import Network, Sources, weights_of
from model.training.pairs import Pair, TrainingData, data_digest
from model.training.quality import Correlation, accuracy, decisions, expected_gold, f1
from model.training.recipes import SHALLOW_BODY, TASK_RESULT, ShallowRecipe, TaskRecipe
from model.training.runs import check_folder, network_digest, train_network, weights_digest
from model.training.signal import Member, Signal
from model.training.trainer import Progress


def run_task(recipe: TaskRecipe, root: Path, init: str | None, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train a task's teacher, have it label the student's pairs, train the student, and judge both on dev and test.

    Every network is a run of its own below ``folder``, taken up where it stopped; a finished task is only read. One
    whose files changed is gone through again: what was learnt on other pairs is refused, the rest is judged anew.

    Args:
        recipe: the task.
        root: the data folder.
        init: a folder that stands for the hub ids of the recipe; folders that it names are read as they are.
        folder: where everything is written, ``result.json`` last.
        progress: told the part of the task and its steps.

    Returns:
        What that file holds: figures, the rows that were learnt and judged, and in ``claim`` what decides them.

    Raises:
        TrainingFault: the folder holds runs of another recipe, on other pairs, or from other weights.
    """
    claim = {
        "recipe": recipe.model_dump(mode="json"),
        "init": weights_digest(weights_of(recipe.teacher.init, init)),
        "data": data_digest(root, recipe.data, _names(recipe)),
    }
    path = folder / TASK_RESULT
    if path.exists():
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if result["claim"] == claim:
            return result
    result = {"claim": claim} | _Task(recipe, root, init, folder, progress).result()
    unfinished = folder / f"{TASK_RESULT}.partial"
    unfinished.write_text(json.dumps(result, indent=2), "utf-8")
    unfinished.replace(path)
    return result


class TaskTeacher:
    """A task's cross-encoder as labelling asks it: its logits are the signal, as they are."""

    def __init__(self, network: Network, recipe: NetworkRecipe, digest: str, dev: Correlation) -> None:
        self._network = network
        member = Member(recipe.name, recipe.kind, digest, mean=0.0, deviation=1.0, dev=dev)
        self.signal = Signal(recipe.name, (member,), Calibration(1.0, 0.0), dev, recipe.max_tokens)

    def raw_scores(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(pairs, 1) its logits, or (pairs, outputs, 1)."""
        return torch_logits(self._network, pairs)[..., None]


class _Task:
    """A task in its folder."""

    def __init__(self, recipe: TaskRecipe, root: Path, init: str | None, folder: Path, progress: Progress) -> None:
        self._recipe, self._init, self._folder, self._progress = recipe, init, folder, progress
        self._data = TrainingData(root, recipe.data)
        if recipe.neighbours is not None:
            silver = folder / "neighbours.tsv.gz"
            write_neighbours(recipe.neighbours, self._data, self._embed, silver)
            self._data = TrainingData(root, recipe.data, silver)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.floating]:
        """(texts, dim) what the student's initial weights make of texts."""
        student, folder = self._recipe.student, self._folder / "guide"
        start = weights_of(student.init, self._init)
        return guide_embeddings(student, start, texts, folder, self._told("neighbours"))

    def _told(self, part: str) -> Progress:
        """Progress of one part of the task."""
        return lambda step, done, total: self._progress(f"{self._recipe.name} {part}: {step}", done, total)

    def result(self) -> dict[str, Any]:
        """What is written of the task, without the claim."""
        recipe, data = self._recipe, self._data
        teacher = self._trained(recipe.teacher, "teacher")
        logits = self._labelled(teacher)
        student = self._trained(recipe.student, "student", logits)
        shallow = {} if recipe.shallow is None else {"shallow": self._shallow(recipe.shallow, teacher, logits)}
        return {
            "trained_on": data.described(stage for network in recipe.networks for stage in network.stages),
            "judged_on": {"dev": recipe.data.dev.described, "test": recipe.data.test.described},
            "rows": {"dev": len(data.dev), "test": len(data.test)},
            "teacher": self._facts(teacher, recipe.teacher),
            "student": self._facts(student, recipe.student),
        } | shallow

    def _trained(
        self, network: NetworkRecipe, part: str, logits: TeacherLogits | None = None, body: Path | None = None
    ) -> Network:
        named = network if body is None else network.model_copy(update={"init": str(body)})
        sources, folder, told = Sources.of(named, self._init), self._folder / part, self._told(part)
        check_folder(folder, network, sources.start, sources.origin, sources.guide)
        stages = materials(network, self._data, logits, sources.guide, folder, told)
        return train_network(network, sources.start, stages, folder, told, sources.origin, sources.guide)

    def _labelled(self, teacher: Network) -> TeacherLogits:
        """The teacher's logits of every pair that another network learns from."""
        recipe, dev = self._recipe, self._data.dev
        quality = Correlation.of(expected_gold(torch_logits(teacher, dev)), np.array([pair.gold for pair in dev]))
        digest = network_digest(self._folder / "teacher")
        stages: list[Stage] = [stage for network in recipe.networks[1:] for stage in network.stages]
        return label(
            TaskTeacher(teacher, recipe.teacher, digest, quality),
            [pair for pairs in pairs_to_train(stages, self._data).values() for pair in pairs],
            self._folder / "logits.jsonl",
            partial(self._told("teacher"), "label"),
        )

    def _facts(self, network: Network, recipe: NetworkRecipe) -> dict[str, Any]:
        return {
            "parameters": sum(weights.numel() for weights in network.parameters()),
            "seed": recipe.seed,
            "pairs": _pairs_learnt(recipe, self._data),
            "dev": self._judged(network, self._data.dev),
            "test": self._judged(network, self._data.test),
        }

    def _judged(self, network: Network, pairs: Sequence[Pair]) -> dict[str, float]:
        logits, gold = torch_logits(network, pairs), np.array([pair.gold for pair in pairs])
        if self._recipe.figure == "pearson":
            return asdict(Correlation.of(expected_gold(logits), gold))
        decided = decisions(logits)
        figures = {"accuracy": accuracy(decided, gold)}
        return figures if logits.ndim > 1 else {"f1": f1(decided, gold)} | figures

    def _shallow(self, recipe: ShallowRecipe, teacher: Network, logits: TeacherLogits) -> dict[str, Any]:
        """The shallow network's facts, and what one pass over dev costs it and the teacher."""
        self._trained(recipe.body, SHALLOW_BODY)
        network = self._trained(recipe.network, "shallow", logits, self._folder / SHALLOW_BODY)
        seconds = seconds_of_a_pass({"shallow": network, "teacher": teacher}, self._data.dev)
        layers = {"shallow": _layers(network), "teacher": _layers(teacher)}
        return self._facts(network, recipe.network) | {"seconds": seconds, "layers": layers}


def _names(recipe: TaskRecipe) -> set[str]:
    """What the networks of a task learn from, by the names that the recipe's data gives it."""
    stages = [stage for network in recipe.networks for stage in network.stages]
    neighbours = () if recipe.neighbours is None else recipe.neighbours.sets
    return {*(name for stage in stages for name in (*stage.sets, *stage.texts)), *neighbours}


def _layers(network: Network) -> int:
    return int(network.body.config.num_hidden_layers)


def _pairs_learnt(network: NetworkRecipe, data: TrainingData) -> dict[str, int]:
    """How many pairs a network learns from that have gold, and how many from the teacher's logits alone."""
    pairs = pairs_to_train(network.stages, data)
    examples = [example for stage in network.stages for example in stage_examples(stage, pairs, None)]
    gold = {example.pair.id for example in examples if not math.isnan(example.gold)}
    return {"gold": len(gold), "teacher_only": len({example.pair.id for example in examples} - gold)}


def seconds_of_a_pass(networks: Mapping[str, Network], pairs: Sequence[Pair]) -> dict[str, float]:
    """Seconds of one pass over ``pairs``, one at a time (batch 1), on one CPU thread in fp32, tokenising included.

    So DistilBERT's inference time was taken (Sanh et al., arXiv 1910.01108, table 3). The networks take turns, pair by
    pair, so that whatever else the machine does slows all alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = dict.fromkeys(networks, 0.0)
    try:
        with torch.inference_mode():
            for pair in pairs:
                for name, network in networks.items():
                    start = time.perf_counter()
                    network([pair])
                    seconds[name] += time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    return {name: round(taken, 2) for name, taken in seconds.items()}
