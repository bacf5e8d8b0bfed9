"""int8 that does not depend on who shares the batch: static quantisation, in the form onnxruntime runs fastest."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model.training.fusion import drop_unused, fuse_attention

Arrays = Mapping[str, NDArray[np.int64]]

IN_FLOAT = "in_float:"
"""What the name of a node starts with that is not to be quantised."""


def quantise(model: ModelProto, calibration: Sequence[Arrays], heads: int) -> ModelProto:
    """A static int8 version of a transformer graph.

    SmoothQuant (Xiao et al., arXiv 2211.10438) as NNCF implements it on ONNX files; then activations as uint8 rather
    than int8, and embedding rows dequantised after the look-up rather than the whole table before it, which changes no
    number but lets onnxruntime fuse its integer kernels; and attention as one node. Activation scales are constants of
    the graph, so a row's answer does not depend on the other rows of its batch (onnxruntime's dynamic int8 fails that).

    Args:
        model: an fp32 graph; nodes whose name starts with :data:`IN_FLOAT` stay as they are.
        calibration: graph inputs, each as :class:`model.tokens.SentenceTokenizer` pads them.
        heads: of each attention.
    """
    os.environ.setdefault("NNCF_CI", "1")  # NNCF reports its use to its makers unless told that it runs in CI
    import nncf

    quantised = nncf.quantize(
        model,
        nncf.Dataset(list(calibration)),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=[n.name for n in model.graph.node if n.name.startswith(IN_FLOAT)]),
    )
    _activations_as_uint8(quantised)
    _dequantise_rows_after_lookup(quantised)
    fuse_attention(quantised, heads)
    drop_unused(quantised)
    onnx.checker.check_model(quantised)
    return quantised


def _activations_as_uint8(model: ModelProto) -> None:
    """Move int8 activations to uint8: q + 128 with zero point z + 128 stands for the same number."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    quantised_here = {node.output[0] for node in quantisers}
    dequantisers = [
        node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in quantised_here
    ]
    for name in {node.input[2] for node in quantisers + dequantisers}:
        tensor = tensors[name]
        if tensor.data_type == TensorProto.INT8:
            shifted = (numpy_helper.to_array(tensor).astype(np.int16) + 128).astype(np.uint8)
            tensor.CopyFrom(numpy_helper.from_array(shifted, name))
    retyped = [info for info in model.graph.value_info if info.name in quantised_here]
    for info in retyped:
        model.graph.value_info.remove(info)


def _dequantise_rows_after_lookup(model: ModelProto) -> None:
    """Turn Gather(Dequantize(table), ids) into Dequantize(Gather(table, ids)): int8 rows travel, not the fp32 table."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    for position, gather in reversed(list(enumerate(graph.node))):
        dequantise = makers.get(gather.input[0]) if gather.op_type == "Gather" else None
        if dequantise is None or dequantise.op_type != "DequantizeLinear" or _axis(gather, default=0) != 0:
            continue
        table, scale, zero = dequantise.input[0], dequantise.input[1], dequantise.input[2]
        if table not in tensors:
            continue
        rows, looked_up = f"{gather.output[0]}_int8", gather.output[0]
        nodes = [helper.make_node("Gather", [table, gather.input[1]], [rows], axis=0)]
        nodes += _dequantised(tensors, rows, gather.input[1], scale, zero, _axis(dequantise, default=1), looked_up)
        graph.node.remove(gather)
        for offset, node in enumerate(nodes):
            graph.node.insert(position + offset, node)


def _axis(node: NodeProto, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), default)


def _dequantised(
    tensors: Mapping[str, TensorProto],
    rows: str,
    ids: str,
    scale: str,
    zero: str,
    axis: int,
    output: str,
) -> list[NodeProto]:
    """Nodes that dequantise looked-up rows, whether the table has one scale, one a row, or one a column."""
    if numpy_helper.to_array(tensors[scale]).ndim == 0:
        return [helper.make_node("DequantizeLinear", [rows, scale, zero], [output])]
    if axis != 0:  # a scale a column: columns are the last axis of what was looked up
        return [helper.make_node("DequantizeLinear", [rows, scale, zero], [output], axis=-1)]
    if numpy_helper.to_array(tensors[zero]).any():
        raise ValueError(f"{zero}: a table quantised by row must be symmetric (zero points of 0)")
    scales, column, wide = f"{output}_scales", f"{output}_column", f"{output}_wide"
    last = f"{output}_last_axis"
    tensor = numpy_helper.from_array(np.array([-1], np.int64), last)
    constant = helper.make_node("Constant", [], [last], value=tensor)
    return [
        constant,
        helper.make_node("Gather", [scale, ids], [scales], axis=0),
        helper.make_node("Unsqueeze", [scales, last], [column]),
        helper.make_node("Cast", [rows], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, column], [output]),
    ]
