"""Where should the embedding of a text stay? An encoder that is imitated, asked once about every text."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle import MANIFEST, load_student
from model.encoder import whole_embeddings
from model.manifest import sha256_of
from model.tokens import SentenceTokenizer
from model.training.network_recipe import NetworkRecipe
from model.training.networks import BiEncoder, make_network, mixed_precision, tokenizer_files

TEXTS_PER_CHUNK = 8192

Embed = Callable[[Sequence[str]], NDArray[np.floating]]


def guide_embeddings(
    recipe: NetworkRecipe,
    source: Path | str,
    texts: Sequence[str],
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> NDArray[np.float16]:
    """(texts, dim) unit embeddings of the encoder that a recipe's regression imitates (LEAF, arXiv 2509.12539).

    They are written to ``folder`` once, in chunks; a run that stopped goes on with the chunk it was at.

    Args:
        recipe: says where texts are cut, and in which precision weights compute.
        source: a student's bundle (its int8 graph is asked), or pretrained weights: a folder or a hub id.
        texts: each is embedded alone; a text longer than the guide reads is cut, or, with ``recipe.guide_pieces``, the
            mean of its pieces.
        folder: where the chunks are kept; chunks of another guide or of other texts are left alone and not used.
        progress: told the step, and how many texts are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embed: Embed | None = None
    chunks = []
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        chunk = texts[start : start + TEXTS_PER_CHUNK]
        path = folder / f"{_digest(source, recipe, chunk)}.npy"
        if not path.exists():
            embed = embed or _encoder(recipe, source)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, embed(chunk).astype(np.float16))
            partial.replace(path)
        chunks.append(np.load(path))
        progress("guide", start + len(chunk), len(texts))
    return np.concatenate(chunks)


def _digest(source: Path | str, recipe: NetworkRecipe, texts: Sequence[str]) -> str:
    bundle = (Path(source) / MANIFEST).exists()  # it computes as it was exported, whatever the recipe's precision
    weights = Path(source) / (MANIFEST if bundle else "model.safetensors")
    read = f"pieces of {recipe.max_tokens}" if recipe.guide_pieces else f"{recipe.max_tokens}"
    if recipe.precision != "bf16" and not bundle:  # bf16 goes unnamed, as before any was named
        read += f" in {recipe.precision}"
    seen = hashlib.sha256(f"{sha256_of(weights) if weights.exists() else source} {read}\n".encode())
    for text in texts:
        seen.update(text.encode() + b"\n")
    return seen.hexdigest()[:32]


def _encoder(recipe: NetworkRecipe, source: Path | str) -> Embed:
    if (Path(source) / MANIFEST).exists():
        encoder = load_student(Path(source), torch.get_num_threads()).encoder
        return encoder.encode_whole if recipe.guide_pieces else encoder.encode
    # read with few tokens at first: a student may be about to learn more positions than its guide has
    changes = {"kind": "bi-encoder", "max_tokens": 8}
    network = make_network(recipe.as_initial.model_copy(update=changes), source)
    assert isinstance(network, BiEncoder)
    positions = getattr(network.body.config, "max_position_embeddings", recipe.max_tokens)
    tokenizer = SentenceTokenizer.load(tokenizer_files(source)[0], min(recipe.max_tokens, positions))
    network.tokenizer = tokenizer

    def embed(texts: Sequence[str]) -> NDArray[np.floating]:
        with mixed_precision(recipe):
            if recipe.guide_pieces:
                return whole_embeddings(tokenizer, network.embed_tokens, texts)
            return network.embed_all(texts).numpy()

    return embed
