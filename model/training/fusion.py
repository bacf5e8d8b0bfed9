"""Attention as one node: what onnxruntime runs in fourteen, over arrays that it turns around five times, in one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

DOMAIN = "com.microsoft"
"""Of onnxruntime's own operations, which every build of it has."""
MASK = "attention_mask"
MASK_AS_READ = "attention_mask_int32"
_TURNED = {"Transpose", "Reshape", "QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class _Projection:
    """Queries, keys or values of all heads: (batch, tokens, dim), before its bias."""

    name: str
    bias: NDArray[np.float32] | None  # (dim,)
    scale: float  # that it is multiplied by on its way


def fuse_attention(model: ModelProto, heads: int) -> int:
    """Write softmax attention over the tokens that ``attention_mask`` keeps as one node, wherever a graph has it.

    Queries and keys that were quantised on their way to their product are so no longer: they are the int8 matmuls'
    float answers. Attention of any other form, with a bias for positions, say, is left as it is.

    Args:
        model: changed in place; what nothing reads any more stays in it.
        heads: how many each attention has.

    Returns:
        How many were written so.
    """
    graph = model.graph
    found = 0
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        look = _Look.at(graph)
        parts = look.attention(softmax)
        if parts is None:
            continue
        query, key, value, mixed = parts
        biases = [part.bias for part in (query, key, value)]
        bias = ""
        if all(part is not None for part in biases):
            bias = f"{mixed.output[0]}_bias"
            graph.initializer.append(numpy_helper.from_array(np.concatenate([part for part in biases]), bias))
        fused = helper.make_node(
            "MultiHeadAttention",
            [query.name, key.name, value.name, bias, MASK_AS_READ],
            list(mixed.output),
            name=f"{mixed.name}_attention",
            domain=DOMAIN,
            num_heads=heads,
            scale=query.scale * key.scale,
        )
        place = list(graph.node).index(mixed)
        graph.node.remove(mixed)
        graph.node.insert(place, fused)
        found += 1
    if found:
        graph.node.insert(0, helper.make_node("Cast", [MASK], [MASK_AS_READ], to=TensorProto.INT32))
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return found


@dataclass(frozen=True)
class _Look:
    """A graph's tensors by name, and who makes and who reads each of its values."""

    tensors: Mapping[str, TensorProto]
    makers: Mapping[str, NodeProto]
    readers: Mapping[str, list[NodeProto]]

    @classmethod
    def at(cls, graph: GraphProto) -> "_Look":
        readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return cls(
            {tensor.name: tensor for tensor in graph.initializer},
            {output: node for node in graph.node for output in node.output},
            readers,
        )

    def attention(self, softmax: NodeProto) -> tuple[_Projection, _Projection, _Projection, NodeProto] | None:
        """Queries, keys, values, and the node that has the heads side by side again; None if it is of another form."""
        masked = self._made(softmax.input[0], "Add")
        weighed = self._read(softmax.output[0], "MatMul")
        turned = weighed and self._read(weighed.output[0], "Transpose")
        mixed = turned and self._read(turned.output[0], "Reshape")
        if masked is None or weighed is None or mixed is None:
            return None
        scores = next((name for name in masked.input if not self._is_mask(name)), None)
        if scores is None or not any(self._is_mask(name) for name in masked.input):
            return None
        scale = 1.0
        while (scaled := self._scaled(scores)) is not None:
            scores, scale = scaled[0], scale * scaled[1]
        product = self._made(scores, "MatMul")
        if product is None:
            return None
        query, key = (self._projection(name) for name in product.input)
        value = self._projection(weighed.input[1])
        if query is None or key is None or value is None or value.scale != 1.0:
            return None
        return _Projection(query.name, query.bias, query.scale * scale), key, value, mixed

    def _made(self, name: str, kind: str) -> NodeProto | None:
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def _read(self, name: str, kind: str) -> NodeProto | None:
        """The one reader of a value, if it is of a kind."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def _is_mask(self, name: str) -> bool:
        """Is it 0 for what is kept, and the lowest number for what is not?"""
        chosen = self._made(name, "Where")
        if chosen is None:
            return False
        kept, masked = (self._constant(part) for part in chosen.input[1:])
        return kept is not None and masked is not None and not kept.any() and bool((masked < -1e30).all())

    def _constant(self, name: str) -> NDArray[np.float32] | None:
        return numpy_helper.to_array(self.tensors[name]) if name in self.tensors else None

    def _scaled(self, name: str) -> tuple[str, float] | None:
        """What a value is one number's multiple of, and that number; through quantisation and back."""
        node = self.makers.get(name)
        if node is None:
            return None
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return node.input[0], 1.0
        if node.op_type == "Mul":
            for factor, other in (node.input, reversed(node.input)):
                constant = self._constant(factor)
                if constant is not None and constant.size == 1:
                    return other, float(constant.reshape(-1)[0])
        return None

    def _projection(self, name: str) -> _Projection | None:
        """The matmul that a value of all heads came from; None where something else was done to it."""
        scale = 1.0
        while name not in self.tensors:
            node = self.makers.get(name)
            if node is None:
                return None
            if node.op_type in _TURNED:
                name = node.input[0]
            elif (scaled := self._scaled(name)) is not None:
                name, scale = scaled[0], scale * scaled[1]
            elif node.op_type == "Add":
                for bias, other in (node.input, reversed(node.input)):
                    constant = self._constant(bias)
                    if constant is not None and constant.ndim == 1 and self._made(other, "MatMul"):
                        return _Projection(other, constant, scale)
                return None
            else:
                return _Projection(name, None, scale) if node.op_type == "MatMul" else None
        return None
