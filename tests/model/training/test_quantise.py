"""The rewrites of a quantised graph change its form and no number."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.training.fusion import drop_unused
from model.training.quantise import _activations_as_uint8, _dequantise_rows_after_lookup


def made(nodes, inputs, tensors, rank: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [f"d{axis}" for axis in range(rank)])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["out"], inputs)[0]


def test_activations_become_uint8_and_stay_the_same_numbers() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_again"], ["out"]),
    ]
    tensors = {
        "scale": np.array(0.03, np.float32), "zero": np.array(-7, np.int8), "zero_again": np.array(-7, np.int8)
    }  # fmt: skip
    model = made(nodes, {"x": (TensorProto.FLOAT, ["n"])}, tensors, rank=1)
    x = np.linspace(-9, 9, 1001, dtype=np.float32)
    before = run(model, x=x)
    _activations_as_uint8(model)
    zeros = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name.startswith("zero")]
    assert [(zero.dtype, zero.item()) for zero in zeros] == [(np.uint8, 121)] * 2
    np.testing.assert_array_equal(run(model, x=x), before)


@pytest.mark.parametrize("kind", ["one scale", "a scale a row", "a scale a column"])
def test_rows_are_dequantised_after_the_look_up(kind: str) -> None:
    random = np.random.default_rng(0)
    table = random.integers(-128, 128, (50, 6)).astype(np.int8)
    shape, axis = {"one scale": ((), 1), "a scale a row": ((50,), 0), "a scale a column": ((6,), 1)}[kind]
    tensors = {
        "table": table,
        "scale": random.uniform(0.01, 0.1, shape).astype(np.float32),
        "zero": np.zeros(shape, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["table", "scale", "zero"], ["wide"], axis=axis),
        helper.make_node("Gather", ["wide", "ids"], ["out"], axis=0),
    ]
    model = made(nodes, {"ids": (TensorProto.INT64, ["b", "t"])}, tensors, rank=3)
    ids = random.integers(0, 50, (3, 7))
    before = run(model, ids=ids)
    _dequantise_rows_after_lookup(model)
    drop_unused(model)
    onnx.checker.check_model(model)
    assert model.graph.node[0].op_type != "DequantizeLinear"
    assert "wide" not in {name for node in model.graph.node for name in node.output}
    np.testing.assert_allclose(run(model, ids=ids), before, rtol=1e-6)


def test_a_look_up_along_another_axis_is_left_alone() -> None:
    tensors = {
        "table": np.arange(12, dtype=np.int8).reshape(3, 4),
        "scale": np.array(0.5, np.float32),
        "zero": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["table", "scale", "zero"], ["wide"]),
        helper.make_node("Gather", ["wide", "ids"], ["out"], axis=1),
    ]
    model = made(nodes, {"ids": (TensorProto.INT64, ["t"])}, tensors, rank=2)
    before = run(model, ids=np.array([3, 0]))
    _dequantise_rows_after_lookup(model)
    np.testing.assert_array_equal(run(model, ids=np.array([3, 0])), before)
