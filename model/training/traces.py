"""What did a transformer compute on its way? Hidden states of every layer, and what its attention multiplied."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from model.faults import TrainingFault
from model.training.attention import FeatureMaps, maps_in_use
from model.training.losses import scaled_products, split_heads

PROJECTIONS = ("query", "key", "value")
"""What BERT and its relatives call the linear layers of their self-attention."""


@dataclass(frozen=True)
class LayerTrace:
    """One layer: what it answered, and the vectors that its attention compared and mixed. Each (texts, tokens, dim)."""

    hidden: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    heads: int
    maps: FeatureMaps | None = None  # of a layer whose attention is linear

    def scores(self) -> Tensor:
        """(texts, heads, tokens, tokens) what mask and softmax make the layer's weights of.

        The products q.k / sqrt(d); of linear attention, the logarithms of phi(q).phi(k).
        """
        if self.maps is None:
            return scaled_products(self.queries, self.keys, self.heads)
        return self.maps.scores(split_heads(self.queries, self.heads), split_heads(self.keys, self.heads))


@dataclass(frozen=True)
class Trace:
    """A forward pass over (texts, tokens) ids, in float32 whatever precision it ran in."""

    embedding: Tensor  # (texts, tokens, dim) of the embedding layer, which the first layer reads
    layers: tuple[LayerTrace, ...]  # the first is nearest to the words

    @property
    def last(self) -> LayerTrace:
        """The layer whose hidden states are the body's answer."""
        return self.layers[-1]


def trace(body: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Trace:
    """Run a BERT-like body and keep what it computed, with gradients where they are enabled.

    Queries, keys and values are caught as they leave their linear layers, so that any implementation of attention will
    do. The hooks that catch them are gone afterwards.

    Args:
        body: a transformer whose attention has ``query``, ``key`` and ``value`` layers, as many as it has layers.
        input_ids: (texts, tokens) int64.
        attention_mask: (texts, tokens), 0 at padding.

    Raises:
        TrainingFault: the body has no such attention.
    """
    caught: dict[str, list[Tensor]] = {name: [] for name in PROJECTIONS}
    with ExitStack() as hooks:
        layers_of_body = attentions(body)
        for attention in layers_of_body:
            for name, outputs in caught.items():
                hook = attention.get_submodule(name).register_forward_hook(_append_to(outputs))
                hooks.callback(hook.remove)
        hidden = body(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    embedding, *answers = (states.float() for states in hidden)
    queries, keys, values = caught.values()
    heads = int(body.config.num_attention_heads)
    maps = [maps_in_use(attention) for attention in layers_of_body]
    layers = zip(answers, queries, keys, values, maps, strict=True)
    return Trace(embedding, tuple(LayerTrace(answer, q, k, v, heads, found) for answer, q, k, v, found in layers))


def _append_to(outputs: list[Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    return lambda module, inputs, output: outputs.append(output.float())


def attentions(body: PreTrainedModel) -> list[nn.Module]:
    """The self-attention module of every layer, in order."""
    found = [
        module for module in body.modules() if all(isinstance(getattr(module, p, None), nn.Linear) for p in PROJECTIONS)
    ]
    if len(found) != body.config.num_hidden_layers:
        raise TrainingFault(
            f"{type(body).__name__} has {body.config.num_hidden_layers} layers and {len(found)} attention modules with "
            f"linear layers called {', '.join(PROJECTIONS)}; take a body of BERT's kind"
        )
    return found
