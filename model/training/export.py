"""How does a trained network become a bundle? Graphs, gates, calibration, manifest."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from model.bundle import GRAPH_FILES, HEAD, MANIFEST, TOKENIZER, BundleManifest, Graph
from model.faults import TrainingFault
from model.manifest import digests_of
from model.tokens import PairTokenizer, SentenceTokenizer
from model.training.card import model_card
from model.training.distil import pairs_to_train
from model.training.gates import check_int8_loss, check_invariance, check_parity
from model.training.networks import BiEncoder, CrossEncoder, Network, load_network, mean_pool
from model.training.pairs import Pair, read_pairs
from model.training.quality import fit_calibration
from model.training.quantise import Arrays, quantise
from model.training.recipes import DistillationRecipe
from model.training.scoring import OnnxScorer, figures
from model.training.signal import Signal
from model.training.teacher import SIGNAL

OPSET = 18


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
        self.body = network.body

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        inputs = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        logits: Tensor = self.body(input_ids=input_ids, **inputs).logits
        return logits.squeeze(-1)


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
    network.body.set_attn_implementation("eager")  # plain matmuls, which quantisation understands
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
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # torch.onnx.export answers None only when given a path
    model = program.model_proto
    forget_origin(model)
    return model


def forget_origin(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of this machine: stack traces with its paths, at every node and value."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def export(
    recipe: DistillationRecipe,
    run: Path,
    data: Path,
    output: Path,
    keep_fp32: bool,
    progress: Callable[[str], None],
) -> BundleManifest:
    """Write the bundle of a trained network.

    Gates, in order: parity of torch and ONNX (1e-4), an embedding or logit that does not depend on its batch, and the
    int8 graph's loss on the dev split within the recipe's bound. The bundle is assembled beside ``output`` and put in
    its place only when it is whole.

    Raises:
        GateError: a gate failed; nothing was published.
        FileExistsError: ``output`` exists.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists; remove it or name another folder")
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "onnx").mkdir(parents=True)
    try:
        manifest = _assemble(recipe, run, data, partial, keep_fp32, progress)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(output)
    return manifest


def _assemble(
    recipe: DistillationRecipe,
    run: Path,
    data: Path,
    partial: Path,
    keep_fp32: bool,
    progress: Callable[[str], None],
) -> BundleManifest:
    network, trained = load_network(run)
    if trained != recipe.network:
        raise TrainingFault(f"{run} was trained by another recipe than the one given; give the one it was trained by")
    signal = Signal.from_json(json.loads((run / SIGNAL).read_text("utf-8")))
    max_tokens = recipe.export.max_tokens
    _use_tokenizer(network, run / TOKENIZER, max_tokens)
    dev, test = read_pairs(data, recipe.data.dev), read_pairs(data, recipe.data.test)

    progress("export to ONNX")
    fp32 = to_onnx(network, max_tokens)
    onnx.save(fp32, partial / GRAPH_FILES["fp32"])
    _write_settings(network, run, partial, max_tokens)
    progress("gate: parity of torch and ONNX")
    scorers: dict[Graph, OnnxScorer] = {"fp32": OnnxScorer.load(partial, "fp32", network, max_tokens)}
    parity = check_parity(network, scorers["fp32"], dev, max_tokens)
    progress("quantise")
    train = [pair for pairs in pairs_to_train(recipe, data).values() for pair in pairs]
    calibration = _calibration_inputs(network, train, recipe.export.int8.calibration_texts)
    onnx.save(quantise(fp32, calibration), partial / GRAPH_FILES["int8"])
    scorers["int8"] = OnnxScorer.load(partial, "int8", network, max_tokens)

    progress("gates: batch-invariance, int8 loss")
    served = scorers["int8"](dev)
    calibrations = {"score": fit_calibration(served.logits, served.gold)}
    if served.similarities is not None:
        calibrations["similarity"] = fit_calibration(served.similarities, served.gold)
    quality: dict[str, Any] = {
        "parity": parity,
        "invariance": {graph: check_invariance(scorers[graph], dev) for graph in scorers},
        "dev": {
            "int8": figures(served, calibrations),
            "fp32": figures(scorers["fp32"](dev), calibrations),
        },
    }
    quality["int8_loss"] = check_int8_loss(quality["dev"], recipe.export.int8.max_loss)
    progress("measure the test split")
    quality["test"] = {graph: figures(scorers[graph](test), calibrations) for graph in GRAPH_FILES}

    if not keep_fp32:
        (partial / GRAPH_FILES["fp32"]).unlink()
    student = isinstance(network, BiEncoder)
    facts = BundleManifest.model_validate(
        {
            "name": recipe.network.name,
            "kind": "encoder" if student else "cross-encoder",
            "task": "sentence similarity (STS-B)",
            "dims": network.dims if isinstance(network, BiEncoder) else None,
            "max_tokens": max_tokens,
            "pooling": "mean" if student else None,
            "head": recipe.network.head.kind if student else None,
            "calibration": {name: asdict(found) for name, found in calibrations.items()},
            "quality": quality,
            "licence": recipe.export.licence,
            "lineage": recipe.export.lineage,
            "files": {},
        }
    )
    (partial / "README.md").write_text(model_card(facts, recipe, signal), "utf-8")
    names = [str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file()]
    manifest = facts.model_copy(update={"files": digests_of(partial, names)})
    (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    return manifest


def _use_tokenizer(network: Network, path: Path, max_tokens: int) -> None:
    """Cut texts where the bundle will, not where training did."""
    if isinstance(network, CrossEncoder):
        network.tokenizer = PairTokenizer.load(path, max_tokens)
    else:
        network.tokenizer = SentenceTokenizer.load(path, max_tokens)


def _calibration_inputs(network: Network, train: list[Pair], count: int) -> list[Arrays]:
    """Graph inputs of ``count`` training texts, one a row, evenly spaced through the sets."""
    spaced = train[:: max(1, len(train) // count)][:count]
    rows = np.arange(len(spaced))[:, None]
    if isinstance(network, CrossEncoder):
        pairs = network.tokenizer.tokenize([(pair.left, pair.right) for pair in spaced])
        return [network.tokenizer.padded(pairs, row) for row in rows]
    texts = network.tokenizer.tokenize([pair.left for pair in spaced])
    return [network.tokenizer.padded(texts, row) for row in rows]


def _write_settings(network: Network, run: Path, folder: Path, max_tokens: int) -> None:
    """Everything beside the graphs: tokenizer, head, and what sentence-transformers reads."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", HEAD):
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    if not isinstance(network, BiEncoder):
        return
    module = "sentence_transformers.models"
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    written = {
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": f"{module}.{kind}"}
            for number, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": max_tokens, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": network.dims,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    }
    for name, content in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
