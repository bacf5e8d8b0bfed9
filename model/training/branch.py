"""How does one body both search well and compare well? Its top layers are there twice, and the two are merged."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from model.faults import TrainingFault
from model.training.network_recipe import BranchRecipe

BRANCH = "encoder.branch."
"""What the names of a branch's weights start with."""


class _Fork(nn.Module):
    """BERT's layers, the top ones twice; what it answers are the states of the copies, or of both stacks as one."""

    def __init__(self, layers: nn.ModuleList, config: BertConfig) -> None:
        super().__init__()
        branch = BranchRecipe.model_validate(config.branch)
        if branch.layers >= len(layers):
            raise TrainingFault(f"a branch of {branch.layers} layers is asked for, of a body of {len(layers)}")
        self.layer = layers
        self.branch = nn.ModuleList(deepcopy(layer) for layer in layers[-branch.layers :])
        self.merge = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.merge.requires_grad_(False)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **others: object
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """(texts, tokens, dim) states; the arguments are those of transformers' BertEncoder."""
        del others  # of decoders
        below = len(self.layer) - len(self.branch)
        for layer in self.layer[:below]:
            hidden_states = layer(hidden_states, attention_mask)
        first, second = hidden_states, hidden_states
        for layer in self.layer[below:]:
            first = layer(first, attention_mask)
        for layer in self.branch:
            second = layer(second, attention_mask)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.merge(torch.cat([first, second], dim=-1))
        )


class BranchedBert(BertModel):  # type: ignore[no-untyped-call]
    """A BERT that reads every text twice from some layer on.

    The first reading is BERT's own. The second goes through copies of the top layers. One matrix makes of both states
    of a token as many numbers as one has (:meth:`merge`); until then it hands on the second reading alone. Pooling is
    linear, so whoever takes the mean of the states and its unit length has the embedding, as of any BERT.
    ``config.branch`` is the :class:`BranchRecipe`.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config, add_pooling_layer)
        self.recipe = BranchRecipe.model_validate(config.branch)
        self.encoder: _Fork = _Fork(self.encoder.layer, config)  # type: ignore[assignment]

    @torch.no_grad()
    def start(self) -> None:
        """Let the branch be a copy of the top layers, and alone be heard; it alone is trained from here."""
        for copy, layer in zip(self.encoder.branch, self.encoder.layer[-self.recipe.layers :], strict=True):
            copy.load_state_dict(layer.state_dict())
        dim = self.config.hidden_size
        self.encoder.merge.weight.copy_(torch.cat([torch.zeros(dim, dim), torch.eye(dim)], dim=1))
        self.requires_grad_(False)
        self.encoder.branch.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """As of any module; but what is not trained drops nothing out."""
        super().train(mode)
        self.embeddings.eval()
        self.encoder.layer.eval()
        return self

    @torch.no_grad()
    def merge(self, batches: Sequence[dict[str, Tensor]]) -> None:
        """Make one embedding of the two that nearly has the mean of their cosines, the branch's weighing ``share``.

        Both are brought to the same length, on average over the texts given, and to their shares of the whole. Their
        principal axes (about the origin, as cosines are) follow: the first ``dim`` of 2 ``dim``, the one that holds
        most first, so that every prefix is the best embedding of its length in the least squares.

        Args:
            batches: what the body reads of the texts that decide; (texts, tokens) tensors each.
        """
        joint = torch.cat([self._means(inputs) for inputs in batches]).double()  # (texts, 2 dim)
        dim = self.config.hidden_size
        lengths = joint.square().view(-1, 2, dim).sum(-1).mean(0).sqrt()  # (2,)
        shares = torch.tensor([1 - self.recipe.share, self.recipe.share], dtype=torch.float64)
        scales = (shares.sqrt() / lengths).repeat_interleave(dim)  # (2 dim,)
        unit = functional.normalize(joint * scales, dim=-1)
        axes = torch.linalg.eigh(unit.T @ unit).eigenvectors.flip(1)[:, :dim]  # (2 dim, dim)
        self.encoder.merge.weight.copy_((axes * scales[:, None]).T)

    def _means(self, inputs: dict[str, Tensor]) -> Tensor:
        """(texts, 2 dim) means over tokens of the states of both readings."""
        found: list[Tensor] = []
        hook = self.encoder.merge.register_forward_pre_hook(lambda _, states: found.append(states[0]))
        try:
            self(**inputs)
        finally:
            hook.remove()
        mask = inputs["attention_mask"].unsqueeze(-1)
        return (found[0] * mask).sum(1) / mask.sum(1)
