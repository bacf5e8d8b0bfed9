"""Attention as one node answers as torch does; what is another kind of attention is left alone."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from model.sessions import GraphRunner
from model.tokens import SentenceTokenizer
from model.training.fusion import fuse_attention
from model.training.graphs import to_onnx
from model.training.networks import BiEncoder
from tests import tiny
from tests.model.training.tiny_training import bert

LAYERS, HEADS = 2, 4
TEXTS = st.lists(st.text("abc d", min_size=1, max_size=20), min_size=1, max_size=5)


def encoder(folder: Path, body: Any) -> BiEncoder:
    """A network whose biases are numbers: zeros, with which a body starts, are not exported."""
    tiny.tokenizer().save(str(folder / "tokenizer.json"))
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in body.named_parameters():
            if name.endswith(("query.bias", "key.bias", "value.bias")):
                parameter.normal_()
    return BiEncoder(body, None, SentenceTokenizer.load(folder / "tokenizer.json", 32)).eval()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> BiEncoder:
    return encoder(tmp_path_factory.mktemp("tokenizer"), bert(LAYERS, heads=HEADS, seed=3))


@pytest.fixture(scope="module")
def plain(network: BiEncoder) -> onnx.ModelProto:
    return to_onnx(network, 32)


def fused(plain: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    found = fuse_attention(model, HEADS)
    onnx.checker.check_model(model)
    return model, found


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.fixture(scope="module")
def runner(plain: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> GraphRunner:
    model, found = fused(plain)
    assert found == LAYERS
    assert kinds(model).count("MultiHeadAttention") == LAYERS
    assert not {"Softmax", "Where"} & {*kinds(model)}  # nor is a mask made for it
    path = tmp_path_factory.mktemp("fused") / "graph.onnx"
    onnx.save(model, path)
    return GraphRunner(path, 1)


@given(texts=TEXTS)
@settings(deadline=None, max_examples=40)
def test_one_node_answers_as_torch_does_whatever_is_padded(
    network: BiEncoder, runner: GraphRunner, texts: list[str]
) -> None:
    tokens = network.tokenizer.tokenize(texts)
    answers = runner.run("sentence_embedding", tokens.lengths, partial(network.tokenizer.padded, tokens), 10_000)
    with torch.inference_mode():
        np.testing.assert_allclose(answers, network.embed(texts).numpy(), atol=1e-5)


def test_what_was_quantised_on_its_way_to_the_product_is_so_no_longer(network: BiEncoder, tmp_path: Path) -> None:
    """As NNCF leaves a graph: queries and keys go through int8, in steps that are too coarse to be right."""
    model = to_onnx(network, 32)
    graph = model.graph
    product = next(node for node in graph.node if node.op_type == "Softmax")
    makers = {output: node for node in graph.node for output in node.output}
    while product.op_type != "MatMul":
        product = makers[product.input[0]]
    graph.initializer.append(numpy_helper.from_array(np.array(5.0, np.float32), "coarse"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "none"))
    place = list(graph.node).index(product)
    for side, name in enumerate(list(product.input)):
        graph.node.insert(place, helper.make_node("DequantizeLinear", [f"q{side}", "coarse", "none"], [f"dq{side}"]))
        graph.node.insert(place, helper.make_node("QuantizeLinear", [name, "coarse", "none"], [f"q{side}"]))
        product.input[side] = f"dq{side}"
    answers, tokens = [], network.tokenizer.tokenize(["ab", "abc d"])
    whole, found = fused(model)
    assert found == LAYERS
    assert "QuantizeLinear" not in kinds(whole)
    for number, one in enumerate((model, whole)):
        onnx.save(one, tmp_path / f"{number}.onnx")
        runner = GraphRunner(tmp_path / f"{number}.onnx", 1)
        answers.append(runner.run("sentence_embedding", tokens.lengths, partial(network.tokenizer.padded, tokens)))
    with torch.inference_mode():
        wanted = network.embed(["ab", "abc d"]).numpy()
    assert np.abs(answers[0] - wanted).max() > 1e-3
    np.testing.assert_allclose(answers[1], wanted, atol=1e-5)


@pytest.mark.parametrize("without", ["query", "key", "value"])
def test_a_projection_may_have_no_bias_where_others_have(
    plain: onnx.ModelProto, network: BiEncoder, tmp_path: Path, without: str
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    biases = {f"body.encoder.layer.{layer}.attention.self.{without}.bias" for layer in range(LAYERS)}
    adds = [node for node in model.graph.node if not biases.isdisjoint(node.input)]
    assert len(adds) == LAYERS
    for add in adds:
        (rest,) = set(add.input) - biases
        for node in model.graph.node:
            for at, name in enumerate(node.input):
                if name == add.output[0]:
                    node.input[at] = rest
        model.graph.node.remove(add)
    whole, found = fused(model)
    assert found == LAYERS
    answers, tokens = [], network.tokenizer.tokenize(["ab", "abc d"])
    for number, one in enumerate((model, whole)):
        onnx.save(one, tmp_path / f"{number}.onnx")
        runner = GraphRunner(tmp_path / f"{number}.onnx", 1)
        answers.append(runner.run("sentence_embedding", tokens.lengths, partial(network.tokenizer.padded, tokens)))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_attention_to_what_came_before_alone_is_left_alone(tmp_path: Path) -> None:
    plain = to_onnx(encoder(tmp_path, bert(LAYERS, heads=HEADS, is_decoder=True)), 32)
    before = plain.SerializeToString()
    assert fuse_attention(plain, HEADS) == 0
    assert plain.SerializeToString() == before


def _mask_by_positions(graph: onnx.GraphProto) -> None:
    """Tokens are weighed by where they stand, too: not only by whether they are there."""
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        graph.initializer.append(numpy_helper.from_array(np.array([[[[0.5]]]], np.float32), f"{softmax.name}_bias"))
        place, name = list(graph.node).index(softmax), softmax.input[0]
        graph.node.insert(place, helper.make_node("Add", [name, f"{softmax.name}_bias"], [f"{name}_biased"]))
        softmax.input[0] = f"{name}_biased"


def _other_mask(graph: onnx.GraphProto) -> None:
    """What is masked is only weighed less."""
    for node in [node for node in graph.node if node.op_type == "Where"]:
        graph.initializer.append(numpy_helper.from_array(np.array(-1.0, np.float32), f"{node.name}_less"))
        node.input[2] = f"{node.name}_less"


def _read_twice(graph: onnx.GraphProto) -> None:
    """The weights themselves are an output."""
    softmax = [node for node in graph.node if node.op_type == "Softmax"]
    for number, node in enumerate(softmax):
        graph.node.append(helper.make_node("Identity", [node.output[0]], [f"weights{number}"]))


def _keys_changed(graph: onnx.GraphProto) -> None:
    """Keys are not what a matmul made of the states."""
    makers = {output: node for node in graph.node for output in node.output}
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        product = softmax
        while product.op_type != "MatMul":
            product = makers[product.input[0]]
        place, name = list(graph.node).index(product), product.input[1]
        graph.node.insert(place, helper.make_node("Tanh", [name], [f"{name}_bent"]))
        product.input[1] = f"{name}_bent"


@pytest.mark.parametrize("change", [_mask_by_positions, _other_mask, _read_twice, _keys_changed])
def test_attention_of_another_form_is_left_alone(plain: onnx.ModelProto, change: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    change(model.graph)
    before = model.SerializeToString()
    assert fuse_attention(model, HEADS) == 0
    assert model.SerializeToString() == before
