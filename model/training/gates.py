"""May this graph be published? Parity, batch-invariance and int8 loss, each measured and each a bound."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from model.cross_encoder import OnnxCrossEncoder
from model.faults import TrainingFault
from model.training.answers import torch_logits
from model.training.logits import RawScorer
from model.training.networks import CrossEncoder, Network
from model.training.pairs import Pair
from model.training.scoring import OnnxScorer, Scored

PARITY = 1e-4
LABELS = 1e-3
INVARIANCE = 0.9999
INVARIANCE_LOGIT = 1e-2
ONE_BATCH = 1 << 30  # tokens: no batch is ever split


class GateError(TrainingFault):
    """An exported graph that may not be published; the message says which gate and by how much."""


def probes(pairs: Sequence[Pair], max_tokens: int) -> list[Pair]:
    """Real sentences of every length: pairs from short to long, and texts longer than the model reads."""
    by_length = sorted(pairs, key=lambda pair: len(pair.left) + len(pair.right))
    chosen = by_length[:: max(1, len(by_length) // 32)]
    words = " ".join(pair.left for pair in pairs).split()
    for count in (1, max_tokens // 4, max_tokens // 2, 2 * max_tokens):
        chosen.append(Pair(f"probe:{count}", " ".join(words[:count]), pairs[0].right, 0.0))
    return chosen


def check_parity(network: Network, scorer: OnnxScorer, pairs: Sequence[Pair], max_tokens: int) -> float:
    """Largest difference between torch and the fp32 graph over sentences of every length.

    For a student it is taken over every coordinate of the embeddings, for a teacher over the logits.

    Raises:
        GateError: it is above 1e-4.
    """
    chosen = probes(pairs, max_tokens)
    if isinstance(network, CrossEncoder) or isinstance(scorer.model, OnnxCrossEncoder):
        difference = float(np.abs(scorer(chosen).logits - torch_logits(network, chosen)).max())
    else:
        texts = [pair.left for pair in chosen]
        with torch.inference_mode():
            theirs = torch.cat([network.embed([text]) for text in texts]).numpy()
        difference = float(np.abs(scorer.model.encode(texts) - theirs).max())
    if not difference <= PARITY:  # so that NaN does not pass
        raise GateError(f"torch and ONNX differ by {difference:.2e}, more than {PARITY:.0e}")
    return difference


def check_invariance(scorer: OnnxScorer, pairs: Sequence[Pair]) -> float:
    """How little a row's answer depends on its batch: 60 pairs alone, and all in one batch with a very long one.

    Returns the smallest cosine between an embedding alone and in the batch; for a teacher, the largest difference of
    logits.

    Raises:
        GateError: cosine below 0.9999, or logits more than 0.01 apart.
    """
    chosen = list(pairs[:60])
    stranger = " ".join(pair.right for pair in chosen)
    if isinstance(scorer.model, OnnxCrossEncoder):
        rows = [(pair.left, pair.right) for pair in chosen]
        one_batch = scorer.model.with_token_budget(ONE_BATCH)
        together = one_batch.score([*rows, (stranger, stranger)]).logits[:-1]
        alone = np.concatenate([scorer.model.score([row]).logits for row in rows])
        if not (difference := float(np.abs(together - alone).max())) <= INVARIANCE_LOGIT:
            raise GateError(f"a logit moves by {difference:.4f} with its batch, more than {INVARIANCE_LOGIT}")
        return difference
    texts = [pair.left for pair in chosen]
    padded = scorer.model.with_token_budget(ONE_BATCH).encode([*texts, stranger])[:-1]
    single = np.concatenate([scorer.model.encode([text]) for text in texts])
    if not (cosine := float((padded * single).sum(axis=1).min())) >= INVARIANCE:
        raise GateError(f"an embedding has cosine {cosine:.5f} to itself in a batch, below {INVARIANCE}")
    return cosine


def check_labels(scorer: Callable[[Sequence[Pair]], Scored], signal: RawScorer, pairs: Sequence[Pair]) -> None:
    """See that what will be served is what labels pairs: fp32 logits within 1e-3.

    Raises:
        GateError: they differ by more.
    """
    labelled = signal.signal.logits(signal.raw_scores(pairs))
    difference = float(np.abs(scorer(pairs).logits - labelled).max())
    if not difference <= LABELS:
        raise GateError(f"served and labelled logits differ by {difference:.2e}, more than {LABELS:.0e}")


def check_int8_loss(dev: Mapping[str, Mapping[str, Mapping[str, float]]], bound: float) -> float:
    """Points of dev Spearman that int8 costs, for the worse of score and similarity.

    Raises:
        GateError: more than the recipe's bound.
    """
    losses = [dev["fp32"][name]["spearman"] - dev["int8"][name]["spearman"] for name in dev["fp32"]]
    loss = float(np.max(losses))  # NaN if any is
    if not loss <= bound:
        raise GateError(f"int8 loses {loss:.2f} points of Spearman on dev, more than {bound}")
    return round(loss, 2)
