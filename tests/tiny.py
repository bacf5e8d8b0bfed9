"""Models small enough to build in a test: a tokenizer of letters, a student and a teacher of one table each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from model.bundle import GRAPH_FILES, HEAD, MANIFEST, PAIR, SENTENCE, TOKENIZER
from model.head import HeadKind
from model.manifest import digests_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
DIMS = 16


def tokenizer() -> Tokenizer:
    """WordPiece over single letters, with BERT's markers: ``ab`` is ``[CLS] a ##b [SEP]``."""
    tokens = {token: number for number, token in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", tokens["[SEP]"]), ("[CLS]", tokens["[CLS]"]))
    return made


def table(seed: int, dims: int = DIMS) -> np.ndarray:
    """(vocabulary, dims) fixed random token vectors."""
    rows = np.random.default_rng(seed).normal(size=(len(VOCABULARY), dims))
    return rows.astype(np.float32)


def _masked_mean() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["last_hidden_state", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "one"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
    ]


def _model(nodes: list[onnx.NodeProto], inputs: list[str], outputs: dict[str, list], tensors: dict) -> onnx.ModelProto:
    axes = {"last": np.array([-1], np.int64), "one": np.array([1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (axes | tensors).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def encoder_graph(seed: int, dims: int = DIMS) -> onnx.ModelProto:
    """A sentence's embedding is the unit mean of its tokens' vectors."""
    nodes = [
        *_masked_mean(),
        helper.make_node("ReduceL2", ["mean", "one"], ["length"], keepdims=1),
        helper.make_node("Div", ["mean", "length"], ["sentence_embedding"]),
    ]
    outputs = {"last_hidden_state": ["batch", "tokens", dims], "sentence_embedding": ["batch", dims]}
    return _model(nodes, ["input_ids", "attention_mask"], outputs, {"table": table(seed, dims)})


def flat_pair_graph(seed: int) -> onnx.ModelProto:
    """A pair's logit is the mean over its tokens of a number each; it does not read ``token_type_ids``."""
    nodes = [*_masked_mean(), helper.make_node("Squeeze", ["mean", "one"], ["logit"])]
    return _model(nodes, ["input_ids", "attention_mask"], {"logit": ["batch"]}, {"table": table(seed, 1)})


def pair_graph(seed: int) -> onnx.ModelProto:
    """A pair's logit is the mean over its tokens of a number each, and a little for tokens of the second sentence."""
    nodes = [
        *_masked_mean(),
        helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["types", "one"], ["second"], keepdims=0),
        helper.make_node("Mul", ["second", "weight"], ["bonus"]),
        helper.make_node("Squeeze", ["mean", "one"], ["flat"]),
        helper.make_node("Add", ["flat", "bonus"], ["logit"]),
    ]
    tensors = {"table": table(seed, 1), "weight": np.array(0.01, np.float32)}
    return _model(nodes, ["input_ids", "attention_mask", "token_type_ids"], {"logit": ["batch"]}, tensors)


def head_tensors(seed: int, dims: int = DIMS, hidden: int = 8) -> dict[str, np.ndarray]:
    """An mlp head's tensors as the trainer names them."""
    random = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(scale=0.5, size=shape).astype(np.float32)

    return {
        "either.weight": weights(hidden, dims),
        "product.weight": weights(hidden, dims),
        "difference.weight": weights(hidden, dims),
        "difference.bias": weights(hidden),
        "output.weight": weights(1, hidden),
        "output.bias": weights(1),
    }


def quadratic_head_tensors(seed: int, dims: int = DIMS) -> dict[str, np.ndarray]:
    """A quadratic head's tensors as the trainer names them."""
    random = np.random.default_rng(seed)
    names = ("linear", "product", "difference")
    weights = {name: random.normal(size=dims).astype(np.float32) for name in names}
    return weights | {"bias": random.normal(size=1).astype(np.float32)}


HEADS: dict[HeadKind, Callable[[int], dict[str, np.ndarray]]] = {
    "mlp": head_tensors,
    "quadratic": quadratic_head_tensors,
}


def write_student(
    folder: Path,
    seed: int = 1,
    name: str = "tiny-student",
    max_tokens: int = 32,
    head: HeadKind = "mlp",
    **facts: Any,
) -> Path:
    """A student's bundle: two graphs (the same one, under both names), a head, a manifest with some facts changed."""
    (folder / "onnx").mkdir(parents=True)
    for file in GRAPH_FILES.values():
        onnx.save(encoder_graph(seed), folder / file)
    tokenizer().save(str(folder / TOKENIZER))
    if head in HEADS:
        save_file(HEADS[head](seed), folder / HEAD)
    calibration = {"score": {"slope": 1.0, "intercept": 0.0}, "similarity": {"slope": 4.0, "intercept": -2.0}}
    student = {"kind": "encoder", "dims": DIMS, "pooling": "mean", "head": head, "calibration": calibration}
    _finish(folder, {"name": name, "max_tokens": max_tokens} | student | facts)
    return folder


def write_teacher(folder: Path, seed: int = 2, name: str = "tiny-teacher", max_tokens: int = 64) -> Path:
    """A teacher's bundle."""
    _write_member(folder, pair_graph(seed))
    _finish(folder, {"name": name, "max_tokens": max_tokens, "kind": "cross-encoder"})
    return folder


SIGNAL = {
    "pair": {"mean": 0.2, "deviation": 0.5},
    "sentence": {"mean": 0.4, "deviation": 0.25},
    "slope": 3.0,
    "intercept": -1.0,
}


def write_ensemble(folder: Path, seed: int = 2, name: str = "tiny-ensemble", head: HeadKind = "cosine") -> Path:
    """The bundle of a teacher of two members: the teacher and the student of the same seed."""
    _write_member(folder / PAIR, pair_graph(seed))
    _write_member(folder / SENTENCE, encoder_graph(seed))
    if head in HEADS:
        save_file(HEADS[head](seed), folder / SENTENCE / HEAD)
    facts = {"kind": "ensemble", "dims": DIMS, "pooling": "mean", "head": head, "signal": SIGNAL}
    _finish(folder, {"name": name, "max_tokens": 64} | facts)
    return folder


def _write_member(folder: Path, graph: onnx.ModelProto) -> None:
    (folder / "onnx").mkdir(parents=True)
    onnx.save(graph, folder / GRAPH_FILES["int8"])
    tokenizer().save(str(folder / TOKENIZER))


def _finish(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest."""
    manifest = {
        "format": 1,
        "task": "tests",
        "dims": None,
        "pooling": None,
        "head": None,
        "calibration": {"score": {"slope": 1.0, "intercept": 0.0}},
        "quality": {},
        "licence": "apache-2.0",
        "lineage": ["built in a test"],
        "files": digests_of(folder, [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest | facts), "utf-8")
