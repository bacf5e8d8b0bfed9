"""What should someone know before using this model? The card that travels with a bundle."""

from collections.abc import Sequence

from model.bundle import BundleManifest
from model.training.data_recipe import SILVER, DataRecipe
from model.training.network_recipe import NetworkRecipe
from model.training.provenance import restricted
from model.training.recipes import DistillationRecipe, TeacherRecipe
from model.training.signal import Signal


def network_card(manifest: BundleManifest, recipe: DistillationRecipe, signal: Signal) -> str:
    """The README.md of a distilled network: what it is, its figures, its data and their terms, where it comes from."""
    return _card(manifest, recipe.data, [recipe.network], _taught_by(signal))


def signal_card(manifest: BundleManifest, recipe: TeacherRecipe, signal: Signal) -> str:
    """The README.md of a teacher that is served as the signal it labels with."""
    return _card(manifest, recipe.data, recipe.members, [*_members(signal), *_trained_on(signal)])


def _card(
    manifest: BundleManifest, data: DataRecipe, networks: Sequence[NetworkRecipe], after_the_recipe: list[str]
) -> str:
    stages = [stage for network in networks for stage in network.stages]
    sets = sorted({name for stage in stages for name in stage.sets})
    texts = sorted({name for stage in stages for name in stage.texts} - set(sets))
    imitated = {SILVER, *(name for stage in stages for name in stage.teacher_only)}
    encoder = manifest.kind == "encoder"
    lines = [
        "---",
        f"license: {manifest.licence}",
        "language: en",
        f"tags: [{'sentence-similarity, feature-extraction' if encoder else 'text-ranking, cross-encoder'}, onnx]",
        "---",
        "",
        f"# {manifest.name}",
        "",
        _what_it_is(manifest, static=any(network.body == "static" for network in networks)),
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
        *(line for network in networks for line in _how_it_was_trained(network)),
        *after_the_recipe,
        "",
        "## Training data and their terms",
        "",
        *(
            f"- {data.set_of(name).described}"
            f"{' (its labels are not used: the teacher scores the pairs)' if name in imitated else ''}"
            for name in sets
        ),
        *dict.fromkeys(f"- {data.texts_of(name).described} (its texts alone)" for name in texts),
        "",
    ]
    lines += [
        *_through_others([one for one in manifest.trained_on if not any(one in line for line in lines)]),
        *_terms_to_look_at(manifest.trained_on),
        *_held_out(data),
        "",
        "## Lineage",
        "",
        *(f"- {step}" for step in manifest.lineage),
        "",
        f"Licence of this folder: {manifest.licence}.",
        "",
    ]
    return "\n".join(lines)


def _taught_by(signal: Signal) -> list[str]:
    return [
        "",
        f"Its teacher is the signal `{signal.name}`.",
        *_members(signal),
        *_trained_on(signal),
    ]


def _trained_on(signal: Signal) -> list[str]:
    if not signal.trained_on:
        return []
    return [
        "",
        "These, and what taught them, were trained on:",
        "",
        *(f"- {described}" for described in signal.trained_on),
    ]


def _through_others(described: Sequence[str]) -> list[str]:
    """What was not told yet of what it learned from."""
    if not described:
        return []
    return [
        "What it starts from, or is drawn to, was trained on these as well:",
        "",
        *(f"- {d}" for d in described),
        "",
    ]


def _held_out(data: DataRecipe) -> list[str]:
    """Whose sentences it did not learn from."""
    files = dict.fromkeys([data.dev.file, data.test.file, *data.held_out])
    return [
        "No pair was trained on that holds a sentence of these (compared without case, accents and punctuation):",
        f"{', '.join(f'`{file}`' for file in files)}. Other sets may hold sentences that it learned from.",
    ]


def _terms_to_look_at(trained_on: Sequence[str]) -> list[str]:
    """The sets that not everyone may train a product on."""
    if not (bound := restricted(trained_on)):
        return []
    names = ", ".join(bound)
    return [
        f"Before commercial use look at the terms of {names}: they allow research only, in part, or state nothing.",
        "",
    ]


def _members(signal: Signal) -> list[str]:
    if len(signal.members) == 1 and signal.members[0].name == signal.name:  # a bundle, whose own card says more
        return ["", f"On STS-B dev it has P {signal.dev.pearson:.2f}, S {signal.dev.spearman:.2f}."]
    return [
        "",
        "The mean of the standardised scores of",
        "",
        *(
            f"- `{m.name}`, a {m.kind} (STS-B dev: P {m.dev.pearson:.2f}, S {m.dev.spearman:.2f})"
            for m in signal.members
        ),
        "",
        f"is P {signal.dev.pearson:.2f}, S {signal.dev.spearman:.2f} on STS-B dev, before calibration.",
    ]


def _how_it_was_trained(network: NetworkRecipe) -> list[str]:
    precision = "fp32" if network.precision == "fp32" else "bf16 where the processor has it"
    start = f"From `{network.init}`, seed {network.seed}, {precision}; c = {network.distillation}"
    if network.layers is not None:
        start += f"; layers {', '.join(map(str, network.layers))} of it"
    if network.frozen:
        start += f"; {' and '.join(network.frozen)} as they were"
    lines = [f"`{network.name}`: {start}."]
    if network.branch is not None:
        branch = network.branch
        lines.append(
            f"Copies of its top layers ({branch.layers}) alone were trained, then merged with what the body itself "
            f"says into one embedding: {branch.axes} of its axes, and {branch.share:.0%} of its cosine, are theirs."
        )
    if network.keep_initial:
        kept = f"{network.keep_initial:.0%} of `{network.origin or network.init}` was averaged"
        lines.append(f"Before, {kept} into all but the copies." if network.branch else f"Then {kept} in.")
    lines += ["", "| stage | sets and texts | losses | epochs | batch | learning rate |", "|---|---|---|---|---|---|"]
    for stage in network.stages:
        losses = [f"{name} {weight:g}" for name, weight in network.losses(stage).items()] if stage.sets else []
        losses += [f"regression {stage.regression:g}"] if stage.regression else []
        losses += [f"search {stage.search:g}"] if stage.search else []
        losses += [f"{name} {weight:g}" for name, weight in stage.imitation.weights.items()] if stage.imitation else []
        sets = ", ".join([*stage.sets, *stage.texts]) + (", both orders" if stage.both_orders else "")
        sets += " (the head alone)" if stage.head_only else ""
        lines.append(
            f"| {stage.name} | {sets} | {', '.join(losses)} | {stage.epochs} | {stage.batch} "
            f"| {stage.learning_rate:g} |"
        )
    return [*lines, ""]


def _what_it_is(manifest: BundleManifest, static: bool) -> str:
    cut = f"Texts are cut after {manifest.max_tokens} tokens."
    if manifest.kind == "ensemble":
        return (
            "A teacher of two members: a cross-encoder that reads two sentences together, and an encoder that reads\n"
            f"each alone. Its logit is the mean of their standardised scores, calibrated. {cut}"
        )
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
    table = " It is a table with a row for each token, and knows no order of words." if static else ""
    return (
        f"A student of Distilled Sentence Embedding (arXiv 1908.05161): a sentence encoder of {manifest.dims}\n"
        f"dimensions, mean pooling and unit length inside the graph.{table} The score of a pair is {score}.\n{cut}\n\n"
        "It also loads with sentence-transformers, which gives the embeddings, and so the *similarity* below; the\n"
        "*score* needs DSE (`dse score`).\n\n"
        "```python\n"
        "from sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("FOLDER", backend="onnx", model_kwargs={"file_name": "onnx/model_int8.onnx"})\n'
        "```"
    )
