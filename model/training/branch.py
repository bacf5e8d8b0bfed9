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

BRANCH = "encoder.branch."
"""What the names of a branch's weights start with."""


class _Fork(nn.Module):
    """BERT's layers, the top ones twice, and the matrix that makes one of the states of both stacks."""

    def __init__(self, layers: nn.ModuleList, config: BertConfig) -> None:
        super().__init__()
        copies = config.branch["layers"]
        if copies >= len(layers):
            raise TrainingFault(f"a branch of {copies} layers is asked for, of a body of {len(layers)}")
        if config.branch["axes"] >= config.hidden_size:
            raise TrainingFault(f"a branch has {config.branch['axes']} axes of an embedding of {config.hidden_size}")
        self.layer = layers
        self.branch = nn.ModuleList(deepcopy(layer) for layer in layers[len(layers) - copies :])
        readings = 2 if copies else 1
        self.merge = nn.Linear(readings * config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **others: object
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """(texts, tokens, dim) states; the arguments are those of transformers' BertEncoder."""
        del others  # of decoders
        below = len(self.layer) - len(self.branch)
        for layer in self.layer[:below]:
            hidden_states = layer(hidden_states, attention_mask)
        first, second = hidden_states, hidden_states
        for layer in self.branch:
            second = layer(second, attention_mask)
        if self.training and not self.merge.weight[:, : second.shape[-1]].any():  # nobody hears the first reading yet
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=second)
        for layer in self.layer[below:]:
            first = layer(first, attention_mask)
        both = torch.cat([first, second], dim=-1) if len(self.branch) else first
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.merge(both))


class BranchedBert(BertModel):  # type: ignore[no-untyped-call]
    """A BERT that reads every text twice from some layer on.

    The first reading is BERT's own. The second goes through copies of the top layers. One matrix makes of both states
    of a token as many numbers as one has (:meth:`merge`); until then it hands on the second reading alone. Pooling is
    linear, so whoever takes the mean of the states and its unit length has the embedding, as of any BERT.
    ``config.branch`` is the :class:`~model.training.network_recipe.BranchRecipe`, as a dictionary; of no layers where
    one reading was left (:meth:`keep`).
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config, add_pooling_layer)
        self.encoder: _Fork = _Fork(self.encoder.layer, config)  # type: ignore[assignment]

    @torch.no_grad()
    def start(self) -> None:
        """Let the branch be a copy of the top layers, and alone be heard."""
        top = self.encoder.layer[-len(self.encoder.branch) :]
        for copy, layer in zip(self.encoder.branch, top, strict=True):
            copy.load_state_dict(layer.state_dict())
        dim = self.config.hidden_size
        self.encoder.merge.weight.copy_(torch.cat([torch.zeros(dim, dim), torch.eye(dim)], dim=1))

    def train_branch_alone(self) -> None:
        """Let nothing but the copies learn."""
        self.requires_grad_(False)
        self.encoder.branch.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """As of any module; but what does not learn drops nothing out."""
        super().train(mode)
        for part in (self.embeddings, self.encoder.layer):
            part.train(mode and any(parameter.requires_grad for parameter in part.parameters()))
        return self

    def keep(self, layers: Sequence[int]) -> None:
        """Leave one reading, through these layers in this order; the copies are numbered on from the body's own.

        The axes of the embedding stay: it starts as if both readings were this one.
        """
        dim = self.config.hidden_size
        every = [*self.encoder.layer, *self.encoder.branch]
        first, second = torch.split(self.encoder.merge.weight.data, dim, dim=1)
        self.encoder.layer = nn.ModuleList(every[number] for number in layers)
        self.encoder.branch = nn.ModuleList()
        self.encoder.merge = nn.Linear(dim, dim, bias=False)
        self.encoder.merge.weight.data.copy_(first + second)
        self.config.branch = self.config.branch | {"layers": 0}

    @torch.no_grad()
    def merge(self, batches: Sequence[dict[str, Tensor]]) -> None:
        """Make one embedding of the two that nearly has the mean of their cosines, the branch's weighing ``share``.

        Both are brought to the same length, on average over the texts given, and to their shares of the whole. Then
        each is turned to its principal axes (about the origin, as cosines are): the first ``axes`` of the branch's and
        the first ``dim`` - ``axes`` of the body's own are kept, in the order of what they hold, so that every prefix is
        an embedding, too. No axis mixes the readings, so that a head can weigh them anew. The body is left evaluating.

        Args:
            batches: what the body reads of the texts that decide; (texts, tokens) tensors each.
        """
        self.eval()  # type: ignore[no-untyped-call]
        joint = torch.cat([self._means(inputs) for inputs in batches]).double()  # (texts, 2 dim)
        dim = self.config.hidden_size
        lengths = joint.square().view(-1, 2, dim).sum(-1).mean(0).sqrt()  # (2,)
        share = self.config.branch["share"]
        shares = torch.tensor([1 - share, share], dtype=torch.float64)
        scales = (shares.sqrt() / lengths).repeat_interleave(dim)  # (2 dim,)
        unit = functional.normalize(joint * scales, dim=-1)
        counts = dim - self.config.branch["axes"], self.config.branch["axes"]
        turned, held = [], []
        for reading, count in zip(torch.split(unit, dim, dim=1), counts, strict=True):
            found = torch.linalg.eigh(reading.T @ reading)  # in ascending order
            turned.append(found.eigenvectors.flip(1)[:, :count])
            held.append(found.eigenvalues.flip(0)[:count])
        axes = torch.block_diag(*turned)[:, torch.cat(held).argsort(descending=True)]  # type: ignore[no-untyped-call]
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
