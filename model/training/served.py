"""What does a teacher that is served say of pairs to learn from? What is labelled is then what it answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle import MANIFEST, BundleManifest, Teacher, load_teacher
from model.ensemble import OnnxEnsemble
from model.faults import TrainingFault
from model.head import Calibration
from model.training.pairs import Pair
from model.training.quality import Correlation
from model.training.signal import Member, Signal
from model.training.teacher import Ensemble, SentenceMember


class ServedTeacher:
    """A teacher's bundle as the signal that students learn from: one member, whose raw scores are its logits."""

    def __init__(self, signal: Signal, teacher: Teacher) -> None:
        self.signal, self._teacher = signal, teacher

    @classmethod
    def load(cls, folder: Path) -> "ServedTeacher":
        """The graph that would be served, int8 where there is one, in as many threads as torch has.

        Raises:
            ArtifactError: not a teacher's bundle, or a file is missing or altered.
            TrainingFault: the bundle does not say how good it is, or what it was trained on.
        """
        teacher = load_teacher(folder, torch.get_num_threads())
        manifest = BundleManifest.read(folder)
        graph = manifest.pick(None, folder)
        try:
            facts = manifest.quality["dev"][graph]["score"]
            dev = Correlation(facts["pearson"], facts["spearman"])
        except KeyError as error:
            raise TrainingFault(
                f"{folder / MANIFEST} has no figures of {graph} on dev, by which students are told how good their "
                "teacher is; export the bundle with dse teacher export"
            ) from error
        digest = manifest.answers_digest(graph)
        member = Member(manifest.name, manifest.kind, digest, mean=0.0, deviation=1.0, dev=dev)
        if not manifest.trained_on:
            raise TrainingFault(
                f"{folder / MANIFEST} does not say what the teacher was trained on, which cards of its students have "
                "to; export the bundle again"
            )
        signal = Signal(
            manifest.name, (member,), teacher.score, dev, manifest.max_tokens, tuple(manifest.trained_on)
        )  # fmt: skip
        return cls(signal, teacher)

    def raw_scores(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(pairs, 1) the logits that the service answers, before they are calibrated."""
        return self._teacher.scorer.score([(pair.left, pair.right) for pair in pairs]).logits[:, None]

    def sentence_member(self) -> SentenceMember:
        """The bundle's encoder, for what only an encoder can do.

        Raises:
            TrainingFault: the teacher is a cross-encoder alone.
        """
        both = self._teacher.scorer
        if not isinstance(both, OnnxEnsemble):
            raise TrainingFault(f"{self.signal.name} has no bi-encoder among its members; give a signal that has one")
        inner, outer = both.calibration, self._teacher.score
        whole = Calibration(outer.slope * inner.slope, outer.slope * inner.intercept + outer.intercept)
        return SentenceMember(both.sentence, both.sentence_head, both.sentence_standard, whole)


def teacher_at(folder: Path) -> Ensemble | ServedTeacher:
    """Who labels: a teacher's bundle, or the folder that ``dse teacher train`` wrote.

    Raises:
        TrainingFault: it is neither, or was altered (as ``ArtifactError`` says it of a bundle).
    """
    return ServedTeacher.load(folder) if (folder / MANIFEST).exists() else Ensemble.load(folder)
