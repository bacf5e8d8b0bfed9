"""What is trained? A cross-encoder that reads a pair, and a bi-encoder with its head."""

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from model.faults import TrainingFault
from model.head import HeadKind
from model.tokens import Arrays, PairTokenizer, SentenceTokenizer, Tokens, plan_batches
from model.training.attention import MIXED, MixedBert
from model.training.attention_recipe import attention_of
from model.training.branch import BranchedBert
from model.training.network_recipe import HeadRecipe, NetworkRecipe
from model.training.pairs import Pair
from model.training.static import StaticBody, vocabulary_embeddings

Inputs = dict[str, Tensor]
"""input_ids, attention_mask and, for pairs, token_type_ids: (texts, tokens) int64."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
CHARACTERS_PER_BATCH = 16_384  # about four a token
TOKENS_PER_BATCH = 4096


class MlpHead(nn.Module):
    """The DSE head on [u, v, u*v, abs(u - v)]: Linear, ReLU, Linear (arXiv 1908.05161).

    The first layer's weights for u and v are one matrix, so head(u, v) = head(v, u) exactly. If the head is
    ``directed`` they are two, as published: ``either`` + ``order`` for u and ``either`` - ``order`` for v, that is, the
    head reads u - v with its sign as well.

    The head starts as the cosine: its first hidden unit is the sum of u*v (kept positive by a bias) and the output
    reads that unit alone. Of several outputs, one a class, the first starts so, and the others near zero.
    """

    kind: HeadKind = "mlp"

    def __init__(self, dim: int, hidden: int, outputs: int = 1, directed: bool = False) -> None:
        super().__init__()
        self.directed = directed
        self.either = nn.Linear(dim, hidden, bias=False)
        self.product = nn.Linear(dim, hidden, bias=False)
        self.difference = nn.Linear(dim, hidden)
        self.output = nn.Linear(hidden, outputs)
        if directed:
            self.order = nn.Linear(dim, hidden, bias=False)
        with torch.no_grad():
            self.either.weight[0] = 0.0
            self.product.weight[0] = 1.0
            self.difference.weight[0] = 0.0
            self.difference.bias[0] = 1.0
            self.output.weight[:] *= 0.1
            self.output.weight[:, 0] = 0.0
            self.output.weight[0, 0] = 6.0
            self.output.bias[:] = 0.0
            self.output.bias[0] = -9.6
            if directed:
                self.order.weight[0] = 0.0

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(pairs,) logits of (pairs, dim) embeddings; (pairs, outputs) of several outputs."""
        hidden = self.either(left + right) + self.product(left * right) + self.difference((left - right).abs())
        if self.directed:
            hidden = hidden + self.order(left - right)
        return self.output(hidden.relu()).squeeze(-1)


class QuadraticHead(nn.Module):
    """``sum of a_i (u_i + v_i) + c_i u_i v_i + d_i (u_i - v_i)^2``, plus a bias.

    It starts as the cosine, on the scale where :class:`MlpHead` starts: a and d are 0, c is 6.
    """

    kind: HeadKind = "quadratic"
    directed = False

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


TrainedHead = MlpHead | QuadraticHead


