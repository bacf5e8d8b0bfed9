"""A teacher that is served labels pairs: what is learned from is what it answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import GRAPH_FILES, MANIFEST, BundleManifest, load_teacher
from model.faults import TrainingFault
from model.manifest import ArtifactError, digests_of
from model.training.logits import LogitsError, TeacherLogits, label
from model.training.pairs import Pair
from model.training.served import teacher_at
from tests.tiny import write_ensemble, write_student, write_teacher

PAIRS = [Pair("one", "ab", "c", 0.0), Pair("two", "a b", "b c", 1.0), Pair("three", "xyz", "xyz", 0.5)]
FACTS: dict[str, Any] = {
    "quality": {"dev": {"int8": {"score": {"pearson": 89.1, "spearman": 88.2}}}},
    "calibration": {"score": {"slope": 1.5, "intercept": -0.25}},
    "trained_on": ["`gold.tsv`: terms of the gold"],
}


def told(folder: Path, **facts: Any) -> Path:
    """The bundle with other facts in its manifest."""
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    (folder / MANIFEST).write_text(json.dumps(manifest | FACTS | facts), "utf-8")
    return folder


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    return told(write_ensemble(tmp_path / "ensemble"))


def test_a_label_is_the_logit_whose_sigmoid_is_the_score_that_is_served(tmp_path: Path, ensemble: Path) -> None:
    labelled = label(teacher_at(ensemble), PAIRS, tmp_path / "logits.jsonl")
    served = load_teacher(ensemble, threads=1)
    raw = served.scorer.score([(pair.left, pair.right) for pair in PAIRS]).logits
    np.testing.assert_allclose(labelled.of(PAIRS), 1.5 * raw - 0.25, atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-labelled.of(PAIRS))), served.score(raw), atol=1e-6)


def test_the_labels_say_whose_they_are(tmp_path: Path, ensemble: Path) -> None:
    label(teacher_at(ensemble), PAIRS, tmp_path / "logits.jsonl")
    signal = TeacherLogits.load(tmp_path / "logits.jsonl").signal
    assert (signal.name, signal.dev.spearman, signal.trained_on) == ("tiny-ensemble", 88.2, (FACTS["trained_on"][0],))


def test_the_encoder_of_an_ensemble_finds_neighbours_on_the_scale_of_the_whole(ensemble: Path) -> None:
    """If the cross-encoder said of a pair what the encoder does, the teacher's logit would be this one."""
    member = teacher_at(ensemble).sentence_member()
    left, right = member.encode(["ab"]), member.encode(["c"])
    logit = 3 * (float(left[0] @ right[0]) - 0.4) / 0.25 - 1  # tiny's signal, by hand
    logit = 1.5 * logit - 0.25  # and FACTS' calibration
    np.testing.assert_allclose(member.scores(left, right), [1 / (1 + np.exp(-logit))], atol=1e-4)


def test_a_cross_encoder_alone_labels_but_finds_no_neighbours(tmp_path: Path) -> None:
    teacher = teacher_at(told(write_teacher(tmp_path / "teacher")))
    assert teacher.raw_scores(PAIRS).shape == (3, 1)
    with pytest.raises(TrainingFault, match="tiny-teacher has no bi-encoder among its members"):
        teacher.sentence_member()


def test_another_teacher_does_not_go_on_with_these_labels(tmp_path: Path, ensemble: Path) -> None:
    path = tmp_path / "logits.jsonl"
    label(teacher_at(ensemble), PAIRS[:1], path)
    with pytest.raises(LogitsError, match="written by tiny-ensemble with other members"):
        label(teacher_at(told(write_ensemble(tmp_path / "other", seed=7))), PAIRS, path)
    recalibrated = {"calibration": {"score": {"slope": 1.5, "intercept": 0.25}}}
    with pytest.raises(LogitsError, match="written by tiny-ensemble with other members"):
        label(teacher_at(told(ensemble, **recalibrated)), PAIRS, path)


def test_another_card_is_not_another_teacher(ensemble: Path) -> None:
    before = teacher_at(ensemble).signal
    (ensemble / "README.md").write_text("what someone should know", "utf-8")
    digests = digests_of(ensemble, [*BundleManifest.read(ensemble).files, "README.md"])
    assert teacher_at(told(ensemble, files=digests)).signal == before


def test_a_bundle_that_cannot_teach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a teacher .* is needed here"):
        teacher_at(write_student(tmp_path / "student"))
    with pytest.raises(TrainingFault, match="has no figures of int8 on dev"):
        teacher_at(told(write_teacher(tmp_path / "mute"), quality={}))
    with pytest.raises(TrainingFault, match="does not say what the teacher was trained on"):
        teacher_at(told(write_teacher(tmp_path / "secretive"), trained_on=[]))
    altered = write_ensemble(tmp_path / "altered")
    (altered / "pair" / GRAPH_FILES["int8"]).write_bytes(b"another")
    with pytest.raises(ArtifactError, match="restore the folder"):
        teacher_at(altered)


def test_a_folder_without_a_bundle_is_read_as_a_trained_signal(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match="run dse teacher train"):
        teacher_at(tmp_path)
