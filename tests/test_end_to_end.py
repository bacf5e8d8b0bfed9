"""Pairs -> teacher -> logits -> student -> bundle -> index -> HTTP, in miniature, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from model.bundle import GRAPH_FILES, BundleManifest, load_student, load_teacher
from tests.command import dse
from tests.model.training import tiny_training

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters warn about themselves


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every step was run."""
    home = tmp_path_factory.mktemp("end_to_end")
    pretrained = tiny_training.write_pretrained(home / "bert")
    (home / "data").mkdir()
    tiny_training.write_pairs(home / "data")
    for name, recipe in [
        ("teacher", tiny_training.teacher_recipe()),
        ("student", tiny_training.student_recipe()),
        ("served", tiny_training.student_recipe("cross-encoder")),
    ]:
        if name == "served":
            recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update={"name": "tiny-served"})})
        tiny_training.write_toml(home / f"{name}.toml", recipe.model_dump(mode="json", exclude_none=True))
    data = ("--data", home / "data")
    dse("teacher", "train", home / "teacher.toml", *data, "--init", pretrained, "--output", home / "teacher")
    dse("teacher", "label", home / "student.toml", *data, "--signal", home / "teacher", "--output", home / "logits")
    for name, init in (("student", pretrained), ("served", home / "teacher/cross")):
        recipe, run = home / f"{name}.toml", home / f"run-{name}"
        dse("distill", recipe, *data, "--logits", home / "logits", "--init", init, "--output", run)
        dse("export", recipe, run, *data, "--output", home / f"bundle-{name}", "--keep-fp32")
    teacher = ("teacher", "export", home / "teacher.toml", home / "teacher", *data)
    dse(*teacher, "--output", home / "bundle-signal", "--keep-fp32")
    sentences = (home / "data/dev.tsv").read_text().splitlines()[1:]
    (home / "sentences.txt").write_text("\n".join(line.split("\t")[0] for line in sentences))
    dse("index", "build", home / "sentences.txt", "--bundle", home / "bundle-student", "--output", home / "index")
    return home


@pytest.fixture(scope="module")
def client(home: Path) -> TestClient:
    settings = Settings(bundle=home / "bundle-student", teacher=home / "bundle-served", index=home / "index")
    return TestClient(create_app(settings))


def test_the_service_finds_a_sentence_by_itself(home: Path, client: TestClient) -> None:
    text = (home / "sentences.txt").read_text().splitlines()[7]
    best = client.post("/v1/search", json={"query": text, "k": 1, "rerank": "none"}).json()["hits"][0]
    assert best["text"] == text
    assert best["similarity"] == pytest.approx(1, abs=1e-3)
    assert client.get("/v1/index").json()["documents"] == 60


def test_student_and_teacher_answer_side_by_side(home: Path, client: TestClient) -> None:
    text = (home / "sentences.txt").read_text().splitlines()[7]
    answer = client.post("/v1/compare", json={"query": text, "k": 5}).json()
    assert (answer["student"], answer["teacher"]) == ("tiny-distilled", "tiny-served")
    assert len(answer["results"]) == 5


def test_the_bundle_passed_its_gates_and_says_so(home: Path) -> None:
    manifest = BundleManifest.read(home / "bundle-student")
    assert manifest.quality["parity"] < 1e-4
    assert manifest.quality["invariance"]["int8"] > 0.9999
    assert set(manifest.quality["test"]) == set(GRAPH_FILES)
    assert (manifest.max_tokens, manifest.dims) == (48, 32)
    card = (home / "bundle-student/README.md").read_text()
    assert "made in a test" in card
    assert f"| test | int8 | score | {manifest.quality['test']['int8']['score']['pearson']:.2f} |" in card


def test_a_bundle_says_nothing_of_the_machine_it_was_made_on(home: Path) -> None:
    project = str(Path(__file__).parents[1]).encode()
    for folder in ("bundle-student", "bundle-served", "bundle-signal"):
        for path in (home / folder).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert project not in content, path
                assert str(home).encode() not in content, path
                assert b"site-packages" not in content, path


@pytest.mark.parametrize("graph", ["int8", "fp32"])
def test_companions_do_not_leak_into_either_graph(home: Path, graph) -> None:
    encoder = load_student(home / "bundle-student", threads=1, graph=graph).encoder
    texts = (home / "sentences.txt").read_text().splitlines()[:20]
    texts.append("window " * 30)
    together = encoder.with_token_budget(10**6).encode(texts)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    assert (together * alone).sum(axis=1).min() > 0.99999