def head_of(recipe: HeadRecipe, dim: int) -> TrainedHead | None:
    """A head of the recipe's kind for (pairs, dim) embeddings, as its class starts it; None is the cosine."""
    if recipe.kind == "mlp":
        return MlpHead(dim, recipe.hidden, recipe.outputs, recipe.directed)
    return QuadraticHead(dim) if recipe.kind == "quadratic" else None


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """(texts, dim) unit-length means of (texts, tokens, dim) over the tokens that are not padding."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return functional.normalize(mean, dim=-1)


@dataclass(frozen=True)
class Answers:
    """What a network says of pairs. The fields are parallel; each has a row a pair."""

    logit: Tensor  # (pairs,) the head's, or (pairs, outputs); without a head, what the network ranks by
    similarity: Tensor  # (pairs,) cosine of left and right; the logit where nothing is compared
    left: Tensor | None  # (pairs, dim) unit embeddings, or segment means
    right: Tensor | None


def mixed_precision(recipe: NetworkRecipe) -> AbstractContextManager[None]:
    """Runs bodies in bfloat16 where the recipe asks for it and the processor has kernels for it, else in float32.

    Without such kernels bfloat16 is emulated, a hundred times slower than float32.
    """
    wanted = recipe.precision == "bf16"
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted and computes_bfloat16())


@cache
def computes_bfloat16() -> bool:
    """Whether this processor has instructions (AVX-512, AMX, Arm BF16) that oneDNN computes bfloat16 with."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _compared(head: TrainedHead | None, left: Tensor, right: Tensor) -> Answers:
    """What a head says of pairs: in float32, for what is alike differs by less than bfloat16 can tell."""
    with torch.autocast(left.device.type, enabled=False):
        cosines = (left * right).sum(-1)
        return Answers(cosines if head is None else head(left, right), cosines, left, right)


class BiEncoder(nn.Module):
    """A student: one body for both sentences, mean pooling, unit length; a head over the embeddings, or the cosine."""

    def __init__(self, body: PreTrainedModel, head: TrainedHead | None, tokenizer: SentenceTokenizer) -> None:
        super().__init__()
        self.body, self.head, self.tokenizer = body, head, tokenizer

    @property
    def dims(self) -> int:
        """Width of an embedding."""
        return int(self.body.config.hidden_size)

    @property
    def head_kind(self) -> HeadKind:
        """What compares two embeddings."""
        return self.head.kind if self.head is not None else "cosine"

    def inputs(self, texts: Sequence[str]) -> Inputs:
        """What the body reads of texts: (texts, tokens), as wide as the longest."""
        return _tensors(self.tokenizer.padded(self.tokenizer.tokenize(texts)))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(texts, dim) unit embeddings, with gradients where they are enabled."""
        return self._embedded(self.inputs(texts))

    def _embedded(self, inputs: Inputs) -> Tensor:
        hidden = self.body(**inputs).last_hidden_state
        return mean_pool(hidden.float(), inputs["attention_mask"])

    def embed_all(self, texts: Sequence[str]) -> Tensor:
        """(texts, dim) unit embeddings of any number of texts, without gradients and as in evaluation."""
        training, rows = self.training, torch.empty(len(texts), self.dims)
        self.eval()
        with torch.inference_mode():
            for batch in plan_batches([len(text) for text in texts], CHARACTERS_PER_BATCH):
                rows[batch] = self.embed([texts[row] for row in batch])
        self.train(training)
        return rows

    def embed_tokens(self, tokens: Tokens) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings of tokenised texts, without gradients and as in evaluation."""
        training, rows = self.training, np.empty((len(tokens), self.dims), np.float32)
        self.eval()
        with torch.inference_mode():
            for batch in plan_batches(tokens.lengths, TOKENS_PER_BATCH):
                rows[batch] = self._embedded(_tensors(self.tokenizer.padded(tokens, batch))).numpy()
        self.train(training)
        return rows

    def compare(self, left: Tensor, right: Tensor) -> Answers:
        """What the student says of pairs whose (pairs, dim) embeddings are known."""
        return _compared(self.head, left, right)

    def forward(self, pairs: Sequence[Pair]) -> Answers:
        """What the student says of pairs."""
        both = self.embed([pair.left for pair in pairs] + [pair.right for pair in pairs])
        return self.compare(both[: len(pairs)], both[len(pairs) :])


