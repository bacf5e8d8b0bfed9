"""What should someone know before using this model? The card that travels with a bundle."""

from model.bundle import BundleManifest
from model.training.recipes import DistillationRecipe
from model.training.signal import Signal


def model_card(manifest: BundleManifest, recipe: DistillationRecipe, signal: Signal) -> str:
    """A bundle's README.md: what it is, its figures, its data and their terms, and where it comes from."""
    stages = recipe.network.stages
    used = sorted({name for stage in stages for name in stage.sets})
    imitated = {name for stage in stages for name in stage.teacher_only}
    lines = [
        "---",
        f"license: {manifest.licence}",
        "language: en",
        "tags: [sentence-similarity, feature-extraction, onnx]"
        if manifest.kind == "encoder"
        else "tags: [text-ranking, cross-encoder, onnx]",
        "---",
        "",
        f"# {manifest.name}",
        "",
        _what_it_is(manifest),
        "",
        "## Figures",
        "",
        "STSbenchmark, points of Pearson (P) and Spearman (S), one seed. The calibration, the gates and every choice",
        "look at dev only. *Error* is the mean gap of score and gold/5 in ten equal-count bins.",
        "",
        "| split | graph | of | P | S | error |",
        "|---|---|---|---|---|---|",
        *(
            f"| {split} | {graph} | {name} | {row['pearson']:.2f} | {row['spearman']:.2f} "
            f"| {row['calibration_error']:.3f} |"
            for split in ("dev", "test")
            for graph, found in manifest.quality[split].items()
            for name, row in found.items()
        ),
        "",
        f"int8 costs {max(0.0, manifest.quality['int8_loss']):.2f} points of Spearman on dev against fp32. The int8",
        "graph is static: an answer does not depend on the other texts of its batch.",
        "",
        "## Recipe",
        "",
        *_how_it_was_trained(recipe),
        "",
        f"Its teacher is the signal `{signal.name}`: the mean of the standardised scores of",
        *(
            f"- `{m.name}`, a {m.kind} (STS-B dev: P {m.dev.pearson:.2f}, S {m.dev.spearman:.2f})"
            for m in signal.members
        ),
        "",
        f"together P {signal.dev.pearson:.2f}, S {signal.dev.spearman:.2f} on STS-B dev.",
        "",
        "## Training data and their terms",
        "",
        *(
            f"- {recipe.data.sets[name].described}"
            f"{' (its labels are not used: the teacher scores the pairs)' if name in imitated else ''}"
            for name in used
        ),
        "",
        "The members of the signal were trained on:",
        "",
        *(f"- {described}" for described in signal.trained_on),
        "",
        "Parts of these sets (the MSR parts of the STS sets among them) are for research only; look at their terms",
        "before commercial use. No pair that holds a sentence of an evaluation split was trained on (compared without",
        "case, accents and punctuation).",
        "",
        "## Lineage",
        "",
        *(f"- {step}" for step in manifest.lineage),
        "",
        f"Licence of this folder: {manifest.licence}.",
        "",
    ]
    return "\n".join(lines)


def _how_it_was_trained(recipe: DistillationRecipe) -> list[str]:
    network = recipe.network
    lines = [f"From `{network.init}`, seed {network.seed}, {network.precision}; c = {network.distillation}."]
    if network.keep_initial:
        lines.append(f"At the end {network.keep_initial:.0%} of the weights it started from were averaged in.")
    lines += ["", "| stage | sets | epochs | batch | learning rate |", "|---|---|---|---|---|"]
    for stage in network.stages:
        sets = ", ".join(stage.sets) + (", both orders" if stage.both_orders else "")
        lines.append(f"| {stage.name} | {sets} | {stage.epochs} | {stage.batch} | {stage.learning_rate:g} |")
    return lines


def _what_it_is(manifest: BundleManifest) -> str:
    cut = f"Texts are cut after {manifest.max_tokens} tokens."
    if manifest.kind == "cross-encoder":
        return (
            "A teacher: a cross-encoder that reads two sentences together and answers one logit (`logit`, before\n"
            f"the sigmoid); DSE serves the mean over both orders. {cut}"
        )
    score = {
        "mlp": "the DSE head (`head.safetensors`) over two embeddings",
        "quadratic": "a quadratic head (`head.safetensors`) over two embeddings",
        "cosine": "the cosine, calibrated",
    }[manifest.head or "cosine"]
    return (
        f"A student of Distilled Sentence Embedding (arXiv 1908.05161): a sentence encoder of {manifest.dims}\n"
        f"dimensions, mean pooling and unit length inside the graph. The score of a pair is {score}.\n{cut}\n\n"
        "It also loads with sentence-transformers:\n\n"
        "```python\n"
        'SentenceTransformer("FOLDER", backend="onnx", model_kwargs={"file_name": "onnx/model_int8.onnx"})\n'
        "```"
    )
