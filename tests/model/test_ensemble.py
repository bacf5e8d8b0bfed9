"""A teacher of two members says what the signal's formula says of their scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.bundle import load_student, load_teacher
from model.ensemble import OnnxEnsemble, Standard
from model.head import Calibration, HeadKind
from model.manifest import ArtifactError
from tests.tiny import SIGNAL, VOCABULARY, table, write_ensemble, write_student, write_teacher

SEED = 2  # of the members of ``write_ensemble``
LEFT, RIGHT = ["a", "##b"], ["c"]  # the tokens of the pair ("ab", "c")


@pytest.fixture(scope="module")
def ensemble_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ensemble(tmp_path_factory.mktemp("ensemble") / "bundle")


def vectors(tokens: list[str], dims: int) -> np.ndarray:
    return table(SEED, dims)[[VOCABULARY.index(token) for token in tokens]]


def read_together(left: list[str], right: list[str]) -> float:
    """The pair graph, by hand: the mean of a number a token, and 0.01 for each token of the second sentence."""
    tokens = ["[CLS]", *left, "[SEP]", *right, "[SEP]"]
    return float(vectors(tokens, 1).mean() + 0.01 * (len(right) + 1))


def embedded(tokens: list[str]) -> np.ndarray:
    """The sentence graph, by hand: the unit mean of the tokens' vectors."""
    mean = vectors(["[CLS]", *tokens, "[SEP]"], 16).mean(axis=0)
    return mean / np.linalg.norm(mean)


def signal(pair: float, sentence: float) -> float:
    """What ``SIGNAL`` makes of two raw scores."""
    return 3 * ((pair - 0.2) / 0.5 + (sentence - 0.4) / 0.25) / 2 - 1


def test_a_logit_is_the_mean_of_what_the_members_say_standardised(ensemble_bundle: Path) -> None:
    both_orders = (read_together(LEFT, RIGHT) + read_together(RIGHT, LEFT)) / 2
    cosine = float(embedded(LEFT) @ embedded(RIGHT))
    expected = signal(both_orders, cosine)
    logits = load_teacher(ensemble_bundle, threads=1).scorer.score([("ab", "c"), ("c", "ab")]).logits
    np.testing.assert_allclose(logits, [expected, expected], atol=2e-4)
    assert logits[0] == logits[1]


@pytest.mark.parametrize("kind", ["mlp", "quadratic"])
def test_the_sentence_member_may_score_by_its_head(tmp_path: Path, kind: HeadKind) -> None:
    student = load_student(write_student(tmp_path / "student", seed=SEED, head=kind), threads=1)
    u, v = student.encoder.encode(["ab"]), student.encoder.encode(["c"])
    both_orders = (read_together(LEFT, RIGHT) + read_together(RIGHT, LEFT)) / 2
    teacher = load_teacher(write_ensemble(tmp_path / "teacher", head=kind), threads=1)
    expected = signal(both_orders, float(student.head.logits(u, v)[0]))
    np.testing.assert_allclose(teacher.scorer.score([("ab", "c")]).logits, [expected], atol=2e-4)


def test_companions_do_not_leak_into_a_logit(ensemble_bundle: Path) -> None:
    teacher = load_teacher(ensemble_bundle, threads=1).scorer
    assert isinstance(teacher, OnnxEnsemble)
    pairs = [("a", "b"), ("abcdefghijklmnopqrstuvwxyz", "b c"), ("x", "y z"), ("a", "b")]
    together = teacher.with_token_budget(10_000).score(pairs).logits
    alone = [teacher.score([pair]).logits[0] for pair in pairs]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert together[0] == together[3]


def test_a_pair_is_cut_if_either_member_cut_it(tmp_path: Path) -> None:
    def cut(pair_tokens: int, sentence_tokens: int) -> list[bool]:
        name = f"{pair_tokens}-{sentence_tokens}"
        student = load_student(write_student(tmp_path / f"s{name}", max_tokens=sentence_tokens), threads=1)
        reader = load_teacher(write_teacher(tmp_path / f"t{name}", max_tokens=pair_tokens), threads=1).scorer
        plain, head = Standard(0.0, 1.0), student.head
        teacher = OnnxEnsemble(reader, plain, student.encoder, head, plain, Calibration(1.0, 0.0))
        pairs = [("a", "b"), ("abcdefgh", "b"), ("b", "abcdefgh")]
        before = teacher.tokenize(pairs)
        assert before.lengths.tolist() == [5, *[min(12, pair_tokens)] * 2]
        cut = teacher.score(pairs).truncated.tolist()
        assert before.truncated.tolist() == cut
        return cut

    assert cut(64, 32) == [False, False, False]
    assert cut(9, 32) == [False, True, True]
    assert cut(64, 8) == [False, True, True]


@pytest.mark.parametrize(
    "name",
    ["pair/onnx/model_int8.onnx", "sentence/onnx/model_int8.onnx", "sentence/head.safetensors", "pair/tokenizer.json"],
)
def test_each_members_files_are_checked(tmp_path: Path, name: str) -> None:
    folder = write_ensemble(tmp_path / "bundle", head="mlp")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} has been altered"):
        load_teacher(folder, threads=1)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        load_teacher(folder, threads=1)


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        ("sentence/onnx/model_int8.onnx", r"has no onnx graph \(it has: none\)"),
        ("pair/onnx/model_int8.onnx", r"has no onnx graph \(it has: none\)"),
        ("sentence/tokenizer.json", r"lacks \['sentence/tokenizer.json'\]"),
        ("sentence/head.safetensors", r"lacks \['sentence/head.safetensors'\]"),
        ("signal", r"lacks \['signal'\]"),
        ("dims", r"lacks \['dims'\]"),
    ],
)
def test_a_missing_member_is_refused(tmp_path: Path, fact: str, message: str) -> None:
    folder = write_ensemble(tmp_path / "bundle", head="mlp")
    manifest = json.loads((folder / "manifest.json").read_text())
    if fact in manifest:
        manifest[fact] = None
    else:
        del manifest["files"][fact]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=message):
        load_teacher(folder, threads=1)


def test_a_member_that_never_varied_is_refused(tmp_path: Path) -> None:
    folder = write_ensemble(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["signal"] = SIGNAL | {"pair": {"mean": 0.0, "deviation": 0.0}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"signal\.pair\.deviation: Input should be greater than 0"):
        load_teacher(folder, threads=1)


def test_an_ensemble_is_no_student(ensemble_bundle: Path) -> None:
    with pytest.raises(ArtifactError, match=r"of kind ensemble; a student \(kind encoder\) is needed here"):
        load_student(ensemble_bundle, threads=1)
