"""How does a trained network become a bundle? Graphs, gates, calibration, manifest."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from model.bundle import GRAPH_FILES, HEAD, MANIFEST, PAIR, SENTENCE, TOKENIZER, BundleManifest, Graph
from model.cross_encoder import OnnxCrossEncoder
from model.encoder import OnnxEncoder
from model.ensemble import OnnxEnsemble, Standard
from model.faults import TrainingFault
from model.manifest import digests_of
from model.spaced import spaced
from model.tokens import PairTokenizer, SentenceTokenizer
from model.training.card import network_card, signal_card
from model.training.fusion import fuse_attention
from model.training.gates import check_int8_loss, check_invariance, check_labels, check_parity
from model.training.graphs import OPSET, to_onnx
from model.training.material import pairs_to_train
from model.training.network_recipe import HeadRecipe, NetworkRecipe
from model.training.networks import BiEncoder, CrossEncoder, Network, check_length, load_network, make_network
from model.training.pairs import Pair, TrainingData
from model.training.provenance import read_learned_from
from model.training.quality import fit_calibration
from model.training.quantise import Arrays, quantise
from model.training.recipes import DistillationRecipe, ExportRecipe, TeacherRecipe
from model.training.scoring import OnnxScorer, Scored, figures
from model.training.sentence_transformer import own_tokenizer
from model.training.signal import Member, Signal
from model.training.static import StaticBody, bert_config, quantise_table
from model.training.teacher import Ensemble

Say = Callable[[str], None]
"""Told each step as it begins."""

Scorer = Callable[[Sequence[Pair]], Scored]


def export_network(
    recipe: DistillationRecipe,
    run: Path,
    data: TrainingData,
    output: Path,
    keep_fp32: bool,
    progress: Say,
) -> BundleManifest:
    """Write the bundle of a distilled network.

    Gates, in order: parity of torch and ONNX (1e-4), an embedding or logit that does not depend on its batch, and the
    int8 graph's loss on the dev split within the recipe's bound. The bundle is assembled beside ``output`` and put in
    its place only when it is whole.

    Raises:
        GateError: a gate failed; nothing was published.
        FileExistsError: ``output`` exists.
    """

    def assemble(folder: Path) -> BundleManifest:
        signal = Signal.read(run)
        part = _part(recipe.network, recipe.export, run, data, folder, progress)
        student = isinstance(part.network, BiEncoder)
        facts = {
            "name": recipe.network.name,
            "kind": "encoder" if student else "cross-encoder",
            "dims": part.network.dims if isinstance(part.network, BiEncoder) else None,
            "pooling": "mean" if student else None,
            "head": recipe.network.head.kind if student else None,
            "matryoshka": recipe.network.matryoshka,
            "trained_on": read_learned_from(run),
        }
        facts |= _quality([part], part.scorers, recipe.export, data, progress)
        manifest = _manifest(facts, recipe.export)
        (folder / "README.md").write_text(network_card(manifest, recipe, signal), "utf-8")
        return _finished(manifest, folder, keep_fp32)

    return _published(output, assemble)


def export_teacher(
    recipe: TeacherRecipe,
    run: Path,
    data: TrainingData,
    output: Path,
    keep_fp32: bool,
    progress: Say,
) -> BundleManifest:
    """Write the bundle of a teacher signal, so that what is served is what labelled the pairs.

    A signal of one cross-encoder becomes a bundle of that graph; one of a cross-encoder and a bi-encoder, a bundle of
    both, whose logit is the signal's. The gates are those of :func:`export_network`, for each member, and that the
    fp32 bundle answers the signal's logits on dev within 1e-3.

    Raises:
        GateError: a gate failed; nothing was published.
        TrainingFault: the signal has other members than can be served.
        FileExistsError: ``output`` exists.
    """
    if recipe.export is None:
        raise TrainingFault(f"the recipe of {recipe.name} has no [export]: say there what the bundle promises")
    wanted = recipe.export
    ensemble = Ensemble.load(run)
    members = sorted(recipe.members, key=_pair_first)
    kinds = [member.kind for member in members]
    if kinds not in (["cross-encoder"], ["cross-encoder", "bi-encoder"]):
        raise TrainingFault(
            f"{recipe.name} has members {kinds}; a teacher is served as one cross-encoder, or as a cross-encoder and "
            "a bi-encoder: distil such a pair from this signal first"
        )

    def assemble(folder: Path) -> BundleManifest:
        folders = [folder / PAIR, folder / SENTENCE] if len(kinds) == 2 else [folder]
        parts = [
            _part(member, wanted, run / member.name, data, place, progress)
            for member, place in zip(members, folders, strict=True)
        ]
        facts: dict[str, Any] = {"name": recipe.name, "kind": "cross-encoder", "dims": None, "pooling": None}
        facts |= {"head": None, "trained_on": ensemble.signal.trained_on}
        scorers: dict[Graph, Scorer] = dict(parts[0].scorers)
        if len(parts) == 2:
            sentence = parts[1].network
            assert isinstance(sentence, BiEncoder)
            scorers = {
                graph: _together(ensemble.signal, [part.scorers[graph] for part in parts]) for graph in GRAPH_FILES
            }
            facts |= {"kind": "ensemble", "dims": sentence.dims, "pooling": "mean", "head": sentence.head_kind}
            facts |= {"signal": _signal_facts(ensemble.signal)}
            check_labels(scorers["fp32"], ensemble, data.dev)
        facts |= _quality(parts, scorers, wanted, data, progress)
        manifest = _manifest(facts, wanted)
        (folder / "README.md").write_text(signal_card(manifest, recipe, ensemble.signal), "utf-8")
        return _finished(manifest, folder, keep_fp32)

    return _published(output, assemble)


def export_untouched(weights: Path, texts: Sequence[str], output: Path, progress: Say) -> BundleManifest:
    """Write the bundle of a pretrained sentence encoder as it is, both graphs kept: to measure it beside its peers.

    Its texts are cut where sentence-transformers cuts them, it compares by the cosine, and nothing calibrates that.

    Args:
        weights: a folder of a transformer with mean pooling and unit length, which is not checked.
        texts: for the gates, and to find the scales of int8.
        output: the bundle's folder; must not exist.
        progress: told each step as it begins.

    Raises:
        GateError: a gate failed; nothing was published.
        TrainingFault: there are no such weights.
        FileExistsError: ``output`` exists.
    """
    name = weights.resolve().name
    few = 8  # tokens, for the moment: as many as any body can read
    recipe = NetworkRecipe(
        name=name, kind="bi-encoder", init=str(weights), head=HeadRecipe(kind="cosine"), stages=[], max_tokens=few
    )
    pairs = [Pair(str(row), text, texts[row - 1], 0.0) for row, text in enumerate(texts)]

    def assemble(folder: Path) -> BundleManifest:
        network = make_network(recipe, weights).eval()
        assert isinstance(network, BiEncoder)
        most = own_tokenizer(weights).max_tokens
        export = ExportRecipe(max_tokens=most, licence="that of the weights", lineage=[f"{name}, untouched"])

        def usual() -> list[Arrays]:
            return _one_by_one(network, spaced(texts, export.int8.calibration_texts))

        part = _graphs(network, recipe, export, weights, pairs, usual, folder, progress)
        neutral = {"slope": 1.0, "intercept": 0.0}
        facts = {"name": name, "kind": "encoder", "dims": network.dims, "pooling": "mean", "head": "cosine"}
        facts |= {"calibration": {"score": neutral, "similarity": neutral}}
        facts |= {"quality": {"parity": part.parity, "invariance": part.invariance}}
        return _finished(_manifest(facts, export), folder, keep_fp32=True)

    return _published(output, assemble)


def _published(output: Path, assemble: Callable[[Path], BundleManifest]) -> BundleManifest:
    """Assemble a bundle beside ``output`` and put it in its place when it is whole."""
    if output.exists():
        raise FileExistsError(17, "exists; remove it or name another folder", str(output))
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = assemble(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(output)
    return manifest


@dataclass(frozen=True)
class _Part:
    """One network of a bundle, its graphs written and through their gates."""

    network: Network
    scorers: dict[Graph, OnnxScorer]
    parity: float
    invariance: dict[Graph, float]


def _part(
    recipe: NetworkRecipe, export: ExportRecipe, run: Path, data: TrainingData, folder: Path, progress: Say
) -> _Part:
    network, trained = load_network(run)
    if trained != recipe:
        raise TrainingFault(f"{run} was trained by another recipe than the one given; give the one it was trained by")

    def usual() -> list[Arrays]:
        return calibration_inputs(network, recipe, data, export.int8.calibration_texts)

    return _graphs(network, recipe, export, run, data.dev, usual, folder, progress)


def _graphs(
    network: Network,
    recipe: NetworkRecipe,
    export: ExportRecipe,
    home: Path,
    probed: Sequence[Pair],
    usual: Callable[[], list[Arrays]],
    folder: Path,
    progress: Say,
) -> _Part:
    """Both graphs of a network, written and through their gates.

    ``home`` holds its tokenizer and settings; the gates ask about the ``probed`` pairs, and int8 finds its scales in
    the ``usual`` graph inputs.
    """
    check_length(network.body, export.max_tokens)
    _use_tokenizer(network, home / TOKENIZER, export.max_tokens)
    (folder / "onnx").mkdir(parents=True)
    progress(f"{recipe.name}: export to ONNX")
    plain, heads = to_onnx(network, export.max_tokens), getattr(network.body.config, "num_attention_heads", 0)
    onnx.save(_fused(plain, heads), folder / GRAPH_FILES["fp32"])
    _write_settings(network, home, folder, export.max_tokens)
    progress(f"{recipe.name}: parity of torch and ONNX")
    scorers: dict[Graph, OnnxScorer] = {"fp32": OnnxScorer.load(folder, "fp32", recipe, export.max_tokens)}
    parity = check_parity(network, scorers["fp32"], probed, export.max_tokens)
    progress(f"{recipe.name}: quantise")
    if isinstance(network.body, StaticBody):
        int8 = quantise_table(network.body, OPSET)
    else:
        int8 = quantise(plain, usual(), heads)
    onnx.save(int8, folder / GRAPH_FILES["int8"])
    scorers["int8"] = OnnxScorer.load(folder, "int8", recipe, export.max_tokens)
    progress(f"{recipe.name}: batch-invariance")
    return _Part(network, scorers, parity, {graph: check_invariance(scorers[graph], probed) for graph in scorers})


def _fused(plain: onnx.ModelProto, heads: int) -> onnx.ModelProto:
    """The same graph with attention as one node: the gate of parity holds that to torch."""
    fused = onnx.ModelProto()
    fused.CopyFrom(plain)
    fuse_attention(fused, heads)
    return fused


def _quality(
    parts: Sequence[_Part],
    scorers: Mapping[Graph, Scorer],
    export: ExportRecipe,
    data: TrainingData,
    progress: Say,
) -> dict[str, Any]:
    """Calibration, fitted on dev through the int8 graphs, and what the bundle answers on dev and test."""
    progress("measure the dev and test splits")
    served = scorers["int8"](data.dev)
    calibrations = {"score": fit_calibration(served.logits, served.gold)}
    if served.similarities is not None:
        calibrations["similarity"] = fit_calibration(served.similarities, served.gold)
    dev = {"int8": figures(served, calibrations), "fp32": figures(scorers["fp32"](data.dev), calibrations)}
    quality: dict[str, Any] = {
        "parity": max(part.parity for part in parts),
        "invariance": {graph: _of_parts([part.invariance[graph] for part in parts]) for graph in GRAPH_FILES},
        "dev": dev,
        "int8_loss": check_int8_loss(dev, export.int8.max_loss),
        "test": {graph: figures(scorers[graph](data.test), calibrations) for graph in GRAPH_FILES},
    }
    return {"quality": quality, "calibration": {name: asdict(found) for name, found in calibrations.items()}}


def _of_parts(values: list[float]) -> float | dict[str, float]:
    """One network's figure, or each member's by its name in the bundle."""
    return values[0] if len(values) == 1 else dict(zip((PAIR, SENTENCE), values, strict=True))


def _together(signal: Signal, scorers: Sequence[OnnxScorer]) -> Scorer:
    """A cross-encoder's and an encoder's graph as the signal averages them."""
    pair, sentence = (scorer.model for scorer in scorers)
    assert isinstance(pair, OnnxCrossEncoder)
    assert isinstance(sentence, OnnxEncoder)
    first, second = (Standard(member.mean, member.deviation) for member in sorted(signal.members, key=_pair_first))
    both = OnnxEnsemble(pair, first, sentence, scorers[1].head, second, signal.calibration)

    def score(pairs: Sequence[Pair]) -> Scored:
        logits = both.score([(pair.left, pair.right) for pair in pairs]).logits
        return Scored(logits, None, np.array([pair.gold for pair in pairs]))

    return score


def _signal_facts(signal: Signal) -> dict[str, Any]:
    def standard(member: Member) -> dict[str, float]:
        return {"mean": member.mean, "deviation": member.deviation}

    pair, sentence = sorted(signal.members, key=_pair_first)
    return asdict(signal.calibration) | {PAIR: standard(pair), SENTENCE: standard(sentence)}


def _pair_first(member: Member | NetworkRecipe) -> bool:
    """Sorts a cross-encoder before a bi-encoder, whichever was trained first."""
    return member.kind != "cross-encoder"


def _manifest(facts: dict[str, Any], export: ExportRecipe) -> BundleManifest:
    return BundleManifest.model_validate(
        facts
        | {
            "task": "sentence similarity (STS-B)",
            "max_tokens": export.max_tokens,
            "licence": export.licence,
            "lineage": export.lineage,
            "files": {},
        }
    )


def _finished(manifest: BundleManifest, folder: Path, keep_fp32: bool) -> BundleManifest:
    """The manifest with every file's digest, written last."""
    if not keep_fp32:
        for graph in folder.rglob(GRAPH_FILES["fp32"]):
            graph.unlink()
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    whole = manifest.model_copy(update={"files": digests_of(folder, names)})
    (folder / MANIFEST).write_text(whole.model_dump_json(indent=2) + "\n", "utf-8")
    return whole


