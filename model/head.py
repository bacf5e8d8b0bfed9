"""What does the head say of two embeddings, and what does that mean in 0..1?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from model.manifest import ArtifactError

Floats = NDArray[np.float32]

LOGIT_DECIMALS = 5
"""Logits are rounded to this: beyond it they say which kernel a matrix product took, not how similar two texts are.
Equal texts thus tie exactly, wherever in a batch they stood."""


@dataclass(frozen=True)
class Calibration:
    """A raw score's meaning: sigmoid(slope * raw + intercept) is the expected gold score, 0..1."""

    slope: float
    intercept: float

    def __call__(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """(pairs,) calibrated scores, in float64 so that near certain pairs stay apart."""
        value = self.slope * np.asarray(raw, np.float64) + self.intercept
        return np.exp(-np.logaddexp(0.0, -value))  # sigmoid that cannot overflow


class Head(Protocol):
    """A similarity function over two embeddings, the same in both orders."""

    def logits(self, left: Floats, right: Floats) -> NDArray[np.float64]:
        """(pairs,) raw scores; a ``left`` of one row is compared with every row of ``right``."""
        ...


@dataclass(frozen=True)
class CosineHead:
    """The inner product of unit embeddings: what FAISS ranks by."""

    def logits(self, left: Floats, right: Floats) -> NDArray[np.float64]:
        """(pairs,) cosines."""
        cosines = np.einsum("ij,ij->i", *np.broadcast_arrays(left, right)).astype(np.float64)
        return np.clip(np.round(cosines, LOGIT_DECIMALS), -1.0, 1.0)


@dataclass(frozen=True)
class MlpHead:
    """The head of Distilled Sentence Embedding on [u, v, u*v, abs(u - v)] (arXiv 1908.05161).

    The weights of u and v are one matrix, so it is symmetric. It splits as
    ``either u + either v + product (u*v) + difference abs(u - v)``: of a query, the first term is computed once.
    """

    either: Floats  # (hidden, dim), for u and for v
    product: Floats  # (hidden, dim)
    difference: Floats  # (hidden, dim)
    bias: Floats  # (hidden,)
    output: Floats  # (hidden,)
    output_bias: float

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``head.safetensors`` as the trainer names its tensors."""
        try:
            tensors = load_file(path)
            return cls(
                tensors["either.weight"],
                tensors["product.weight"],
                tensors["difference.weight"],
                tensors["difference.bias"],
                tensors["output.weight"][0],
                float(tensors["output.bias"][0]),
            )
        except (OSError, SafetensorError, KeyError) as error:
            raise ArtifactError(f"{path} is not an mlp head ({error}); export the bundle again") from error

    def logits(self, left: Floats, right: Floats) -> NDArray[np.float64]:
        """(pairs,) raw scores of (pairs, dim) or (1, dim) against (pairs, dim)."""
        hidden = left @ self.either.T + right @ self.either.T
        hidden += (left * right) @ self.product.T
        hidden += np.abs(left - right) @ self.difference.T
        hidden += self.bias
        np.maximum(hidden, 0.0, out=hidden)
        return np.round((hidden @ self.output).astype(np.float64) + self.output_bias, LOGIT_DECIMALS)
