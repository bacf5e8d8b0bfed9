"""How is the teacher signal made? Its members are trained, standardised and calibrated together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.bundle import GRAPH_FILES
from model.encoder import OnnxEncoder
from model.ensemble import Standard
from model.faults import TrainingFault
from model.head import Calibration, Head
from model.manifest import check_digests, sha256_of
from model.training.graphs import write_graph
from model.training.logits import TeacherLogits
from model.training.material import materials
from model.training.network_recipe import NetworkRecipe
from model.training.networks import Sources
from model.training.pairs import Pair, TrainingData
from model.training.provenance import learned_from, unique, write_learned_from
from model.training.quality import Correlation, fit_calibration
from model.training.recipes import TeacherRecipe
from model.training.runs import check_folder, network_digest, train_network
from model.training.scoring import OnnxScorer
from model.training.signal import SIGNAL, Member, Signal
from model.training.trainer import Progress

LEAST_DEV = 3
"""Pairs of dev: of fewer, the correlation that every gate looks at says nothing."""


class Ensemble:
    """The folder that :func:`train_teacher` wrote: the members' fp32 graphs, and the signal they make together."""

    def __init__(self, signal: Signal, scorers: Sequence[OnnxScorer]) -> None:
        self.signal, self._scorers = signal, scorers

    @classmethod
    def load(cls, folder: Path) -> "Ensemble":
        """Read every member, and see that none was altered since the signal was calibrated.

        Raises:
            TrainingFault: not such a folder, or a member is not the one that was calibrated.
            ArtifactError: a member's graph is missing, or is not the one that was calibrated.
        """
        signal, remedy = Signal.read(folder), "run dse teacher train into a new folder"
        for member in signal.members:
            if (actual := network_digest(folder / member.name)) != member.digest:
                raise TrainingFault(
                    f"{folder / member.name} has been altered: its digest is {actual}, {SIGNAL} says {member.digest}; "
                    f"{remedy}"
                )
            if member.graph is not None:
                check_digests(folder / member.name, {GRAPH_FILES["fp32"]: member.graph}, remedy)
        return cls(signal, [_scorer(folder / member.name, signal.max_tokens) for member in signal.members])

    def raw_scores(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(pairs, members) what each member says, a cross-encoder in both orders."""
        return np.stack([scorer(pairs).logits for scorer in self._scorers], axis=1)

    def sentence_member(self) -> "SentenceMember":
        """The signal's first bi-encoder, for what only an encoder can do.

        Raises:
            TrainingFault: the signal has none.
        """
        for member, scorer in zip(self.signal.members, self._scorers, strict=True):
            if isinstance(scorer.model, OnnxEncoder):
                standard = Standard(member.mean, member.deviation)
                return SentenceMember(scorer.model, scorer.head, standard, self.signal.calibration)
        raise TrainingFault(f"{self.signal.name} has no bi-encoder among its members; give a signal that has one")


@dataclass(frozen=True)
class SentenceMember:
    """A bi-encoder of a signal, on the signal's own scale."""

    encoder: OnnxEncoder
    head: Head
    standard: Standard
    calibration: Calibration

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings."""
        return self.encoder.encode(texts)

    def scores(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
        """(pairs,) scores, 0..1: what the signal would say if every member said what this one does."""
        return self.calibration(self.standard(self.head.logits(left, right)))


def _scorer(folder: Path, max_tokens: int) -> OnnxScorer:
    recipe = NetworkRecipe.model_validate_json((folder / "network.json").read_bytes())
    return OnnxScorer.load(folder, "fp32", recipe, max_tokens)


class TeacherGateError(TrainingFault):
    """A signal that is not worth distilling: it is hardly better than its best bi-encoder."""


def train_teacher(
    recipe: TeacherRecipe,
    data: TrainingData,
    logits: TeacherLogits | None,
    init: str | None,
    folder: Path,
    progress: Progress,
) -> Signal:
    """Train every member, then standardise and calibrate the signal on the dev split; writes ``signal.json``.

    Raises:
        TeacherGateError: on dev the signal does not beat its best bi-encoder by the recipe's ``min_gain``.
        TrainingFault: the recipe's members are taught, and no logits were given; or the folder holds another signal, or
            other runs.
    """
    if recipe.taught and logits is None:
        raise TrainingFault(f"the members of {recipe.name} learn from an earlier signal: give its --logits")
    dev = data.dev
    if len(dev) < LEAST_DEV:
        raise TrainingFault(
            f"{recipe.name}: {len(dev)} pairs of dev; scores are made comparable over {LEAST_DEV} or more"
        )
    _check_folder(folder, recipe, init)
    gold = np.array([pair.gold for pair in dev])
    members, columns, learned = [], [], list[str]()
    for member in recipe.members:
        sources, told = Sources.of(member, init), partial(_of_member, progress, member.name)
        stages = materials(member, data, logits, sources.guide, folder / member.name, told)
        network = train_network(
            member, sources.start, stages, folder / member.name, told, sources.origin, sources.guide
        )
        of_member = learned_from(member, data, logits.signal if logits else None, sources)
        write_learned_from(folder / member.name, of_member)
        learned += of_member
        write_graph(network, folder / member.name, recipe.max_tokens)
        column = _scorer(folder / member.name, recipe.max_tokens)(dev).logits
        columns.append((column - column.mean()) / column.std())
        members.append(
            Member(
                member.name,
                member.kind,
                network_digest(folder / member.name),
                float(column.mean()),
                float(column.std()),
                Correlation.of(column, gold),
                sha256_of(folder / member.name / GRAPH_FILES["fp32"]),
            )
        )
    mean = np.stack(columns, axis=1).mean(axis=1)
    signal = Signal(
        recipe.name,
        tuple(members),
        fit_calibration(mean, gold),
        Correlation.of(mean, gold),
        recipe.max_tokens,
        tuple(unique(learned)),
    )
    _gate(signal, recipe.min_gain)
    (folder / SIGNAL).write_text(json.dumps(signal.as_json(), indent=2), "utf-8")
    return signal


def _check_folder(folder: Path, recipe: TeacherRecipe, init: str | None) -> None:
    """A signal may gain members, and each may be taken up again; no other signal's folder is written to."""
    if (folder / SIGNAL).exists():
        found = Signal.read(folder)
        if found.name != recipe.name or {one.name for one in found.members} - {one.name for one in recipe.members}:
            members = ", ".join(member.name for member in found.members)
            raise TrainingFault(
                f"{folder} holds another signal ({found.name}, of {members}); name another --output, or remove it"
            )
    for member in recipe.members:
        sources = Sources.of(member, init)
        check_folder(folder / member.name, member, sources.start, sources.origin, sources.guide)


def _of_member(progress: Progress, name: str, stage: str, done: int, total: int) -> None:
    """Progress under a name that no other member's stage has."""
    progress(f"{name}: {stage}", done, total)


def _gate(signal: Signal, min_gain: float | None) -> None:
    alone = [member for member in signal.members if member.kind == "bi-encoder"]
    if min_gain is None or not alone:
        return
    best = max(alone, key=lambda member: member.dev.spearman)
    gain = signal.dev.spearman - best.dev.spearman
    if not gain >= min_gain:  # so that NaN does not pass
        raise TeacherGateError(
            f"on dev the signal {signal.name} is {gain:.2f} points of Spearman above its best bi-encoder, {best.name}; "
            f"its recipe asks for {min_gain}: train its members longer, or on more pairs, before distilling it"
        )
