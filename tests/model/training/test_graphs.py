"""What is exported is what torch computes, in a form that onnxruntime runs fast."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model.sessions import GraphRunner
from model.tokens import SentenceTokenizer
from model.training.graphs import _let_gelu_fuse, to_onnx
from model.training.networks import BiEncoder
from tests import tiny
from tests.model.training.tiny_training import bert

TEXTS = ["a", "abc def", "stuvwxyz ab"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> BiEncoder:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny.tokenizer().save(str(path))
    return BiEncoder(bert(), None, SentenceTokenizer.load(path, 32)).eval()


def test_an_exported_network_answers_as_torch_and_its_gelu_is_one_kernel(network: BiEncoder, tmp_path: Path) -> None:
    import onnxruntime

    onnx.save(to_onnx(network, 32), tmp_path / "graph.onnx")
    tokens = network.tokenizer.tokenize(TEXTS)
    graph = GraphRunner(tmp_path / "graph.onnx", 2)
    embeddings = graph.run("sentence_embedding", tokens.lengths, partial(network.tokenizer.padded, tokens))
    with torch.inference_mode():
        np.testing.assert_allclose(embeddings, network.embed(TEXTS).numpy(), atol=1e-5)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(tmp_path / "graph.onnx", options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    assert kinds["Erf"] == 0
    assert kinds["BiasGelu"] == 2  # one a layer


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("of_x", [True, False])
def test_only_a_gelu_is_put_in_another_order(swapped: bool, of_x: bool) -> None:
    """``x * (0.5 * (1 + erf(x / sqrt 2)))``, its factors in either order; or the same with y * (...), which is none."""

    def mul(left: str, right: str, out: str) -> onnx.NodeProto:
        return onnx.helper.make_node("Mul", [right, left] if swapped else [left, right], [out])

    nodes = [
        onnx.helper.make_node("Div", ["x", "root"], ["scaled"]),
        onnx.helper.make_node("Erf", ["scaled"], ["erf"]),
        onnx.helper.make_node("Add", ["erf", "one"], ["sum"]),
        mul("half", "sum", "inner"),
        mul("x" if of_x else "y", "inner", "out"),
    ]
    values = {"root": 2**0.5, "one": 1.0, "half": 0.5}
    floats = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y", "out")]
    tensors = [onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values.items()]
    graph = onnx.helper.make_graph(nodes, "gelu", floats[:2], floats[2:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    before = model.SerializeToString()
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    inputs = {"x": x, "y": x[::-1].copy()}
    wanted = _run(model, inputs)
    _let_gelu_fuse(model.graph)
    onnx.checker.check_model(model)
    np.testing.assert_allclose(_run(model, inputs), wanted, atol=1e-6)
    assert (model.SerializeToString() != before) == of_x


def _run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, inputs
    )[0]
