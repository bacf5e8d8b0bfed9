"""Each gate lets the good pass and stops the bad, by name."""

from pathlib import Path

import onnx
import pytest
from onnx import helper

from model.bundle import TOKENIZER
from model.cross_encoder import OnnxCrossEncoder
from model.encoder import OnnxEncoder
from model.head import CosineHead
from model.sessions import GraphRunner
from model.tokens import PairTokenizer, SentenceTokenizer
from model.training.gates import GateError, check_int8_loss, check_invariance
from model.training.pairs import Pair
from model.training.scoring import OnnxScorer
from tests import tiny

PAIRS = [Pair(str(n), "abcdefgh"[: n % 8 + 1], "stuvwxyz"[n % 8 :], 0.0) for n in range(20)]


def graph(folder: Path, model: onnx.ModelProto) -> GraphRunner:
    tiny.tokenizer().save(str(folder / TOKENIZER))
    onnx.save(model, folder / "graph.onnx")
    return GraphRunner(folder / "graph.onnx", 1)


def scorer(folder: Path, model: onnx.ModelProto) -> OnnxScorer:
    opened = graph(folder, model)
    return OnnxScorer(OnnxEncoder(opened, SentenceTokenizer.load(folder / TOKENIZER, 64), tiny.DIMS), CosineHead())


def leaking(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """The same graph, but every answer is moved by the largest of its batch, as dynamic scales do."""
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == output:
                node.output[position] = "clean"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["clean"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["clean", "largest"], ["moved"]),
            helper.make_node("Add", ["clean", "moved"], ["squared"]),
            helper.make_node("Add", ["squared", "largest"], [output]),
        ]
    )
    return model


def test_an_encoder_that_keeps_rows_apart_passes(tmp_path: Path) -> None:
    assert check_invariance(scorer(tmp_path, tiny.encoder_graph(1)), PAIRS) > 0.9999


def test_an_encoder_that_lets_its_batch_show_is_stopped(tmp_path: Path) -> None:
    model = leaking(tiny.encoder_graph(1), "sentence_embedding")
    model.graph.node.extend(
        [
            helper.make_node("ReduceL2", ["sentence_embedding", "one"], ["norm"], keepdims=1),
            helper.make_node("Div", ["sentence_embedding", "norm"], ["unit"]),
        ]
    )
    model.graph.output[1].name = "unit"
    for node in model.graph.node:
        renamed = {"sentence_embedding": "raw", "unit": "sentence_embedding"}
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = renamed.get(name, name)
    model.graph.output[1].name = "sentence_embedding"
    with pytest.raises(GateError, match=r"an embedding has cosine 0\.\d+ to itself in a batch"):
        check_invariance(scorer(tmp_path, model), PAIRS)


def test_a_teacher_that_lets_its_batch_show_is_stopped(tmp_path: Path) -> None:
    def teacher(model: onnx.ModelProto) -> OnnxScorer:
        opened = graph(tmp_path, model)
        return OnnxScorer(OnnxCrossEncoder(opened, PairTokenizer.load(tmp_path / TOKENIZER, 64)), CosineHead())

    assert check_invariance(teacher(tiny.pair_graph(2)), PAIRS) < 1e-5
    with pytest.raises(GateError, match="a logit moves by"):
        check_invariance(teacher(leaking(tiny.pair_graph(2), "logit")), PAIRS)


def test_int8_may_lose_as_much_as_the_recipe_says() -> None:
    dev = {
        "fp32": {"score": {"spearman": 88.0}, "similarity": {"spearman": 87.0}},
        "int8": {"score": {"spearman": 88.1}, "similarity": {"spearman": 86.6}},
    }
    assert check_int8_loss(dev, bound=0.5) == 0.4
    with pytest.raises(GateError, match="int8 loses nan"):
        check_int8_loss(
            dev | {"int8": {"score": {"spearman": 90.0}, "similarity": {"spearman": float("nan")}}}, bound=0.5
        )
    with pytest.raises(GateError, match=r"int8 loses 0\.40 points of Spearman on dev, more than 0\.3"):
        check_int8_loss(dev, bound=0.3)