def _use_tokenizer(network: Network, path: Path, max_tokens: int) -> None:
    """Cut texts where the bundle will, not where training did."""
    if isinstance(network, CrossEncoder):
        network.tokenizer = PairTokenizer.load(path, max_tokens)
    else:
        network.tokenizer = SentenceTokenizer.load(path, max_tokens)


def calibration_inputs(network: Network, recipe: NetworkRecipe, data: TrainingData, count: int) -> list[Arrays]:
    """Graph inputs of ``count`` training texts, one a row, evenly spaced through the sets.

    They are those of the pairs, and as many of the plain texts that an encoder learned from: what is searched is longer
    than what people compared.
    """
    train = [pair for pairs in pairs_to_train(recipe.stages, data).values() for pair in pairs]
    if isinstance(network, CrossEncoder):
        pairs = network.tokenizer.tokenize([(pair.left, pair.right) for pair in spaced(train, count)])
        return [network.tokenizer.padded(pairs, row) for row in np.arange(len(pairs))[:, None]]
    lefts = [pair.left for pair in train]
    plain = [text for name in recipe.texts for text in data.texts(name)]
    from_pairs = spaced(lefts, count if not plain else count // 2)
    return _one_by_one(network, [*from_pairs, *spaced(plain, count - len(from_pairs))])


def _one_by_one(network: BiEncoder, texts: Sequence[str]) -> list[Arrays]:
    tokens = network.tokenizer.tokenize(texts)
    return [network.tokenizer.padded(tokens, row) for row in np.arange(len(tokens))[:, None]]


def _write_settings(network: Network, run: Path, folder: Path, max_tokens: int) -> None:
    """Everything beside the graphs: tokenizer, head, and what sentence-transformers reads."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", HEAD):
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    if not isinstance(network, BiEncoder):
        return
    if isinstance(network.body, StaticBody):
        (folder / "config.json").write_text(bert_config(network.body, max_tokens).to_json_string(), "utf-8")
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
