"""How is a head trained over a body that stays as it is? Every text is embedded once, and the head alone is asked."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.training.network_recipe import NetworkRecipe
from model.training.networks import Answers, BiEncoder, mixed_precision
from model.training.pairs import Pair

NEAR = 64
"""Neighbours of a text, of which its candidates are drawn."""
CANDIDATES_NEAR, CANDIDATES_ANYWHERE = 6, 2
CHUNK = 1024  # texts whose neighbours are looked for together


class KnownEmbeddings:
    """A bi-encoder whose body stays as it is, asked about pairs, and for texts among others, that it read before.

    Args:
        network: the bi-encoder.
        recipe: says in what precision its body reads.
        pairs: what it will be asked about.
        aims: of every text to search with, and among, the (dim,) unit embedding of the guide.
    """

    def __init__(
        self,
        network: BiEncoder,
        recipe: NetworkRecipe,
        pairs: Sequence[Pair],
        aims: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> None:
        self._network = network
        aims = aims or {}
        texts = list(dict.fromkeys([*aims, *(text for pair in pairs for text in (pair.left, pair.right))]))
        self._rows = {text: row for row, text in enumerate(texts)}
        with mixed_precision(recipe):
            self._embeddings = network.embed_all(texts).clone()  # (texts, dim); a copy that autograd may keep
        self._aims = torch.as_tensor(np.stack([*aims.values()])).float() if aims else torch.empty(0, 1)
        self._near = nearest(self._aims, NEAR)

    def __call__(self, pairs: Sequence[Pair]) -> Answers:
        """What the network says of pairs."""
        left, right = (
            self._embeddings[[self._rows[text] for text in texts]]
            for texts in ([pair.left for pair in pairs], [pair.right for pair in pairs])
        )
        return self._network.compare(left, right)

    def search(self, queries: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(queries, candidates) logits of texts with others, and the cosines of their aims.

        Most candidates are among those that lie nearest to the query, where a ranking is decided; torch's random
        numbers say which.
        """
        rows = [self._rows[query] for query in queries]
        near = self._near[rows]
        some = torch.rand(near.shape).argsort(-1)[:, :CANDIDATES_NEAR]
        anywhere = torch.randint(len(self._near), (len(queries), CANDIDATES_ANYWHERE))
        candidates = torch.cat([near.gather(1, some), anywhere], dim=1)
        left = self._embeddings[rows].repeat_interleave(candidates.shape[1], 0)
        logits = self._network.compare(left, self._embeddings[candidates.flatten()]).logit
        return logits.view(candidates.shape), (self._aims[rows][:, None] * self._aims[candidates]).sum(-1)


def nearest(embeddings: Tensor, most: int) -> Tensor:
    """(texts, at most ``most``) rows of the other texts that are nearest to each of (texts, dim) unit embeddings."""
    count = max(0, min(most, len(embeddings) - 1))
    near = torch.empty(len(embeddings), count, dtype=torch.int64)
    for start in range(0, len(embeddings), CHUNK):
        similarities = embeddings[start : start + CHUNK] @ embeddings.T
        own = torch.arange(len(similarities))
        similarities[own, start + own] = -torch.inf
        near[start : start + CHUNK] = similarities.topk(count).indices
    return near
