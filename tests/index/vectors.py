"""Unit vectors to index."""

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """(rows, dims) at unit length."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def unit_rows(seed: int, rows: int, dims: int = 8) -> np.ndarray:
    """(rows, dims) in any direction."""
    return unit(np.random.default_rng(seed).normal(size=(rows, dims)))


def clustered(seed: int, rows: int, dims: int = 32, clusters: int = 60, spread: float = 0.5) -> np.ndarray:
    """(rows, dims) around some centres that depend on no seed: as sentences lie, near their like."""
    random = np.random.default_rng([1, seed])
    centres = np.random.default_rng(0).normal(size=(clusters, dims))
    return unit(centres[random.integers(0, clusters, rows)] + spread * random.normal(size=(rows, dims)))
