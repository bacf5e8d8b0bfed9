"""Unit vectors to index."""

import numpy as np


def unit_rows(seed: int, rows: int, dims: int = 8) -> np.ndarray:
    """(rows, dims) in any direction."""
    return _unit(np.random.default_rng(seed).normal(size=(rows, dims)))


def clustered(seed: int, rows: int, dims: int = 32, clusters: int = 60, spread: float = 0.5) -> np.ndarray:
    """(rows, dims) around some centres that depend on no seed: as sentences lie, near their like."""
    random = np.random.default_rng([1, seed])
    centres = np.random.default_rng(0).normal(size=(clusters, dims))
    return _unit(centres[random.integers(0, clusters, rows)] + spread * random.normal(size=(rows, dims)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
