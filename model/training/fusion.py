"""Attention as one node: what onnxruntime runs in fourteen, over arrays that it turns around five times, in one."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

DOMAIN = "com.microsoft"
"""Of onnxruntime's own operations, which every build of it has."""
MASK = "attention_mask"
MASK_AS_READ = "attention_mask_int32"
LOWEST = -1e30
"""What is masked is at or below it before softmax."""


@dataclass(frozen=True)
class _Projection:
    """Queries, keys or values of all heads: (batch, tokens, dim), before its bias."""

    name: str
    bias: NDArray[np.float32] | None  # (dim,)
    scale: float  # that it is multiplied by on its way


def fuse_attention(model: ModelProto, heads: int) -> int:
    """Write softmax attention over the tokens that ``attention_mask`` keeps as one node, wherever a graph has it.

    Queries and keys that were quantised on their way to their product are so no longer: they are the int8 matmuls'
    float answers. Attention of any other form (with a bias for positions, or of each token to those before it alone)
    is left as it is.

    Args:
        model: changed in place; what nothing reads any more is removed.
        heads: how many each attention has.

    Returns:
        How many were written so.
    """
    look = _Look(model)
    found = [(softmax, parts) for softmax in look.of_kind("Softmax") if (parts := look.attention(softmax)) is not None]
    for softmax, (query, key, value, mixed) in found:
        bias = ""
        if any(part.bias is not None for part in (query, key, value)):
            bias = f"{softmax.output[0]}_bias"
            model.graph.initializer.append(numpy_helper.from_array(_side_by_side(query, key, value), bias))
        mixed.CopyFrom(
            helper.make_node(
                "MultiHeadAttention",
                [query.name, key.name, value.name, bias, MASK_AS_READ],
                list(mixed.output),
                name=mixed.name,
                domain=DOMAIN,
                num_heads=heads,
                scale=query.scale * key.scale,
            )
        )
    if found:
        model.graph.node.insert(0, helper.make_node("Cast", [MASK], [MASK_AS_READ], to=TensorProto.INT32))
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        drop_unused(model)
    return len(found)


def drop_unused(model: ModelProto) -> None:
    """Remove nodes and tensors that nothing reads any more."""
    graph = model.graph
    kept = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if kept.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            kept.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in kept]:
        graph.initializer.remove(tensor)


def _side_by_side(*parts: _Projection) -> NDArray[np.float32]:
    """(3 dim,) biases of queries, keys and values; one that has none gets zeros."""
    width = next(len(part.bias) for part in parts if part.bias is not None)
    return np.concatenate([np.zeros(width, np.float32) if part.bias is None else part.bias for part in parts])


class _Look:
    """A graph as it was: its tensors by name, and who made and who read each of its values."""

    def __init__(self, model: ModelProto) -> None:
        graph: GraphProto = model.graph
        self._graph, self._opsets = graph, model.opset_import
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._masks: dict[str, bool] = {}

    def of_kind(self, kind: str) -> list[NodeProto]:
        """The nodes of one operation."""
        return [node for node in self._graph.node if node.op_type == kind]

    def attention(self, softmax: NodeProto) -> tuple[_Projection, _Projection, _Projection, NodeProto] | None:
        """Queries, keys, values, and the node that has the heads side by side again; None if it is of another form."""
        masked = self._made(softmax.input[0], "Add")
        weighed = self._read(softmax.output[0], "MatMul")
        turned = weighed and self._read(weighed.output[0], "Transpose")
        mixed = turned and self._read(turned.output[0], "Reshape")
        if masked is None or weighed is None or mixed is None:
            return None
        masks = [name for name in masked.input if self._is_mask(name)]
        if len(masks) != 1:
            return None
        scores = next(name for name in masked.input if name not in masks)
        scores, scale = self._unscaled(scores)
        product = self._made(scores, "MatMul")
        if product is None:
            return None
        query, key, value = map(self._projection, (*product.input, weighed.input[1]))
        if query is None or key is None or value is None or value.scale != 1.0:
            return None
        return _Projection(query.name, query.bias, query.scale * scale), key, value, mixed

    def _made(self, name: str, kind: str) -> NodeProto | None:
        node = self._makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def _read(self, name: str, kind: str) -> NodeProto | None:
        """The one reader of a value, if it is of a kind."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def _is_mask(self, name: str) -> bool:
        """Is it 0 for tokens that the mask keeps, and the lowest number for the others, whoever looks at them?

        It is computed for texts of which some are padded, and looked at: it has many forms, and means one thing.
        """
        if self._made(name, "Where") is None:  # scores are none; nor is a mask of other making looked at
            return False
        if name not in self._masks:
            self._masks[name] = self._masks_padding(name)
        return self._masks[name]

    def _masks_padding(self, name: str) -> bool:
        texts = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
        part = self._as_far_as(name)
        session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
        mask = session.run(None, {declared.name: texts for declared in part.graph.input})[0]
        kept = np.broadcast_to(texts[:, None, None, :] == 1, np.broadcast_shapes(mask.shape, (2, 1, 1, 4)))
        added = np.broadcast_to(mask, kept.shape)
        return bool((added[kept] == 0).all() and (added[~kept] <= LOWEST).all())

    def _as_far_as(self, name: str) -> ModelProto:
        """The part of the graph that computes a value."""
        wanted, nodes = {name}, list[NodeProto]()
        for node in reversed(self._graph.node):
            if not wanted.isdisjoint(node.output):
                nodes.insert(0, node)
                wanted.update(node.input)
        inputs = [declared for declared in self._graph.input if declared.name in wanted]
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in wanted]
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "part", inputs, [value], tensors)
        return helper.make_model(graph, opset_imports=self._opsets, ir_version=10)

    def _constant(self, name: str) -> NDArray[np.float32] | None:
        return numpy_helper.to_array(self._tensors[name]) if name in self._tensors else None

    def _unscaled(self, name: str) -> tuple[str, float]:
        """What a value is a multiple of, and of how much; through quantisation and back."""
        scale = 1.0
        while (node := self._makers.get(name)) is not None:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                name = node.input[0]
            elif node.op_type == "Mul" and (one := self._one_number(node)) is not None:
                name, scale = one[0], scale * one[1]
            else:
                break
        return name, scale

    def _one_number(self, product: NodeProto) -> tuple[str, float] | None:
        for factor, other in (product.input, reversed(product.input)):
            constant = self._constant(factor)
            if constant is not None and constant.size == 1:
                return other, float(constant.reshape(-1)[0])
        return None

    def _projection(self, name: str) -> _Projection | None:
        """The matmul that a value of all heads came from; None where something else was done to it."""
        scale = 1.0
        while True:
            name, more = self._unscaled(name)
            scale *= more
            node = self._makers.get(name)
            if node is None or node.op_type not in ("Transpose", "Reshape"):
                break
            name = node.input[0]
        if self._made(name, "MatMul"):
            return _Projection(name, None, scale)
        for bias, other in () if node is None or node.op_type != "Add" else (node.input, reversed(node.input)):
            constant = self._constant(bias)
            if constant is not None and constant.ndim == 1 and self._made(other, "MatMul"):
                return _Projection(other, constant, scale)
        return None
