"""A student that is a table: where its rows come from, and what its graphs make of them."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig

from model.head import Calibration
from model.tokens import SentenceTokenizer
from model.training.export import export_network
from model.training.graphs import OPSET, to_onnx
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, load_network, make_network, save_network
from model.training.objectives import Example
from model.training.pairs import Pair
from model.training.provenance import write_learned_from
from model.training.quality import Correlation
from model.training.runs import train_network
from model.training.signal import SIGNAL, Signal
from model.training.static import SIF, StaticBody, quantise_table, token_counts
from model.training.trainer import Material, TextTarget
from tests import tiny
from tests.model.training.tiny_training import network, student_recipe, training_data

STATIC = {"body": "static", "head": {"kind": "cosine"}}
TEXTS = ["apple", "a much longer river of words", "x", "stone stone"]


def recipe(**facts) -> NetworkRecipe:
    return NetworkRecipe.model_validate(network("bi-encoder", **STATIC | facts))


def made(pretrained: Path) -> BiEncoder:
    student = make_network(recipe(), pretrained)
    assert isinstance(student, BiEncoder)
    return student.eval()


def rows_of(student: BiEncoder) -> NDArray[np.float32]:
    return student.body.get_parameter("table.weight").detach().numpy()


def unit_means(rows: NDArray, tokenizer: SentenceTokenizer, texts: list[str]) -> NDArray:
    """The oracle: a text is the mean of its tokens' rows, at unit length."""
    ids = tokenizer.tokenize(texts).ids
    means = np.stack([rows[one].mean(0) for one in np.split(ids.values, ids.bounds[1:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def answers(model: onnx.ModelProto, inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["last_hidden_state", "sentence_embedding"], inputs)


def test_a_row_is_what_the_transformer_makes_of_the_token_alone(pretrained: Path) -> None:
    transformer = make_network(recipe(body="transformer"), pretrained).eval()
    assert isinstance(transformer, BiEncoder)
    student = made(pretrained)
    with torch.inference_mode():
        expected = transformer.embed(["a", "m", "z"]).numpy()
    ids = [tiny.VOCABULARY.index(letter) for letter in "amz"]
    np.testing.assert_allclose(rows_of(student)[ids], expected, atol=1e-6)


def test_an_embedding_is_the_unit_mean_of_its_rows(pretrained: Path) -> None:
    student = made(pretrained)
    with torch.inference_mode():
        embeddings = student.embed(TEXTS).numpy()
    np.testing.assert_allclose(embeddings, unit_means(rows_of(student), student.tokenizer, TEXTS), atol=1e-6)


def test_frequent_tokens_weigh_little() -> None:
    body = StaticBody.of_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]))
    body.weigh(np.array([9, 1, 0]))
    centred = np.array([[0.0, -1.0], [-1.0, 0.0], [1.0, 1.0]])
    weights = np.array([SIF / (SIF + 0.9), SIF / (SIF + 0.1), 1.0])
    np.testing.assert_allclose(body.table.weight.detach().numpy(), centred * weights[:, None], rtol=1e-5)


def test_tokens_are_counted_with_the_markers_of_their_text(pretrained: Path) -> None:
    counts = token_counts(made(pretrained).tokenizer, ["aa", "b"], len(tiny.VOCABULARY))
    found = {tiny.VOCABULARY[token]: int(counts[token]) for token in np.flatnonzero(counts)}
    assert found == {"[CLS]": 2, "[SEP]": 2, "a": 1, "##a": 1, "b": 1}


def test_it_is_the_same_after_saving(tmp_path: Path, pretrained: Path) -> None:
    student = made(pretrained)
    save_network(student, recipe(), pretrained, tmp_path / "saved")
    loaded, read = load_network(tmp_path / "saved")
    assert read == recipe()
    assert isinstance(loaded, BiEncoder)
    np.testing.assert_array_equal(rows_of(loaded), rows_of(student))


def test_training_weighs_the_rows_by_the_texts_it_learns_from_and_moves_them(tmp_path: Path, pretrained: Path) -> None:
    what = recipe(
        stages=[
            {"name": "one", "sets": ["train"], "texts": ["news"], "regression": 1.0, "text_batch": 4}
            | {"epochs": 20, "batch": 4, "learning_rate": 1e-2}
        ]
    )
    aims = np.eye(32)[: len(TEXTS)]
    pairs = [Example(Pair("1", "apple", "stone", 0.1), 0.1, 0.0), Example(Pair("2", "apple", "apple", 1.0), 1.0, 2.0)]
    material = Material(pairs, [TextTarget(text, aim) for text, aim in zip(TEXTS, aims, strict=True)])
    start = made(pretrained)
    assert isinstance(start.body, StaticBody)
    start.body.weigh(token_counts(start.tokenizer, [*TEXTS[1:], "apple", "stone"], len(tiny.VOCABULARY)))
    trained = train_network(what, pretrained, [material], tmp_path / "run", lambda *_: None)
    assert isinstance(trained, BiEncoder)
    never = tiny.VOCABULARY.index("##q")
    np.testing.assert_allclose(rows_of(trained)[never], rows_of(start)[never], rtol=1e-2)  # decay alone
    with torch.inference_mode():
        before, after = ((student.embed(TEXTS).numpy() * aims).sum(1).mean() for student in (start, trained))
    assert after > before + 0.3


def test_the_int8_rows_are_within_half_a_step(pretrained: Path) -> None:
    student = made(pretrained)
    assert isinstance(student.body, StaticBody)
    rows = rows_of(student)
    ids = np.arange(len(rows))[None]
    hidden, _ = answers(quantise_table(student.body, OPSET), {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert np.abs(hidden[0] - rows).max() <= np.abs(rows).max() / 127 / 2 + 1e-7


def test_both_graphs_answer_unit_means_and_padding_does_not_show(pretrained: Path) -> None:
    student = made(pretrained)
    assert isinstance(student.body, StaticBody)
    for model, tolerance in ((to_onnx(student, 48), 1e-5), (quantise_table(student.body, OPSET), 1e-2)):
        tokens = student.tokenizer.tokenize(TEXTS)
        padded = student.tokenizer.padded(tokens)
        hidden, together = answers(model, padded)
        assert hidden.shape == (*padded["input_ids"].shape, student.dims)
        np.testing.assert_allclose(
            together, unit_means(rows_of(student), student.tokenizer, TEXTS), atol=tolerance, err_msg=str(tolerance)
        )
    padded["input_ids"][padded["attention_mask"] == 0] = 9  # whatever the padding is
    _, nines = answers(model, padded)
    alone = np.concatenate(
        [answers(model, student.tokenizer.padded(tokens, np.array([row])))[1] for row in range(len(tokens))]
    )
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, nines)


def test_a_bundle_is_made_of_a_table(tmp_path: Path, pretrained: Path, pair_files: Path) -> None:
    what = student_recipe(**STATIC)
    run = tmp_path / "run"
    save_network(made(pretrained), what.network, pretrained, run)
    signal = Signal("none", (), Calibration(1.0, 0.0), Correlation(0, 0), max_tokens=48)
    (run / SIGNAL).write_text(json.dumps(signal.as_json()))
    write_learned_from(run, ["`plain.txt`: made in a test"])
    manifest = export_network(what, run, training_data(pair_files), tmp_path / "bundle", False, lambda _: None)
    assert manifest.dims == 32
    assert manifest.quality["parity"] < 1e-5
    config = AutoConfig.from_pretrained(tmp_path / "bundle")  # a kind of model that transformers knows
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("bert", 32, 0)


def test_what_a_table_cannot_do_is_refused() -> None:
    for facts in ({"keep_initial": 0.3}, {"frozen": ["embeddings"]}):
        with pytest.raises(ValueError, match="a static body"):
            recipe(**facts)
    with pytest.raises(ValueError, match="a static body is a bi-encoder's"):
        NetworkRecipe.model_validate(network("cross-encoder", body="static"))
    stage = {"texts": ["news"], "imitation": {"weights": {"relations": 1.0}}}
    with pytest.raises(ValueError, match="no layers that could imitate"):
        recipe(stage=stage)
