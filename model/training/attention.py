"""How does a token look at the others? By softmax, or by a feature map at a cost linear in tokens; layer by layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, BertConfig, BertModel, PreTrainedModel

from model.faults import TrainingFault
from model.training.attention_recipe import AttentionKind, PositionRecipe

EPSILON = 1e-6
"""Added to the sum of the weights: a query that no key answers (relu) gets zeros, not NaN."""

MIXED, PLAIN, BLOCKED = "dse-mixed", "dse-plain", "dse-blocked"
"""The attention of BERTs as transformers knows it: MIXED in training, of every BERT; the others in export.

In PLAIN, softmax layers are matmuls, for export; in BLOCKED, too, but of so many queries at a time.
"""

BLOCK = 512
"""Queries whose scores are held at once in BLOCKED: memory then grows with the tokens, and not with their square."""


class EluMap(nn.Module):
    """elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236, equation 7)."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., dim) positive features of (..., dim) queries or keys."""
        return functional.elu(vectors) + 1


class ReluMap(nn.Module):
    """max(x, 0)."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., dim) features of (..., dim) queries or keys."""
        return vectors.relu()


class HedgehogMap(nn.Module):
    """[softmax(Wx); softmax(-Wx)], one W a head, which starts as the identity (Zhang et al., arXiv 2402.04347)."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, dim, dim))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Start anew."""
        self.weight.copy_(torch.eye(self.weight.shape[-1]).expand_as(self.weight))

    def forward(self, vectors: Tensor) -> Tensor:
        """(texts, heads, tokens, 2 dim) positive features of (texts, heads, tokens, dim) queries or keys."""
        turned = vectors @ self.weight.transpose(-1, -2)
        return torch.cat([turned.softmax(-1), (-turned).softmax(-1)], dim=-1)


class FeatureMaps(nn.Module):
    """What makes a layer's attention linear: phi for its queries and phi for its keys.

    The weight of a key is phi(q).phi(k), divided by the sum over all keys. The sum over keys can then be taken before
    any query is looked at, so that no matrix of tokens by tokens is ever made.
    """

    def __init__(self, kind: AttentionKind, heads: int, dim: int) -> None:
        super().__init__()
        self.kind, self.used = kind, True
        self.query, self.key = (_map_of(kind, heads, dim) for _ in range(2))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(texts, heads, tokens, dim) means of the values, as each query weighs the keys.

        Sums over keys are taken as means: the same after the division, but as large for long texts as for short ones.
        That of the weights is one product with the values', which adds keys in their order: padding then changes no bit
        of a graph's answer, as it would where a reduction splits what it adds by how much there is. Next to int8 layers
        it matters: a last bit decides how a state is rounded.

        Args:
            query: (texts, heads, tokens, dim), as are ``key`` and ``value``.
            mask: (texts, 1, 1, tokens) bool, false at padding; None where there is none.
        """
        queries = self.query(query)  # (texts, heads, tokens, features)
        counted = torch.ones_like(key[:, :1, :, :1]) if mask is None else mask.transpose(-1, -2).to(key.dtype)
        keys = (self.key(key) * (counted / counted.sum(-2, keepdim=True))).transpose(-1, -2)
        states = keys @ torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)  # (texts, heads, features, dim + 1)
        weighed = queries @ states  # (texts, heads, tokens, dim + 1): sums of values, and of the weights
        return weighed[..., :-1] / (weighed[..., -1:] + EPSILON)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """(texts, heads, tokens, tokens) scores whose softmax are the weights: for losses, not for attention."""
        return (self.query(query) @ self.key(key).transpose(-1, -2) + EPSILON).log()


def _map_of(kind: AttentionKind, heads: int, dim: int) -> nn.Module:
    if kind == "hedgehog":
        return HedgehogMap(heads, dim)
    return EluMap() if kind == "elu" else ReluMap()


def _attend(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Any layer's attention; the weights of linear attention are never made, so its dropout has nothing to drop."""
    if (maps := maps_in_use(layer)) is not None:
        return _in_float32(maps, query, key, value, attention_mask).transpose(1, 2), None
    fused = partial(functional.scaled_dot_product_attention, dropout_p=dropout, scale=scaling)
    if query.device.type == "cpu":
        # Its bfloat16 kernel sets up a matrix product for each head of each text: a tenth as fast with short texts
        return _in_float32(fused, query, key, value, attention_mask).transpose(1, 2), None
    return fused(query, key, value, attention_mask).transpose(1, 2), None


