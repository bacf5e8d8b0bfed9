"""How is one network trained, recipe to folder, so that a run that stopped is taken up again, and no other run is?"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from model.faults import TrainingFault
from model.manifest import digests_of, sha256_of
from model.tokens import plan_batches
from model.training.branch import BRANCH, BranchedBert
from model.training.imitation import Imitation
from model.training.language import Vocabulary, fit_mlm_head
from model.training.network_recipe import NetworkRecipe, Stage
from model.training.networks import (
    CHARACTERS_PER_BATCH,
    TOKENIZER_FILES,
    BiEncoder,
    Network,
    head_of,
    load_network,
    make_network,
    save_network,
    tokenizer_files,
)
from model.training.static import StaticBody, token_counts
from model.training.trainer import Material, Progress, check_aims, steps_of, train_stage

CLAIM = "run.json"
"""In a run's folder: what decides its weights. A run is only taken up with the same."""
NETWORK_FILES = ("model.safetensors", "config.json", "network.json")
"""What a run writes of a network, and any other network has, too."""
MERGED_OVER = 16_384
"""Texts that decide how a branch is merged, at most: many times what their second moments need."""


def train_network(
    recipe: NetworkRecipe,
    init: Path | str,
    stages: Sequence[Material],
    folder: Path,
    progress: Progress,
    origin: Path | str | None = None,
    guide: Path | str | None = None,
) -> Network:
    """Train one network through the stages of its recipe.

    A folder left by a run that stopped is taken up where it stopped; a finished one is only read.

    Args:
        recipe: what to train.
        init: local folder or hub id of the pretrained weights.
        stages: what each stage of the recipe learns from, in its order.
        folder: where the network is written; what a finished stage left there is removed at the end.
        progress: told the stage and its steps.
        origin: the weights that ``keep_initial`` averages in; ``init`` if left out.
        guide: those that ``imitation`` looks to; if left out, the recipe's, or else ``origin``.

    Raises:
        TrainingFault: the folder holds another run (of another recipe, on other material, from other weights, or drawn
            to others), or a network that no run left there; or a stage has nothing to learn from, or aims at embeddings
            of another width.
    """
    _check_stages(recipe, stages)
    origin = origin or init
    guide = guide or recipe.guide or origin
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, _decisive(recipe, init, origin, guide) | {"material": _digest_of(stages)})
    if (folder / "network.json").exists():
        return load_network(folder)[0]
    torch.manual_seed(recipe.seed)
    network = make_network(recipe, init).eval()
    if isinstance(network, BiEncoder) and isinstance(network.body, StaticBody):
        network.body.weigh(token_counts(network.tokenizer, _texts_of(stages), network.body.config.vocab_size))
    for stage, material in zip(recipe.stages, stages, strict=True):
        check_aims(network, stage, material)
    if recipe.branch is not None or recipe.body_stages == 0:
        keep_initial(network, recipe, origin)
    for number, (stage, material) in enumerate(zip(recipe.stages, stages, strict=True)):
        finished, checkpoint = folder / f"stage-{number}", folder / f"stage-{number}.safetensors"
        if (finished / "network.json").exists():
            network = load_network(finished)[0]
            continue
        _draw_from(recipe, f"stage {number}")  # what a stage draws is the same though an earlier one was only read
        imitation = _imitation(network, recipe, stage, material, guide, progress)
        train_stage(network, recipe, stage, material, checkpoint, progress, imitation)
        if number + 1 == recipe.body_stages:
            if isinstance(network, BiEncoder) and isinstance(network.body, BranchedBert):
                _merge(network, network.body, recipe, stages[: recipe.body_stages])
            else:
                keep_initial(network, recipe, origin)
        save_network(network, recipe, init, finished)
        checkpoint.unlink(missing_ok=True)
    save_network(network, recipe, init, folder)
    for number in range(len(stages)):
        shutil.rmtree(folder / f"stage-{number}")
    return network


def _check_stages(recipe: NetworkRecipe, stages: Sequence[Material]) -> None:
    for stage, material in zip(recipe.stages, stages, strict=True):
        if not steps_of(material, stage):
            raise TrainingFault(f"{recipe.name}: stage {stage.name} has nothing to learn from; its files have no rows")


def _imitation(
    network: Network,
    recipe: NetworkRecipe,
    stage: Stage,
    material: Material,
    source: Path | str,
    progress: Progress,
) -> Imitation | None:
    """What a stage asks of a network's body: to work as the guide's does, whose weights are at ``source``."""
    if stage.imitation is None:
        return None
    guide = make_network(recipe.as_initial, source)
    vocabulary = Vocabulary.load(tokenizer_files(source)[0])
    head = None
    if "soft-targets" in stage.imitation.weights:
        assert isinstance(guide, BiEncoder)  # recipes give texts to no other
        texts = [target.text for target in material.texts]
        rows = [texts[at : at + stage.text_batch] for at in range(0, len(texts), stage.text_batch)]
        batches = [guide.inputs(row) for row in rows[: stage.imitation.mlm_head_steps]]
        head = fit_mlm_head(
            guide.body,
            batches,
            vocabulary,
            stage.imitation.mlm_head_steps,
            recipe.seed,
            progress=lambda done, total: progress(f"{stage.name}: head", done, total),
        )
    return Imitation(stage.imitation, network.body, guide.body, vocabulary, head)