class CrossEncoder(nn.Module):
    """A teacher: reads both sentences together and answers one logit.

    With an :class:`MlpHead` it compares the mean states of the two segments, each read with the other in sight, as a
    student's head compares two embeddings. Started from a sentence encoder it is a fair scorer before any training,
    and with few pairs it ends well above a classifier that starts at random. Without one, ``body`` is a sequence
    classifier of transformers with one label.
    """

    def __init__(self, body: PreTrainedModel, head: TrainedHead | None, tokenizer: PairTokenizer) -> None:
        super().__init__()
        self.body, self.head, self.tokenizer = body, head, tokenizer

    def read(self, inputs: Inputs) -> Answers:
        """What it says of padded pairs."""
        if self.head is None:
            logit = self.body(**inputs).logits.float().squeeze(-1)
            return Answers(logit, logit, None, None)
        hidden = self.body(**inputs).last_hidden_state.float()
        second = inputs["token_type_ids"] * inputs["attention_mask"]
        return _compared(
            self.head,
            mean_pool(hidden, inputs["attention_mask"] - second),
            mean_pool(hidden, second),
        )

    def forward(self, pairs: Sequence[Pair]) -> Answers:
        """What it says of pairs, each read in the order given."""
        tokens = self.tokenizer.tokenize([(pair.left, pair.right) for pair in pairs])
        return self.read(_tensors(self.tokenizer.padded(tokens)))


Network = BiEncoder | CrossEncoder

_HUB_ID = re.compile(r"(?!runs/)[\w-][\w.-]*(/[\w.-]+)?")
"""``owner/name``, or a name alone; what recipes train is kept below ``runs/``."""


def weights_of(source: str, instead: str | None) -> str:
    """Where a recipe's weights are read: ``instead`` is a folder that stands for its hub ids, not for its folders.

    Raises:
        TrainingFault: the recipe names a folder that is not there.
    """
    if Path(source).is_dir():
        return source
    if not _HUB_ID.fullmatch(source):
        raise TrainingFault(f"{source} is not there: train it first, or start where it is (docs/training.md)")
    return source if instead is None else instead


@dataclass(frozen=True)
class Sources:
    """Where the weights are read that a run needs, each a folder or a hub id."""

    start: str  # of the network
    origin: str  # that it keeps of: where it starts, unless the recipe names another
    guide: str  # whose embeddings and states it is drawn to: the origin's, unless the recipe names another

    @classmethod
    def of(cls, recipe: NetworkRecipe, instead: str | None) -> Self:
        """Those of a recipe. ``instead`` is that of :func:`weights_of`, which says what is refused."""
        start = weights_of(recipe.init, instead)
        origin = start if recipe.origin is None else weights_of(recipe.origin, instead)
        return cls(start, origin, origin if recipe.guide is None else weights_of(recipe.guide, instead))


def make_network(recipe: NetworkRecipe, init: Path | str) -> Network:
    """A fresh network from pretrained weights: ``init`` is a local folder or a hub id.

    Raises:
        TrainingFault: there are no such weights, they are not a transformer's, or they lack what the recipe asks for.
    """
    if recipe.body == "static":
        # a table reads texts of any length; its transformer reads single words here
        read_by = make_network(recipe.model_copy(update={"body": "transformer", "max_tokens": 8}), init).eval()
        assert isinstance(read_by, BiEncoder)  # recipes give a static body to no other
        rows = vocabulary_embeddings(read_by.body, read_by.tokenizer)
        tokenizer = SentenceTokenizer.load(tokenizer_files(init)[0], recipe.max_tokens)
        return BiEncoder(StaticBody.of_rows(rows), read_by.head, tokenizer)
    network = _network_of(recipe, init)
    if recipe.layers is not None:
        _keep_layers(network.body, recipe.layers)
    if isinstance(network.body, MixedBert):
        _mix(network.body, recipe)
    if isinstance(network.body, BranchedBert) and recipe.branch is not None:
        network.body.start()
    check_length(network.body, recipe.max_tokens)
    _check_prefixes(network.body, recipe)
    _freeze(network.body, recipe)
    if isinstance(network, CrossEncoder) and network.head is not None:
        if getattr(network.body.config, "type_vocab_size", 1) < 2:
            raise TrainingFault(
                f"{init} is of kind {network.body.config.model_type} and tells no two segments apart, which its head "
                'would compare: give the recipe head = { kind = "classifier" }'
            )
        with torch.no_grad():  # a sentence encoder never saw the second segment's embedding
            segments = network.body.get_parameter("embeddings.token_type_embeddings.weight")
            segments[1] = segments[0]
    return network


