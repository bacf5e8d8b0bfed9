import json
from pathlib import Path

import numpy as np
import pytest

from model.bundle import GRAPH_FILES, HEAD, MANIFEST, TOKENIZER, Student, load_student, load_teacher
from model.similarity import score_pairs
from scripts.evaluation.scorers import of_bundle, of_folder, of_teacher
from tests.tiny import write_ensemble, write_student

ROWS = [("listen", "silent"), ("google", "banana"), ("listen", "stone")]


def test_a_bundle_answers_what_the_service_would(student_bundle: Path, student: Student) -> None:
    model = of_bundle(student_bundle)
    found, answers = model.score(ROWS), score_pairs(student.encoder, student.head, ROWS)
    assert list(found) == ["score", "similarity"]
    np.testing.assert_allclose(found["score"], student.score(answers.logits), atol=1e-6)
    np.testing.assert_allclose(found["similarity"], answers.similarities, atol=1e-6)
    assert model.encode is not None
    np.testing.assert_allclose(model.encode(["stone"]), student.encoder.encode(["stone"]), atol=1e-6)
    assert (model.facts.name, model.facts.kind, model.teaches) == ("tiny-student", "bundle", ())
    assert model.head is not None


def test_a_bundle_is_told_by_all_that_decides_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the graph alone: several heads are trained over one encoder."""
    neutral = {"slope": 1.0, "intercept": 0.0}
    folders = [
        write_student(tmp_path / "mlp"),
        write_student(tmp_path / "quadratic", head="quadratic"),
        write_student(tmp_path / "calibrated", calibration={"score": neutral, "similarity": neutral}),
    ]
    assert len({load_student(folder, threads=1).encoder_digest for folder in folders}) == 1
    digests = [of_bundle(folder).facts.digest for folder in folders]
    assert len(set(digests)) == 3
    assert of_bundle(write_student(tmp_path / "card", name="another name")).facts.digest == digests[0]
    monkeypatch.setenv("DSE_LONG_TEXT", "chunk")
    assert of_bundle(folders[0]).facts.digest == f"{digests[0]}+chunk"


def test_a_teacher_is_told_by_its_signal_too(tmp_path: Path) -> None:
    folders = [write_ensemble(tmp_path / name) for name in ("one", "other")]
    manifest = json.loads((folders[1] / MANIFEST).read_text())
    manifest["signal"]["slope"] += 1
    (folders[1] / MANIFEST).write_text(json.dumps(manifest))
    assert of_teacher(folders[0]).facts.digest != of_teacher(folders[1]).facts.digest


def test_a_bundle_that_may_be_cut_answers_by_each_width(tmp_path: Path) -> None:
    folder = write_student(tmp_path / "student", matryoshka=[4, 8])
    model, encoder = of_bundle(folder, prefixes=True), load_student(folder, threads=1).encoder
    found = model.answers(ROWS)
    assert list(found) == ["score", "similarity", "similarity@4", "similarity@8"]
    for width in model.prefixes:
        left, right = (encoder.encode([row[side] for row in ROWS], width) for side in (0, 1))
        np.testing.assert_allclose(found[f"similarity@{width}"], (left * right).sum(axis=1), atol=1e-5)
    assert not np.allclose(found["similarity@4"], found["similarity"], atol=0.01)
    assert list(model.score(ROWS)) == list(of_bundle(folder).answers(ROWS)) == ["score", "similarity"]


def test_a_bundles_size_is_that_of_the_files_it_runs_on(student_bundle: Path) -> None:
    for file in (GRAPH_FILES["int8"], TOKENIZER, HEAD):
        assert (student_bundle / file).stat().st_size > 0
    used = sum((student_bundle / file).stat().st_size for file in (GRAPH_FILES["int8"], TOKENIZER, HEAD))
    assert of_bundle(student_bundle).facts.megabytes == round(used / 1e6, 1)


def test_a_teacher_scores_pairs_and_embeds_nothing(teacher_bundle: Path) -> None:
    teacher, model = load_teacher(teacher_bundle, threads=1), of_teacher(teacher_bundle)
    assert model.encode is None
    assert model.teaches == ("score",)
    expected = teacher.score(teacher.scorer.score(ROWS).logits)
    np.testing.assert_allclose(model.score(ROWS)["score"], expected, atol=1e-6)


def test_a_folder_answers_its_cosines(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.model.training.tiny_training import write_pretrained

    model = of_folder(write_pretrained(tmp_path / "plain-bert"))
    assert (model.facts.name, model.facts.kind, model.head) == ("plain-bert", "folder", None)
    assert model.encode is not None
    left, right = (model.encode([row[side] for row in ROWS]) for side in (0, 1))
    np.testing.assert_allclose(model.score(ROWS)["similarity"], (left * right).sum(axis=1), atol=1e-5)


def test_a_folder_is_told_by_all_its_weights_wherever_its_body_is(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load_file, save_file

    from tests.model.training.test_sentence_transformer import MEAN, write_dense, write_modules
    from tests.model.training.tiny_training import write_pretrained

    folder = tmp_path / "folder"
    body = write_pretrained(folder / "0_Transformer")
    write_modules(folder, MEAN, "Dense")
    write_dense(folder / "2_Dense")
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(listed))
    before = of_folder(folder)
    files = (body / "model.safetensors", folder / "2_Dense/model.safetensors", body / TOKENIZER)
    assert before.facts.megabytes == round(sum(file.stat().st_size for file in files) / 1e6, 1)
    assert before.tokenizer == body / TOKENIZER
    digests = {before.facts.digest}
    for weights in files[:2]:
        changed = load_file(weights)
        first = sorted(changed)[0]
        save_file(changed | {first: changed[first] + 1}, weights, {"format": "pt"})
        digests.add(of_folder(folder).facts.digest)
    assert len(digests) == 3


def test_another_name_is_the_same_model(student_bundle: Path) -> None:
    model = of_bundle(student_bundle)
    renamed = model.named("second")
    assert renamed.facts.name == "second"
    assert (renamed.facts.digest, renamed.score, renamed.encode) == (model.facts.digest, model.score, model.encode)
