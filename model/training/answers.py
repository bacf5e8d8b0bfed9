"""What does a trained network say of pairs?"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.tokens import plan_batches
from model.training.networks import Network
from model.training.pairs import Pair

TOKENS_PER_BATCH = 4096


def torch_logits(network: Network, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """(pairs,) what a network says of pairs in fp32, averaged over both orders of each pair unless it is directed.

    Of a network with several outputs, (pairs, outputs).
    """
    directed = network.head is not None and network.head.directed
    lengths = [len(pair.left) + len(pair.right) for pair in pairs]
    batches = plan_batches(lengths, 4 * TOKENS_PER_BATCH)  # about four characters a token
    found = []
    for rows in batches:
        batch = [pairs[row] for row in rows]
        read = batch if directed else batch + [pair.swapped() for pair in batch]
        with torch.inference_mode():
            logits = network(read).logit
        found.append(logits.double().unflatten(0, (-1, len(batch))).mean(0).numpy())
    scores = np.empty((len(pairs), *found[0].shape[1:]))
    scores[np.concatenate(batches)] = np.concatenate(found)
    return scores