def _network_of(recipe: NetworkRecipe, source: Path | str) -> Network:
    """The network of a recipe with the weights of ``source``; a head starts as its class starts it."""
    tokenizer_file = tokenizer_files(source)[0]
    body = _body_of(recipe, source)
    if body.config.model_type == "bert":
        body.set_attn_implementation(MIXED)
    if recipe.recompute:
        body.activation_checkpointing_enable()
    head = head_of(recipe.head, body.config.hidden_size)
    if recipe.kind == "bi-encoder":
        return BiEncoder(body, head, SentenceTokenizer.load(tokenizer_file, recipe.max_tokens))
    return CrossEncoder(body, head, PairTokenizer.load(tokenizer_file, recipe.max_tokens))


def _body_of(recipe: NetworkRecipe, source: Path | str) -> PreTrainedModel:
    """The pretrained transformer, or the table made of one: safetensors only, and no code but transformers' own."""
    if recipe.body == "static":
        return StaticBody.from_pretrained(source, use_safetensors=True)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        for share, names in (
            (recipe.dropout, ("hidden_dropout_prob", "dropout", "seq_classif_dropout")),
            (recipe.attention_dropout, ("attention_probs_dropout_prob", "attention_dropout")),
        ):
            for name in names:  # BERT's, then DistilBERT's
                if hasattr(config, name):
                    setattr(config, name, share)
        if (ours := _own_kind(recipe, config, source)) is not None:
            return ours.from_pretrained(source, config=config, use_safetensors=True)
        if recipe.head.kind != "classifier":
            return _without_pooler(config, source)
        if not any(name.endswith("SequenceClassification") for name in config.architectures or ()):
            config.num_labels = 1  # a new classifier, over a body that had none
        if config.num_labels != 1:
            raise TrainingFault(
                f"{source} answers {config.num_labels} labels a pair; a teacher answers one logit: "
                "give a cross-encoder of one label, or train one from a body without a classifier"
            )
        return AutoModelForSequenceClassification.from_pretrained(source, config=config, use_safetensors=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingFault(f"{source}: not a pretrained transformer ({error}); give its folder with --init") from error


def _without_pooler(config: PretrainedConfig, source: Path | str) -> PreTrainedModel:
    try:
        return AutoModel.from_pretrained(source, config=config, add_pooling_layer=False, use_safetensors=True)
    except TypeError as error:
        raise TrainingFault(
            f"{source} is of kind {config.model_type}: to embed texts, or to compare segments, give weights of BERT's "
            "kind, or of another whose pooling layer can be left out (roberta, mpnet, albert)"
        ) from error


def _own_kind(
    recipe: NetworkRecipe, config: PretrainedConfig, source: Path | str
) -> type[BranchedBert | MixedBert] | None:
    """The body that transformers does not have, if the recipe asks for one, or the weights are such a one's.

    Facts that it asks for are put into the config.
    """
    branched = recipe.branch is not None or hasattr(config, "branch")
    mixed = recipe.attention is not None or recipe.positions is not None or hasattr(config, "attention_kinds")
    if not (branched or mixed):
        return None
    if config.model_type != "bert":
        raise TrainingFault(
            f"{source} is of kind {config.model_type}: attention, positions and a branch can be chosen for BERT's kind"
        )
    if branched and mixed:
        raise TrainingFault(f"{source}: a body with a branch has softmax attention and BERT's positions, or no branch")
    if recipe.branch is not None:
        config.branch = recipe.branch.model_dump()
    return BranchedBert if branched else MixedBert


def _keep_layers(body: PreTrainedModel, layers: Sequence[int]) -> None:
    """Leave these layers of a body, in this order (DistilBERT's initialisation, arXiv 1910.01108)."""
    every = body.base_model.get_submodule("encoder.layer")
    assert isinstance(every, nn.ModuleList)
    count = len(every) + (len(body.encoder.branch) if isinstance(body, BranchedBert) else 0)
    if missing := [number for number in layers if number >= count]:
        raise TrainingFault(f"layers {missing} asked for, but the initial weights have {count}, numbered from 0")
    if isinstance(body, BranchedBert):
        body.keep(layers)
    else:
        body.base_model.get_submodule("encoder").layer = nn.ModuleList(every[number] for number in layers)
    body.config.num_hidden_layers = len(layers)
    if isinstance(body, MixedBert):
        body.config.attention_kinds = [body.config.attention_kinds[number] for number in layers]


def _mix(body: MixedBert, recipe: NetworkRecipe) -> None:
    """Give a body the attention and the positions that a recipe asks for."""
    if recipe.attention is not None:
        try:
            body.use_attention(attention_of(recipe.attention, body.config.num_hidden_layers))
        except ValueError as error:
            raise TrainingFault(f"{recipe.name}: {error}") from error
    if recipe.positions is not None:
        body.extend_positions(recipe.positions)


def _freeze(body: PreTrainedModel, recipe: NetworkRecipe) -> None:
    if "embeddings" in recipe.frozen:
        body.base_model.embeddings.requires_grad_(False)
        if isinstance(body, MixedBert) and recipe.positions is not None:
            body.open_positions()
    if isinstance(body, BranchedBert) and recipe.branch is not None:
        body.train_branch_alone()


def check_length(body: PreTrainedModel, max_tokens: int) -> None:
    """Refuse to read more tokens than a body has positions for.

    Raises:
        TrainingFault: it has fewer; a static body has none, and reads any number.
    """
    positions = getattr(body.config, "max_position_embeddings", None)
    if positions is not None and max_tokens > positions:
        raise TrainingFault(
            f"max_tokens is {max_tokens}, but the body has {positions} positions: ask for less, or train one with "
            f"positions = {{ tokens = {max_tokens} }}"
        )


def _check_prefixes(body: PreTrainedModel, recipe: NetworkRecipe) -> None:
    if stray := [dims for dims in recipe.matryoshka if dims >= body.config.hidden_size]:
        raise TrainingFault(
            f"matryoshka names {stray}, but embeddings of {body.config.hidden_size} dims are cut to fewer: name fewer"
        )


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
    folder.mkdir(parents=True, exist_ok=True)
    network.body.save_pretrained(folder)
    for source in tokenizer_files(init):
        (folder / source.name).write_bytes(source.read_bytes())
    if network.head is not None:
        save_file(network.head.state_dict(), folder / "head.safetensors")
    (folder / "network.json").write_text(recipe.model_dump_json(indent=2), "utf-8")


def load_network(folder: Path) -> tuple[Network, NetworkRecipe]:
    """A network that :func:`save_network` wrote, in evaluation mode.

    Raises:
        TrainingFault: it is not whole.
    """
    try:
        recipe = NetworkRecipe.model_validate(json.loads((folder / "network.json").read_text("utf-8")))
        network = _network_of(recipe, folder)
        _freeze(network.body, recipe)
        if network.head is not None:
            network.head.load_state_dict(load_file(folder / "head.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingFault(f"{folder} is damaged ({error}); remove it, and run what trained it again") from error
    return network.eval(), recipe


def _tensors(inputs: Arrays) -> Inputs:
    return {name: torch.as_tensor(array) for name, array in inputs.items()}
