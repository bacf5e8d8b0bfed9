"""How does one body give two embeddings, one to search by and one to compare by? Its top layers are there twice."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from model.faults import TrainingFault
from model.training.recipes import BranchRecipe


class _Fork(nn.Module):
    """BERT's layers, the top ones twice: the states of both stacks, side by side."""

    def __init__(self, layers: nn.ModuleList, branch: BranchRecipe) -> None:
        super().__init__()
        if branch.layers >= len(layers):
            raise TrainingFault(f"a branch of {branch.layers} layers is asked for, of a body of {len(layers)}")
        self.layer = layers
        self.branch = nn.ModuleList(deepcopy(layer) for layer in layers[-branch.layers :])
        self.dims = branch.dims

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **others: object
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """(texts, tokens, dim + branch's dims) states; the arguments are those of transformers' BertEncoder."""
        del others  # of decoders
        below = len(self.layer) - len(self.branch)
        for layer in self.layer[:below]:
            hidden_states = layer(hidden_states, attention_mask)
        general, own = hidden_states, hidden_states
        for layer in self.layer[below:]:
            general = layer(general, attention_mask)
        for layer in self.branch:
            own = layer(own, attention_mask)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=torch.cat([general, own[..., : self.dims]], dim=-1)
        )


class BranchedBert(BertModel):  # type: ignore[no-untyped-call]
    """A BERT that reads every text twice from some layer on.

    The first reading is BERT's own. The second goes through copies of the top layers, and of its states the first
    ``dims`` numbers are kept. ``config.branch`` is the :class:`BranchRecipe`; a plain BERT's checkpoint loads, and the
    copies then start as what they are copies of.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config, add_pooling_layer)
        self.recipe = BranchRecipe.model_validate(config.branch)
        self.encoder: _Fork = _Fork(self.encoder.layer, self.recipe)  # type: ignore[assignment]

    @property
    def parts(self) -> tuple[tuple[int, float], ...]:
        """(dims, share) of each embedding in the whole: see :func:`joined`."""
        return (self.config.hidden_size, 1 - self.recipe.share), (self.recipe.dims, self.recipe.share)

    @torch.no_grad()
    def start_branch(self, source: PreTrainedModel) -> None:
        """Give the branch the weights of another body's top layers: of the same shape, and fine-tuned, say."""
        layers = source.get_submodule("encoder.layer")
        assert isinstance(layers, nn.ModuleList)
        for mine, theirs in zip(self.encoder.branch, layers[-self.recipe.layers :], strict=True):
            mine.load_state_dict(theirs.state_dict())

    def freeze_first(self) -> None:
        """Leave the first reading as it is: train the branch alone."""
        self.requires_grad_(False)
        self.encoder.branch.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """As of any module; but what is frozen drops nothing out, for it has nothing to learn."""
        super().train(mode)
        self.embeddings.train(mode and self.embeddings.word_embeddings.weight.requires_grad)
        self.encoder.layer.train(mode and next(self.encoder.layer.parameters()).requires_grad)
        return self


def joined(means: Tensor, parts: Sequence[tuple[int, float]]) -> Tensor:
    """(texts, dims in all) unit embeddings made of several, side by side.

    Each part is brought to unit length, and to its share of the squared length of the whole. The cosine of two such
    embeddings is then the mean of the parts' cosines, weighted by the shares; a part alone is a prefix, or a slice,
    brought to unit length again.
    """
    split = torch.split(means, [dims for dims, _ in parts], dim=-1)
    scaled = [functional.normalize(part, dim=-1) * share**0.5 for part, (_, share) in zip(split, parts, strict=True)]
    return torch.cat(scaled, dim=-1)