def test_a_served_logit_is_the_trained_networks(home: Path) -> None:
    from model.training.answers import torch_logits
    from model.training.networks import load_network
    from model.training.pairs import Pair

    network, _ = load_network(home / "run-served")
    teacher = load_teacher(home / "bundle-served", threads=1, graph="fp32").scorer
    pairs = [("apple river", "river stone"), ("cloud", "green table music")]
    expected = torch_logits(network, [Pair("", left, right, 0) for left, right in pairs])
    np.testing.assert_allclose(teacher.score(pairs).logits, expected, atol=1e-4)


def test_the_student_learned_something_and_evaluate_says_how_much(home: Path) -> None:
    bundle = home / "bundle-student"
    models = ("--bundle", bundle, "--signal", home / "teacher", "--folder", home / "bert")
    found = json.loads(dse("evaluate", home / "data/test.tsv", *models, "--json"))
    by = {(row["model"], row["by"]): row["figures"]["spearman"]["value"] for row in found["rows"]}
    kept = BundleManifest.read(bundle).quality["test"]["int8"]
    assert by["tiny-distilled", "score"] == pytest.approx(kept["score"]["spearman"], abs=0.3)
    assert by["tiny-distilled", "score"] > 20
    assert {by for model, by in by if model == "tiny"} == {"cross", "bi", "signal"}
    assert ("bert", "similarity") in by


def test_finished_steps_are_not_done_again(home: Path) -> None:
    weights = home / "run-student/model.safetensors"
    before = weights.stat().st_mtime_ns
    recipe, data = home / "student.toml", ("--data", home / "data")
    dse(
        "distill", recipe, *data, "--logits", home / "logits", "--init", home / "bert", "--output", home / "run-student"
    )
    assert weights.stat().st_mtime_ns == before


def test_a_run_of_another_recipe_is_not_taken_up(home: Path) -> None:
    from scripts.console import REFUSALS

    other = home / "other.toml"
    other.write_text((home / "student.toml").read_text().replace('"distillation" = 0.5', '"distillation" = 0.25'))
    options = ("--data", home / "data", "--logits", home / "logits", "--init", home / "bert")
    with pytest.raises(REFUSALS, match="holds another run"):
        dse("distill", other, *options, "--output", home / "run-student")


def test_a_bundle_is_not_made_of_a_run_of_another_recipe(home: Path) -> None:
    from scripts.console import REFUSALS

    other = home / "other_head.toml"
    other.write_text((home / "student.toml").read_text().replace('"kind" = "mlp"', '"kind" = "cosine"'))
    with pytest.raises(REFUSALS, match="was trained by another recipe"):
        dse("export", other, home / "run-student", "--data", home / "data", "--output", home / "no")
    assert not list(home.glob("no*"))


def test_a_gate_that_fails_publishes_nothing(home: Path) -> None:
    import model.training.gates as gates
    from scripts.console import REFUSALS

    original, gates.PARITY = gates.PARITY, 0.0
    try:
        with pytest.raises(REFUSALS, match="torch and ONNX differ by"):
            dse("export", home / "student.toml", home / "run-student", "--data", home / "data", "--output", home / "no")
    finally:
        gates.PARITY = original
    assert not list(home.glob("no*"))


def test_a_served_signal_answers_what_it_labelled(home: Path) -> None:
    from model.training.data_recipe import PairSet
    from model.training.pairs import read_pairs

    pairs = read_pairs(home / "data", PairSet(**tiny_training.pair_set("train")))
    with (home / "logits").open() as file:
        labelled = {row["pair"]: row["logit"] for row in map(json.loads, file) if "pair" in row}
    known = [pair for pair in pairs if pair.id in labelled]
    assert len(known) > 100
    teacher = load_teacher(home / "bundle-signal", threads=1, graph="fp32").scorer
    served = teacher.score([(pair.left, pair.right) for pair in known]).logits
    np.testing.assert_allclose(served, [labelled[pair.id] for pair in known], atol=1e-3)
    manifest = BundleManifest.read(home / "bundle-signal")
    assert (manifest.kind, manifest.head, manifest.dims) == ("ensemble", "cosine", 32)
    assert "a cross-encoder that reads two sentences together" in (home / "bundle-signal/README.md").read_text()