def _draw_from(recipe: NetworkRecipe, part: str) -> None:
    """Seed torch for one part of a run."""
    seed = hashlib.sha256(f"{recipe.seed}/{part}".encode()).digest()[:8]
    torch.manual_seed(int.from_bytes(seed))


def _merge(network: BiEncoder, body: BranchedBert, recipe: NetworkRecipe, stages: Sequence[Material]) -> None:
    """Merge a trained branch with its body, over what it was trained on; a head for what came out starts anew."""
    texts = _texts_of(stages)
    texts = texts[:: -(-len(texts) // MERGED_OVER)]
    batches = plan_batches([len(text) for text in texts], CHARACTERS_PER_BATCH)
    body.merge([network.inputs([texts[row] for row in batch]) for batch in batches])
    _draw_from(recipe, "merged head")
    network.head = head_of(recipe.head, network.dims)


def _texts_of(stages: Sequence[Material]) -> list[str]:
    """Every text that a run learns from, once."""
    pairs = [example.pair for stage in stages for example in stage.examples]
    texts = [target.text for stage in stages for target in stage.texts]
    return list(dict.fromkeys([*(text for pair in pairs for text in (pair.left, pair.right)), *texts]))


def network_digest(folder: Path) -> str:
    """One digest for what decides a network's answers: weights, configuration, tokenizer."""
    names = ["model.safetensors", "head.safetensors", "config.json", "network.json", *TOKENIZER_FILES]
    digests = digests_of(folder, [name for name in names if (folder / name).exists()])
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def weights_digest(init: Path | str) -> str:
    """Sha256 of the weights in a local folder; a hub id stands for itself."""
    weights = Path(init) / "model.safetensors"
    return sha256_of(weights) if weights.exists() else str(init)


def keep_initial(network: Network, recipe: NetworkRecipe, origin: Path | str) -> None:
    """Average a bi-encoder's body with the weights it came from (WiSE-FT, Wortsman et al., arXiv 2109.01903).

    A branch is left as it is.
    """
    if recipe.keep_initial == 0:
        return
    initial = make_network(recipe, origin).body.state_dict()
    for name, tensor in network.body.state_dict().items():
        if tensor.is_floating_point() and not name.startswith(BRANCH):
            tensor.lerp_(initial[name], recipe.keep_initial)


def check_folder(folder: Path, recipe: NetworkRecipe, init: Path | str, origin: Path | str, guide: Path | str) -> None:
    """See that a folder is free for a run, or holds it, as far as that is known before its material is made.

    Raises:
        TrainingFault: it holds another run, or a network that no run left there.
    """
    _begun(folder, _decisive(recipe, init, origin, guide))


def _decisive(recipe: NetworkRecipe, init: Path | str, origin: Path | str, guide: Path | str) -> dict[str, Any]:
    """What decides a run's weights, beside its material."""
    claim: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "init": weights_digest(init)}
    if recipe.keep_initial:
        claim["origin"] = weights_digest(origin)
    if any(stage.imitation for stage in recipe.stages):
        claim["guide"] = weights_digest(guide)
    return claim


def _digest_of(stages: Sequence[Material]) -> str:
    """One digest of all that a run learns from."""
    seen = hashlib.sha256()
    for stage in stages:
        for example in stage.examples:
            seen.update(f"{example.pair.digest} {example.gold!r} {example.teacher!r}\n".encode())
        for target in stage.texts:
            seen.update(target.text.encode() + (b"" if target.embedding is None else target.embedding.tobytes()))
        seen.update(b"end of stage\n")
    return seen.hexdigest()


def _claim(folder: Path, claim: dict[str, Any]) -> None:
    """Write what decides the run into its folder, or see that the same is there."""
    if not _begun(folder, claim):
        partial = folder / f"{CLAIM}.partial"
        partial.write_text(json.dumps(claim, indent=2), "utf-8")
        partial.replace(folder / CLAIM)


def _begun(folder: Path, claim: dict[str, Any]) -> bool:
    """Whether this run was begun in a folder; refuses one that holds another, or a network that is none's."""
    try:
        found = json.loads((folder / CLAIM).read_text("utf-8"))
    except FileNotFoundError:
        if held := [name for name in NETWORK_FILES if (folder / name).exists()]:
            raise TrainingFault(
                f"{folder} holds {held[0]} and no {CLAIM}, so it is no run of DSE's; name another --output"
            ) from None
        return False
    found["recipe"] = _as_read_today(found.get("recipe"))
    if other := sorted(name for name in claim if found.get(name) != claim[name]):
        raise TrainingFault(
            f"{folder} holds another run (its {' and '.join(other)} differ); name another --output, or remove it"
        )
    return True


def _as_read_today(recipe: Any) -> Any:
    """A recipe as it was written, with what recipes have learned to say since at its default."""
    try:
        return NetworkRecipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe
