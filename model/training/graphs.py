"""What does a trained network compute, as one ONNX graph?"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from model.bundle import GRAPH_FILES
from model.training.attention import BLOCK, BLOCKED, PLAIN, FeatureMaps, MixedBert
from model.training.networks import BiEncoder, CrossEncoder, Network, mean_pool
from model.training.quantise import IN_FLOAT

OPSET = 18
CLASS_HIERARCHY = "pkg.torch.onnx.class_hierarchy"
"""Where torch's exporter notes which modules, and which operation of torch, a node comes from."""
BLOCKS = "dse.blocked_attention"
"""The operation that is written down by :func:`_in_blocks`."""


class _EncoderGraph(nn.Module):
    """What the exported graph of a student computes: transformer, pooling and unit length."""

    def __init__(self, network: BiEncoder) -> None:
        super().__init__()
        self.body = network.body

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden, mean_pool(hidden, attention_mask)


class _PairGraph(nn.Module):
    """What the exported graph of a teacher computes: one logit a pair."""

    def __init__(self, network: CrossEncoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return self.network.read(inputs).logit


def to_onnx(network: Network, max_tokens: int) -> onnx.ModelProto:
    """The network's graph, for any batch and any length up to ``max_tokens``."""
    ids = torch.tensor([[101, 7, 8, 9, 102], [101, 7, 102, 0, 0]])
    mask = (ids > 0).long()
    if isinstance(network, BiEncoder):
        graph: nn.Module = _EncoderGraph(network)
        inputs, outputs = {"input_ids": ids, "attention_mask": mask}, ["last_hidden_state", "sentence_embedding"]
    else:
        graph = _PairGraph(network)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        outputs = ["logit"]
    # plain matmuls, which quantisation understands
    mixed = BLOCKED if max_tokens > BLOCK else PLAIN
    network.body.set_attn_implementation(mixed if isinstance(network.body, MixedBert) else "eager")
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=max_tokens)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's own exporter, about itself
        program = torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={name: {0: batch, 1: tokens} for name in inputs},
            opset_version=OPSET,
            custom_translation_table={torch.ops.dse.blocked_attention.default: _in_blocks(max_tokens)},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # torch.onnx.export answers None only when given a path
    model = program.model_proto
    _mark_attention(model)
    _let_gelu_fuse(model.graph)
    forget_origin(model)
    return model


def _in_blocks(max_tokens: int) -> Callable[..., Any]:
    """How softmax attention in blocks of queries is written into a graph: as many blocks as the longest text has.

    Of a shorter text the last blocks have no queries, and cost next to nothing.
    """
    import onnxscript

    op: Any = onnxscript.opset18

    def blocked_attention(query: Any, key: Any, value: Any, bias: Any) -> Any:
        turned = op.Transpose(key, perm=[0, 1, 3, 2])
        axis = op.Constant(value_ints=[2])
        mixed = []
        for start in range(0, max_tokens, BLOCK):
            first, end = op.Constant(value_ints=[start]), op.Constant(value_ints=[start + BLOCK])
            rows = op.Slice(query, first, end, axis)
            weights = op.Softmax(op.Add(op.MatMul(rows, turned), bias), axis=-1)
            mixed.append(op.MatMul(weights, value))
        return op.Concat(*mixed, axis=2)

    return blocked_attention


def _mark_attention(model: onnx.ModelProto) -> None:
    """Keep feature maps and their sums over tokens in float32, and softmax attention in blocks.

    Next to what surrounds them maps cost nothing, and onnxruntime has no int8 product with a weight for each head. Of
    blocks, some have no queries while scales are calibrated.
    """
    for node in model.graph.node:
        made_by = {entry.key: entry.value for entry in node.metadata_props}.get(CLASS_HIERARCHY, "")
        if FeatureMaps.__qualname__ in made_by or BLOCKS in made_by:
            node.name = IN_FLOAT + node.name


def _let_gelu_fuse(graph: onnx.GraphProto) -> None:
    """Turn x * (0.5 * (1 + erf)) into (x * (1 + erf)) * 0.5: the same, in an order that onnxruntime has one kernel for.

    Without it five passes go over the widest array of each layer. Where the order is another, nothing is done.
    """
    makers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        chain = [erf]
        while len(readers.get(chain[-1].output[0], [])) == 1 and len(chain) < 4:
            chain += readers[chain[-1].output[0]]
        scaled = makers.get(erf.input[0])
        if [node.op_type for node in chain] != ["Erf", "Add", "Mul", "Mul"] or scaled is None:
            continue
        _, add, inner, outer = chain
        half = 1 - list(inner.input).index(add.output[0])
        whole = 1 - list(outer.input).index(inner.output[0])
        if outer.input[whole] == scaled.input[0]:
            inner.input[half], outer.input[whole] = outer.input[whole], inner.input[half]


def write_graph(network: Network, folder: Path, max_tokens: int) -> None:
    """Write the fp32 graph of a network that was saved to ``folder``, unless it is there."""
    path = folder / GRAPH_FILES["fp32"]
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    onnx.save(to_onnx(network, max_tokens), partial)
    partial.replace(path)


def forget_origin(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of this machine: stack traces with its paths, at every node and value."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
