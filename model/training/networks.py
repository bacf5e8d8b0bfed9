"""What is trained? A cross-encoder that reads a pair, and a bi-encoder with its head."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from model.tokens import Arrays, PairTokenizer, SentenceTokenizer
from model.training.pairs import Pair
from model.training.recipes import HeadRecipe, NetworkRecipe

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


class CosineHead(nn.Module):
    """An affine of the cosine, for students whose similarity is all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(6.0))
        self.intercept = nn.Parameter(torch.tensor(-3.6))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(pairs,) logits of (pairs, dim) unit embeddings."""
        return self.slope * (left * right).sum(-1) + self.intercept


def make_head(recipe: HeadRecipe, dim: int) -> nn.Module:
    """The head a recipe asks for."""
    return MlpHead(dim, recipe.hidden) if recipe.kind == "mlp" else CosineHead()


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """(texts, dim) unit-length means of (texts, tokens, dim) over the tokens that are not padding."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return functional.normalize(mean, dim=-1)


class BiEncoder(nn.Module):
    """A student: one body for both sentences, mean pooling, unit length, and a head over the two embeddings."""

    def __init__(self, body: PreTrainedModel, head: nn.Module, tokenizer: SentenceTokenizer) -> None:
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
        """(pairs,) the head's logits and the cosines."""
        both = self.embed([pair.left for pair in pairs] + [pair.right for pair in pairs])
        left, right = both[: len(pairs)], both[len(pairs) :]
        return self.head(left, right), (left * right).sum(-1)


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
    """A fresh network from pretrained weights: ``init`` is a local folder or a hub id."""
    tokenizer_file = tokenizer_path(init)
    if recipe.kind == "cross-encoder":
        body = AutoModelForSequenceClassification.from_pretrained(init, num_labels=1, use_safetensors=True)
        return CrossEncoder(body, PairTokenizer.load(tokenizer_file, recipe.max_tokens))
    body = AutoModel.from_pretrained(init, add_pooling_layer=False, use_safetensors=True)
    tokenizer = SentenceTokenizer.load(tokenizer_file, recipe.max_tokens)
    return BiEncoder(body, make_head(recipe.head, body.config.hidden_size), tokenizer)


def tokenizer_path(init: Path | str) -> Path:
    """Where the tokenizer of a local folder or a hub id lies."""
    if Path(init).is_dir():
        return Path(init) / "tokenizer.json"
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(str(init), "tokenizer.json"))


def save_network(network: Network, recipe: NetworkRecipe, init: Path | str, folder: Path) -> None:
    """Write a network as a Hugging Face folder, its head and recipe beside it."""
    network.body.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        source = tokenizer_path(init).with_name(name)
        if source.exists():
            (folder / name).write_bytes(source.read_bytes())
    if isinstance(network, BiEncoder):
        save_file(network.head.state_dict(), folder / "head.safetensors")
    (folder / "network.json").write_text(recipe.model_dump_json(indent=2), "utf-8")


def load_network(folder: Path) -> tuple[Network, NetworkRecipe]:
    """A network that :func:`save_network` wrote, in evaluation mode."""
    recipe = NetworkRecipe.model_validate(json.loads((folder / "network.json").read_text("utf-8")))
    network = make_network(recipe, folder)
    if isinstance(network, BiEncoder):
        network.head.load_state_dict(load_file(folder / "head.safetensors"))
    return network.eval(), recipe


def _tensors(inputs: Arrays) -> Inputs:
    return {name: torch.as_tensor(array) for name, array in inputs.items()}
