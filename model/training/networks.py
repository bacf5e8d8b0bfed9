"""What is trained? A cross-encoder that reads a pair, and a bi-encoder with its head."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from model.faults import TrainingFault
from model.tokens import Arrays, PairTokenizer, SentenceTokenizer
from model.training.pairs import Pair
from model.training.recipes import NetworkRecipe

Inputs = dict[str, Tensor]
"""input_ids, attention_mask and, for pairs, token_type_ids: (texts, tokens) int64."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class MlpHead(nn.Module):
    """The DSE head on [u, v, u*v, abs(u - v)]: Linear, ReLU, Linear (arXiv 1908.05161).

    The first layer's weights for u and v are one matrix, so head(u, v) = head(v, u) exactly. The head starts as the
    cosine: its first hidden unit is the sum of u*v (kept positive by a bias) and the output reads that unit alone.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.either = nn.Linear(dim, hidden, bias=False)
        self.product = nn.Linear(dim, hidden, bias=False)
        self.difference = nn.Linear(dim, hidden)
        self.output = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.either.weight[0] = 0.0
            self.product.weight[0] = 1.0
            self.difference.weight[0] = 0.0
            self.difference.bias[0] = 1.0
            self.output.weight[:] *= 0.1
            self.output.weight[0, 0] = 6.0
            self.output.bias[:] = -9.6

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(pairs,) logits of (pairs, dim) embeddings."""
        hidden = self.either(left + right) + self.product(left * right) + self.difference((left - right).abs())
        return self.output(hidden.relu()).squeeze(-1)


class QuadraticHead(nn.Module):
    """``sum of a_i (u_i + v_i) + c_i u_i v_i + d_i (u_i - v_i)^2``, plus a bias.

    It starts as the cosine, on the scale where :class:`MlpHead` starts: a and d are 0, c is 6.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.zeros(dim))
        self.product = nn.Parameter(torch.full((dim,), 6.0))
        self.difference = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.tensor([-3.6]))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(pairs,) logits of (pairs, dim) embeddings."""
        return (
            (left + right) @ self.linear
            + (left * right) @ self.product
            + (left - right).square() @ self.difference
            + self.bias
        )


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """(texts, dim) unit-length means of (texts, tokens, dim) over the tokens that are not padding."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return functional.normalize(mean, dim=-1)


class BiEncoder(nn.Module):
    """A student: one body for both sentences, mean pooling, unit length; a head over the embeddings, or the cosine."""

    def __init__(self, body: PreTrainedModel, head: MlpHead | None, tokenizer: SentenceTokenizer) -> None:
        super().__init__()
        self.body, self.head, self.tokenizer = body, head, tokenizer

    @property
    def dims(self) -> int:
        """Width of an embedding."""
        return int(self.body.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(texts, dim) unit embeddings, with gradients where they are enabled."""
        inputs = _tensors(self.tokenizer.padded(self.tokenizer.tokenize(texts)))
        hidden = self.body(**inputs).last_hidden_state
        return mean_pool(hidden.float(), inputs["attention_mask"])

    def forward(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(pairs,) the head's logits and the cosines; without a head, the cosines twice."""
        both = self.embed([pair.left for pair in pairs] + [pair.right for pair in pairs])
        left, right = both[: len(pairs)], both[len(pairs) :]
        cosines = (left * right).sum(-1)
        return cosines if self.head is None else self.head(left, right), cosines


class CrossEncoder(nn.Module):
    """A teacher: reads both sentences together and answers one logit."""

    def __init__(self, body: PreTrainedModel, tokenizer: PairTokenizer) -> None:
        super().__init__()
        self.body, self.tokenizer = body, tokenizer

    def forward(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(pairs,) logits, given twice: a cross-encoder's logit is also what it ranks by."""
        tokens = self.tokenizer.tokenize([(pair.left, pair.right) for pair in pairs])
        logit = self.body(**_tensors(self.tokenizer.padded(tokens))).logits.float().squeeze(-1)
        return logit, logit


Network = BiEncoder | CrossEncoder


def make_network(recipe: NetworkRecipe, init: Path | str) -> Network:
    """A fresh network from pretrained weights: ``init`` is a local folder or a hub id.

    Raises:
        TrainingFault: there are no such weights, or they are not a transformer's.
    """
    tokenizer_file = tokenizer_files(init)[0]
    try:
        if recipe.kind == "cross-encoder":
            body = AutoModelForSequenceClassification.from_pretrained(init, num_labels=1, use_safetensors=True)
            return CrossEncoder(body, PairTokenizer.load(tokenizer_file, recipe.max_tokens))
        body = AutoModel.from_pretrained(init, add_pooling_layer=False, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise TrainingFault(f"{init}: not a pretrained transformer ({error}); give its folder with --init") from error
    head = MlpHead(body.config.hidden_size, recipe.head.hidden) if recipe.head.kind == "mlp" else None
    return BiEncoder(body, head, SentenceTokenizer.load(tokenizer_file, recipe.max_tokens))


def tokenizer_files(init: Path | str) -> list[Path]:
    """``tokenizer.json`` and ``tokenizer_config.json`` of a local folder or a hub id.

    Raises:
        TrainingFault: one of them is not there.
    """
    try:
        if Path(init).is_dir():
            paths = [Path(init) / name for name in TOKENIZER_FILES]
            for path in paths:
                path.stat()
            return paths
        from huggingface_hub import hf_hub_download

        return [Path(hf_hub_download(str(init), name)) for name in TOKENIZER_FILES]
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingFault(
            f"{init} is no folder with a pretrained model, nor one that could be fetched ({first}); "
            "give a folder with --init"
        ) from error


def save_network(network: Network, recipe: NetworkRecipe, init: Path | str, folder: Path) -> None:
    """Write a network as a Hugging Face folder, its head and recipe beside it."""
    network.body.save_pretrained(folder)
    for source in tokenizer_files(init):
        (folder / source.name).write_bytes(source.read_bytes())
    if isinstance(network, BiEncoder) and network.head is not None:
        save_file(network.head.state_dict(), folder / "head.safetensors")
    (folder / "network.json").write_text(recipe.model_dump_json(indent=2), "utf-8")


def load_network(folder: Path) -> tuple[Network, NetworkRecipe]:
    """A network that :func:`save_network` wrote, in evaluation mode."""
    recipe = NetworkRecipe.model_validate(json.loads((folder / "network.json").read_text("utf-8")))
    network = make_network(recipe, folder)
    if isinstance(network, BiEncoder) and network.head is not None:
        network.head.load_state_dict(load_file(folder / "head.safetensors"))
    return network.eval(), recipe


def _tensors(inputs: Arrays) -> Inputs:
    return {name: torch.as_tensor(array) for name, array in inputs.items()}