def _attend_plainly(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """As :func:`_attend` in evaluation, in operations that a graph and its quantisation understand."""
    if (maps := maps_in_use(layer)) is not None:
        return maps(query, key, value, attention_mask).transpose(1, 2), None
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + (1 - attention_mask.to(scores.dtype)) * torch.finfo(scores.dtype).min
    return (scores.softmax(-1) @ value).transpose(1, 2), None


@torch.library.custom_op("dse::blocked_attention", mutates_args=())
def blocked_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """(texts, heads, tokens, dim) means of values by the softmax of query.key + bias, a block of queries at a time.

    One operation, so that an exporter may write it down in as many blocks as the longest text has.
    """
    turned = key.transpose(-1, -2)
    blocks = [query[:, :, start : start + BLOCK] for start in range(0, query.shape[2], BLOCK)]
    return torch.cat([(rows @ turned + bias).softmax(-1) @ value for rows in blocks], dim=2)


@blocked_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(query)


def _attend_in_blocks(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """As :func:`_attend_plainly`, with softmax layers in blocks."""
    if (maps := maps_in_use(layer)) is not None:
        return maps(query, key, value, attention_mask).transpose(1, 2), None
    mask = torch.ones_like(key[:, :1, :, 0])[:, :, None] if attention_mask is None else attention_mask.to(query.dtype)
    bias = (1 - mask) * torch.finfo(query.dtype).min
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return blocked_attention(scaled, key, value, bias).transpose(1, 2), None


def maps_in_use(layer: nn.Module) -> FeatureMaps | None:
    """The feature maps of a self-attention module; None where its attention is softmax."""
    maps = getattr(layer, "maps", None)
    return maps if isinstance(maps, FeatureMaps) and maps.used else None


def _in_float32(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """The attention of bodies that run in half precision. Linear attention needs it: it sums over thousands of keys."""
    if value.dtype not in (torch.bfloat16, torch.float16):
        return attend(query, key, value, mask)
    with torch.autocast(value.device.type, enabled=False):
        mixed = attend(query.float(), key.float(), value.float(), mask)
    return mixed.to(value.dtype)


def _key_mask(attention_mask: Tensor | None = None, **_: Any) -> Tensor | None:
    """(texts, 1, 1, tokens) of (texts, tokens), or none: what every query shares, and no square of the tokens."""
    return None if attention_mask is None else attention_mask[:, None, None, :].bool()


for _name, _function in ((MIXED, _attend), (PLAIN, _attend_plainly), (BLOCKED, _attend_in_blocks)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, _key_mask)


class Positions(nn.Embedding):
    """A position's row each, of which the first ``kept`` are never trained."""

    kept = 0

    def forward(self, ids: Tensor) -> Tensor:
        """(..., tokens, dim) rows of (..., tokens) positions."""
        rows = self.weight
        if self.kept and rows.requires_grad and torch.is_grad_enabled():
            rows = torch.cat([rows[: self.kept].detach(), rows[self.kept :]])
        return functional.embedding(ids, rows)


class MixedBert(BertModel):  # type: ignore[no-untyped-call]
    """A BERT whose layers may have linear attention, and which may have been given more positions.

    Its weights are those of a BERT, and beside them a learned feature map's where a layer has one: a checkpoint of
    either kind loads into the other. ``config.attention_kinds`` says the kind of each layer.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config, add_pooling_layer)
        positions = Positions(config.max_position_embeddings, config.hidden_size)
        positions.weight = self.embeddings.position_embeddings.weight
        self.embeddings.position_embeddings = positions
        kinds = getattr(config, "attention_kinds", None) or ["softmax"] * config.num_hidden_layers
        config.attention_kinds = ["softmax"] * config.num_hidden_layers
        self.use_attention(kinds)
        self.set_attn_implementation(MIXED)

    def _init_weights(self, module: nn.Module) -> None:
        """What transformers calls for weights that a checkpoint does not have."""
        if isinstance(module, HedgehogMap):
            module.reset()
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]

    def use_attention(self, kinds: Sequence[AttentionKind]) -> None:
        """Give each layer its kind of attention; a layer that has it already keeps its maps."""
        heads = self.config.num_attention_heads
        for layer, new in zip(self.encoder.layer, kinds, strict=True):
            attention = layer.get_submodule("attention.self")
            maps = getattr(attention, "maps", None)
            old = maps.kind if isinstance(maps, FeatureMaps) else "softmax"
            if new == old:
                continue
            if old != "softmax":
                del attention.maps
            if new != "softmax":
                attention.maps = FeatureMaps(new, heads, self.config.hidden_size // heads)
        self.config.attention_kinds = list(kinds)

    def extend_positions(self, recipe: PositionRecipe) -> None:
        """Make rows for as many positions as the recipe says; rows that stay what they were count as kept.

        Raises:
            TrainingFault: it has more already.
        """
        old = self.embeddings.position_embeddings.weight.data
        if recipe.tokens < len(old):
            raise TrainingFault(f"the initial weights have {len(old)} positions, and the recipe asks for {recipe}")
        if recipe.tokens == len(old):
            return
        rows = Positions(recipe.tokens, old.shape[1])
        with torch.no_grad():
            rows.weight.copy_(_tiled(old, recipe.tokens) if recipe.how == "tile" else _stretched(old, recipe.tokens))
        self.embeddings.position_embeddings = rows
        numbers = torch.arange(recipe.tokens).expand((1, -1))
        self.embeddings.register_buffer("position_ids", numbers, persistent=False)
        self.embeddings.register_buffer("token_type_ids", torch.zeros_like(numbers), persistent=False)
        self.config.max_position_embeddings = recipe.tokens
        self.config.kept_positions = len(old) if recipe.how == "tile" else 0

    def open_positions(self) -> None:
        """Train the positions that :meth:`extend_positions` made, though the embeddings are frozen."""
        positions = self.embeddings.position_embeddings
        assert isinstance(positions, Positions)  # __init__ saw to that
        positions.kept = getattr(self.config, "kept_positions", positions.num_embeddings)
        positions.weight.requires_grad_(positions.kept < positions.num_embeddings)


def _tiled(rows: Tensor, tokens: int) -> Tensor:
    return rows[torch.arange(tokens) % len(rows)]


def _stretched(rows: Tensor, tokens: int) -> Tensor:
    """(tokens, dim) rows between the (fewer, dim) given ones, the first and the last being the first and the last."""
    return functional.interpolate(rows.T[None], size=tokens, mode="linear", align_corners=True)[0].T


def feature_maps(body: nn.Module) -> list[FeatureMaps]:
    """The maps of every layer whose attention is linear, the layer nearest to the words first."""
    return [module for module in body.modules() if isinstance(module, FeatureMaps)]


@contextmanager
def as_softmax(body: PreTrainedModel) -> Iterator[None]:
    """While in it, every layer's attention is softmax, of the same queries and keys."""
    maps = [found for found in feature_maps(body) if found.used]
    for found in maps:
        found.used = False
    try:
        yield
    finally:
        for found in maps:
            found.used = True
