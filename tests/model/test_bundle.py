import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from model.bundle import GRAPH_FILES, BundleManifest, Student, load_student, load_teacher
from model.faults import DimensionsError
from model.head import CosineHead, Head, HeadKind, MlpHead, QuadraticHead
from model.manifest import ArtifactError, sha256_of
from model.tokens import Forward, Run, Tokens
from tests.tiny import DIMS, VOCABULARY, flat_pair_graph, table, write_student, write_teacher


@pytest.fixture
def copied(tmp_path: Path, student_bundle: Path) -> Path:
    shutil.copytree(student_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def change(folder: Path, **facts: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def without_graphs(folder: Path) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change(folder, files={name: digest for name, digest in files.items() if not name.startswith("onnx/")})


def test_an_embedding_is_what_the_graph_says(student: Student) -> None:
    """By hand: the unit mean of the vectors of ``[CLS] a ##b [SEP]``."""
    mean = np.mean([table(1)[VOCABULARY.index(token)] for token in ("[CLS]", "a", "##b", "[SEP]")], axis=0)
    np.testing.assert_allclose(student.encoder.encode(["ab"])[0], mean / np.linalg.norm(mean), rtol=1e-5)


def test_companions_do_not_leak_into_an_embedding(student: Student) -> None:
    texts = ["a", "abcdefghijklmnopqrstuvwxyz", "b c", "a"]
    one_batch = student.encoder.with_token_budget(10_000).encode(texts)
    alone = np.vstack([student.encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(one_batch, alone, atol=1e-6)
    np.testing.assert_array_equal(one_batch[0], one_batch[3])


def test_embeddings_are_cut_where_the_manifest_allows(tmp_path: Path, student: Student) -> None:
    encoder = load_student(write_student(tmp_path / "bundle", matryoshka=[4, 8]), threads=1).encoder
    whole = student.encoder.encode(["ab", "c"])
    np.testing.assert_array_equal(encoder.encode(["ab", "c"], dims=DIMS), whole)
    expected = np.array([row[:8] / np.linalg.norm(row[:8]) for row in whole])
    np.testing.assert_allclose(encoder.encode(["ab", "c"], dims=8), expected, rtol=1e-6)
    np.testing.assert_allclose(encoder.with_token_budget(8).encode(["ab", "c"], dims=8), expected, rtol=1e-6)
    assert encoder.encode([], dims=4).shape == (0, 4)


@pytest.mark.parametrize("batches", [[], [["ab"]], [["ab", "c"], [], ["d"], ["ab", "xyz", "c"]]])
def test_batches_are_encoded_in_order_as_each_alone(tmp_path: Path, batches: list[list[str]]) -> None:
    encoder = load_student(write_student(tmp_path / "bundle", matryoshka=[8]), threads=1).encoder
    for dims in (None, 8):
        encoded = list(encoder.encode_batches(iter(batches), dims))
        assert len(encoded) == len(batches)
        for embeddings, batch in zip(encoded, batches, strict=True):
            np.testing.assert_array_equal(embeddings, encoder.encode(batch, dims))


def test_a_batch_that_cannot_be_read_ends_the_encoding(student: Student) -> None:
    def broken() -> Iterator[list[str]]:
        yield ["ab"]
        yield ["c"]
        raise OSError("the disk is gone")

    encoded = student.encoder.encode_batches(broken())
    np.testing.assert_array_equal(next(encoded), student.encoder.encode(["ab"]))
    with pytest.raises(OSError, match="the disk is gone"):
        list(encoded)


@pytest.mark.parametrize(("matryoshka", "allowed"), [([4, 8], "4, 8, 16"), ([], "16")])
def test_another_width_is_refused_with_those_that_are_allowed(
    tmp_path: Path, matryoshka: list[int], allowed: str
) -> None:
    encoder = load_student(write_student(tmp_path / "bundle", matryoshka=matryoshka), threads=1).encoder
    for dims in (0, 5, 17):
        with pytest.raises(DimensionsError, match=f"of {dims} dimensions were asked for; this model gives {allowed}$"):
            encoder.encode(["a"], dims)
        with pytest.raises(DimensionsError, match=f"of {dims} dimensions"):
            encoder.encode_batches(iter([["a"]]), dims)


@pytest.mark.parametrize(("kind", "head"), [("mlp", MlpHead), ("quadratic", QuadraticHead), ("cosine", CosineHead)])
def test_a_student_has_the_head_that_its_manifest_names(tmp_path: Path, kind: HeadKind, head: type[Head]) -> None:
    assert isinstance(load_student(write_student(tmp_path / "bundle", head=kind), threads=1).head, head)


@pytest.mark.parametrize("head", ["mlp", "quadratic"])
def test_a_head_without_its_file_is_refused(tmp_path: Path, head: HeadKind) -> None:
    folder = write_student(tmp_path / "bundle", head="cosine")
    change(folder, head=head)
    with pytest.raises(ArtifactError, match=r"lacks \['head.safetensors'\]"):
        load_student(folder, threads=1)


def test_no_texts_no_rows(student: Student) -> None:
    assert student.encoder.encode([]).shape == (0, DIMS)


def ending_with(number: float) -> Callable[[Forward], Run]:
    """A graph whose last answer is a number, whatever it was asked."""

    def queue(forward: Forward) -> Run:
        def run(tokens: Tokens) -> np.ndarray:
            answers = forward(tokens)
            answers[-1] = number
            return answers

        return run

    return queue


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_no_answer(student: Student, teacher_bundle: Path, number: float) -> None:
    with pytest.raises(ArithmeticError, match="the encoder answered a number that is not finite; check the bundle"):
        student.encoder.queued(ending_with(number)).encode(["a", "b"])
    teacher = load_teacher(teacher_bundle, threads=1).scorer
    with pytest.raises(ArithmeticError, match="the teacher answered a number that is not finite; check the bundle"):
        teacher.queued(ending_with(number)).score([("a", "b")])


def test_a_teacher_does_not_mind_the_order(teacher_bundle: Path) -> None:
    teacher = load_teacher(teacher_bundle, threads=1).scorer
    logits = teacher.score([("abc", "d"), ("d", "abc"), ("x", "y")]).logits
    assert logits[0] == pytest.approx(logits[1])
    assert logits[0] != pytest.approx(logits[2])


def test_a_pair_too_long_for_the_teacher_says_so(teacher_bundle: Path) -> None:
    teacher = load_teacher(teacher_bundle, threads=1).scorer
    np.testing.assert_array_equal(teacher.score([("a", "b"), ("a" * 99, "b")]).truncated, [False, True])


def test_a_pair_graph_is_given_only_the_inputs_it_declares(tmp_path: Path) -> None:
    """RoBERTa's have no ``token_type_ids``."""
    folder = write_teacher(tmp_path / "bundle")
    graph = folder / GRAPH_FILES["int8"]
    onnx.save(flat_pair_graph(2), graph)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change(folder, files=files | {GRAPH_FILES["int8"]: sha256_of(graph)})
    logit = load_teacher(folder, threads=1).scorer.score([("ab", "c")]).logits[0]
    read = [VOCABULARY.index(token) for token in ("[CLS]", "a", "##b", "[SEP]", "c", "[SEP]")]
    assert logit == pytest.approx(table(2, 1)[read].mean(), abs=1e-5)


@pytest.mark.parametrize("name", ["onnx/model_int8.onnx", "tokenizer.json", "head.safetensors"])
def test_a_flipped_byte_is_refused(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name} has been altered: its sha256 is \w+, the manifest says \w+"):
        load_student(copied, threads=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is not a bundle: it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is not a bundle's manifest"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: change(folder, dims=None), r"lacks \['dims'\]"),
        (lambda folder: change(folder, calibration={}), r"lacks \['score', 'similarity'\]"),
        (lambda folder: change(folder, files={}), r"lacks \['head.safetensors', 'tokenizer.json'\]"),
        (without_graphs, r"has no onnx graph \(it has: none\)"),
        (lambda folder: change(folder, surprise=1), "surprise: Extra inputs"),
        (lambda folder: change(folder, matryoshka=[8, 99]), r"matryoshka: .*\[99\] is not below the 16 dims"),
        (lambda folder: change(folder, matryoshka=[0]), "matryoshka.0: Input should be greater than or equal to 1"),
        (
            lambda folder: change(folder, calibration={"score": {"slope": -1.0, "intercept": 0.0}}),
            "calibration.score.slope",
        ),
    ],
)
def test_a_damaged_bundle_says_what_is_wrong(copied: Path, damage, message: str) -> None:
    damage(copied)
    with pytest.raises(ArtifactError, match=message):
        load_student(copied, threads=1)


def test_a_path_outside_the_folder_is_refused(copied: Path) -> None:
    files = json.loads((copied / "manifest.json").read_text())["files"]
    change(copied, files=files | {"../elsewhere": "0" * 64})
    with pytest.raises(ArtifactError, match="outside the folder"):
        load_student(copied, threads=1)


def test_a_graph_that_is_none_is_refused(copied: Path) -> None:
    graph = copied / "onnx/model_int8.onnx"
    graph.write_bytes(b"no graph")
    files = json.loads((copied / "manifest.json").read_text())["files"]
    change(copied, files=files | {"onnx/model_int8.onnx": sha256_of(graph)})
    with pytest.raises(ArtifactError, match="not a graph that onnxruntime can run"):
        load_student(copied, threads=1)


def test_student_and_teacher_are_not_mistaken(student_bundle: Path, teacher_bundle: Path) -> None:
    with pytest.raises(ArtifactError, match="of kind cross-encoder; a student"):
        load_student(teacher_bundle, threads=1)
    with pytest.raises(ArtifactError, match="of kind encoder; a teacher"):
        load_teacher(student_bundle, threads=1)


def test_a_graph_can_be_asked_for(student_bundle: Path, teacher_bundle: Path) -> None:
    load_student(student_bundle, threads=1, graph="fp32")
    with pytest.raises(ArtifactError, match=r"has no fp32 graph \(it has: int8\)"):
        load_teacher(teacher_bundle, threads=1, graph="fp32")


def test_the_encoder_digest_changes_with_what_decides_an_embedding(tmp_path: Path, student_bundle: Path) -> None:
    def digest(folder: Path) -> str:
        return BundleManifest.read(folder).graph_digest("int8")

    other_weights = write_student(tmp_path / "weights", seed=9)
    other_cut = write_student(tmp_path / "cut", max_tokens=16)
    other_name = write_student(tmp_path / "name", name="renamed")
    other_tokens = write_student(tmp_path / "tokens")
    files = json.loads((other_tokens / "manifest.json").read_text())["files"]
    change(other_tokens, files=files | {"tokenizer.json": "0" * 64})
    assert len({digest(folder) for folder in (student_bundle, other_weights, other_cut, other_tokens)}) == 4
    assert digest(other_name) == digest(student_bundle)


def test_an_encoders_digest_is_what_earlier_versions_made_it(student_bundle: Path) -> None:
    """Indexes remember it: with another one, none that was built before an upgrade would open after it."""
    files = {"tokenizer.json": "t" * 64, GRAPH_FILES["int8"]: "g" * 64, "head.safetensors": "h" * 64}
    manifest = BundleManifest.read(student_bundle).model_copy(update={"files": files, "max_tokens": 128})
    assert manifest.graph_digest("int8") == "6215b4e78a83fc28c2e28e4ade8dc011944b2eedd4c151a680ad2c01722e39fc"


@pytest.mark.parametrize(("layers", "most"), [(0, 1024), (6, 256)])
def test_a_table_reads_more_tokens_in_a_call_than_a_transformer(
    student_bundle: Path, tmp_path: Path, layers: int, most: int
) -> None:
    folder = Path(shutil.copytree(student_bundle, tmp_path / "bundle"))
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": layers}))
    encoder, read = load_student(folder, threads=1).encoder, list[int]()
    run = encoder._graph._session.run

    def counted(outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        read.append(inputs["input_ids"].size)
        return run(outputs, inputs)

    encoder._graph._session = SimpleNamespace(run=counted)  # type: ignore[assignment]
    encoder.encode(["a"] * 2000)
    assert most / 2 < max(read) <= most
