"""What does the head say of two embeddings, and what does that mean in 0..1?"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from model.manifest import ArtifactError

Floats = NDArray[np.float32]
HeadKind = Literal["mlp", "quadratic", "cosine"]

LOGIT_DECIMALS = 5
"""Logits are rounded to this: beyond it they say which kernel a matrix product took, not how similar two texts are.
Equal texts thus tie exactly, wherever in a batch they stood."""

PAIRS_WORTH_A_MATRIX = 32
"""From so many candidates of one query on, a matrix made for the query saves more than it costs."""

LANES = 16
"""Extended vectors are padded to a multiple of this, so that no kernel has a remainder to handle."""


@dataclass(frozen=True)
class Calibration:
    """A raw score's meaning: sigmoid(slope * raw + intercept) is the expected gold score, 0..1."""

    slope: float
    intercept: float

    def __call__(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """(pairs,) calibrated scores, in float64 so that near certain pairs stay apart."""
        return np.exp(-np.logaddexp(0.0, -self.logits(raw)))  # sigmoid that cannot overflow

    def logits(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """(pairs,) calibrated scores before the sigmoid."""
        return self.slope * np.asarray(raw, np.float64) + self.intercept


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
    ``either u + either v + product (u*v) + difference abs(u - v)``. Of one u against many v, the first term is computed
    once, and the next two are one product with a matrix made of u: ``(either + product * u) v``.
    """

    either: Floats  # (hidden, dim), for u and for v
    product: Floats  # (hidden, dim)
    difference: Floats  # (hidden, dim)
    bias: Floats  # (hidden,)
    output: Floats  # (hidden,)
    output_bias: float

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``head.safetensors`` as the trainer names its tensors.

        Raises:
            ArtifactError: the file does not hold them.
        """
        either, product, difference, bias, output, output_bias = _tensors(
            path,
            "mlp",
            "either.weight",
            "product.weight",
            "difference.weight",
            "difference.bias",
            "output.weight",
            "output.bias",
        )
        return cls(either, product, difference, bias, output[0], float(output_bias[0]))

    def logits(self, left: Floats, right: Floats) -> NDArray[np.float64]:
        """(pairs,) raw scores of (pairs, dim) or (1, dim) against (pairs, dim)."""
        if len(left) == 1 and len(right) >= PAIRS_WORTH_A_MATRIX:
            hidden = right @ (self.either + self.product * left).T
        else:
            hidden = right @ self.either.T
            hidden += (left * right) @ self.product.T
        hidden += left @ self.either.T
        hidden += np.abs(left - right) @ self.difference.T
        hidden += self.bias
        np.maximum(hidden, 0.0, out=hidden)
        return np.round((hidden @ self.output).astype(np.float64) + self.output_bias, LOGIT_DECIMALS)


@dataclass(frozen=True)
class QuadraticHead:
    """``sum of a_i (u_i + v_i) + c_i u_i v_i + d_i (u_i - v_i)^2``, plus a bias: symmetric, and an inner product.

    Multiplied out, ``(u - v)^2`` is ``u^2 - 2uv + v^2``. What depends on u and v together is then ``(c - 2d) u . v``,
    and the rest is a number for u and a number for v: see :meth:`query_vectors`.
    """

    linear: Floats  # (dim,) a
    product: Floats  # (dim,) c
    difference: Floats  # (dim,) d
    bias: float

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``head.safetensors`` as the trainer names its tensors.

        Raises:
            ArtifactError: the file does not hold them.
        """
        linear, product, difference, bias = _tensors(path, "quadratic", "linear", "product", "difference", "bias")
        return cls(linear, product, difference, float(bias[0]))

    def logits(self, left: Floats, right: Floats) -> NDArray[np.float64]:
        """(pairs,) raw scores of (pairs, dim) or (1, dim) against (pairs, dim)."""
        raw = (left + right) @ self.linear + (left * right) @ self.product + np.square(left - right) @ self.difference
        return np.round(raw.astype(np.float64) + self.bias, LOGIT_DECIMALS)

    def digest(self) -> str:
        """Hex sha256 of its numbers: what an index that is ranked by it remembers."""
        numbers = [self.linear, self.product, self.difference, np.float32(self.bias)]
        return hashlib.sha256(b"".join(np.asarray(number, "<f4").tobytes() for number in numbers)).hexdigest()

    def query_vectors(self, queries: Floats) -> Floats:
        """(queries, dim + 1, padded with zeros to a multiple of 16) of (queries, dim) embeddings.

        Their inner product with :meth:`candidate_vectors`, plus the query's :meth:`query_constants`, is the logit
        (before rounding): FAISS can rank by the head itself. The vectors are not of unit length.
        """
        return _extended((self.product - 2 * self.difference) * queries, np.ones(len(queries)))

    def candidate_vectors(self, candidates: Floats) -> Floats:
        """(candidates, dim + 1, padded) of (candidates, dim) embeddings; what to index."""
        return _extended(candidates, self._alone(candidates))

    def query_constants(self, queries: Floats) -> NDArray[np.float64]:
        """(queries,) what the inner product lacks: the same for every candidate, so no ranking depends on it."""
        return self._alone(queries) + self.bias

    def _alone(self, embeddings: Floats) -> NDArray[np.float64]:
        """(rows,) the terms of one side: ``a . u + d . u^2``."""
        return (embeddings @ self.linear + np.square(embeddings) @ self.difference).astype(np.float64)


def load_head(kind: HeadKind, path: Path) -> Head:
    """A head of a kind; the cosine has no file.

    Raises:
        ArtifactError: the file is not a head of that kind.
    """
    if kind == "cosine":
        return CosineHead()
    return MlpHead.load(path) if kind == "mlp" else QuadraticHead.load(path)


def _tensors(path: Path, kind: HeadKind, *names: str) -> list[Floats]:
    try:
        tensors = load_file(path)
        return [tensors[name] for name in names]
    except (OSError, SafetensorError, KeyError) as error:
        raise ArtifactError(f"{path} holds no {kind} head ({error}); export the bundle again") from error


def _extended(vectors: Floats, numbers: NDArray[np.float64]) -> Floats:
    """Rows with one more number each, then zeros up to a multiple of :data:`LANES`."""
    rows, dims = vectors.shape
    extended = np.zeros((rows, -(-(dims + 1) // LANES) * LANES), np.float32)
    extended[:, :dims] = vectors
    extended[:, dims] = numbers
    return extended
