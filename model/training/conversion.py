"""How does linear attention come to weigh tokens as softmax did? Its maps are fitted to it, and to nothing else."""

from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.training.attention import as_softmax, maps_in_use
from model.training.losses import attention_cross_entropy
from model.training.networks import Inputs
from model.training.traces import attentions, trace


def map_loss(body: PreTrainedModel, inputs: Inputs) -> Tensor:
    """Cross-entropy between the attention that a body's weights give with softmax and that of its maps.

    The mean over layers with a learned map (Hedgehog, arXiv 2402.04347, section 4.2). Each layer reads what a softmax
    body below it gives, so that no layer learns to make up for another; there are gradients for the maps alone.

    Args:
        body: at least one layer has a learned feature map.
        inputs: ``input_ids`` and ``attention_mask``, (texts, tokens) int64.
    """
    with torch.no_grad(), as_softmax(body):
        seen = trace(body, **inputs)
    losses = []
    with torch.autocast(inputs["input_ids"].device.type, enabled=False):
        for layer, attention in zip(seen.layers, attentions(body), strict=True):
            maps = maps_in_use(attention)
            if maps is not None and any(True for _ in maps.parameters()):
                fitted = replace(layer, maps=maps)
                losses.append(attention_cross_entropy(fitted.scores(), layer.scores(), inputs["attention_mask"]))
    return torch.stack(losses).mean()
