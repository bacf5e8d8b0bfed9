from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from model.head import PAIRS_WORTH_A_MATRIX as WORTH
from model.head import Calibration, CosineHead, MlpHead, QuadraticHead, load_head
from model.manifest import ArtifactError
from tests.tiny import DIMS, head_tensors, quadratic_head_tensors


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> MlpHead:
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_file(head_tensors(3), path)
    return MlpHead.load(path)


def formula(u: np.ndarray, v: np.ndarray) -> float:
    """The paper's head, one pair at a time: W2 relu(W1 [u, v, u*v, abs(u - v)] + b1) + b2."""
    t = head_tensors(3)
    first = np.hstack([t["either.weight"], t["either.weight"], t["product.weight"], t["difference.weight"]])
    features = np.concatenate([u, v, u * v, np.abs(u - v)])
    hidden = np.maximum(first @ features + t["difference.bias"], 0)
    return float((t["output.weight"] @ hidden + t["output.bias"])[0])


def rows(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMS)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(seed=st.integers(0, 2**32 - 1), count=st.sampled_from([1, 2, WORTH - 1, WORTH, 3 * WORTH]))
def test_one_against_many_is_the_papers_formula(head: MlpHead, seed: int, count: int) -> None:
    (u,), many = rows(seed, 1), rows(seed + 1, count)
    np.testing.assert_allclose(head.logits(u[None], many), [formula(u, v) for v in many], atol=2e-5)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20))
def test_it_is_the_papers_formula(head: MlpHead, seed: int, count: int) -> None:
    left, right = rows(seed, count), rows(seed + 1, count)
    expected = [formula(u, v) for u, v in zip(left, right, strict=True)]
    np.testing.assert_allclose(head.logits(left, right), expected, atol=2e-5)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_a_pair_does_not_matter(head: MlpHead, seed: int) -> None:
    left, right = rows(seed, 5), rows(seed + 1, 5)
    np.testing.assert_allclose(head.logits(left, right), head.logits(right, left), atol=1.1e-5)


@given(seed=st.integers(0, 2**32 - 1))
def test_one_query_against_many_is_each_pair_alone(head: MlpHead, seed: int) -> None:
    query, candidates = rows(seed, 1), rows(seed + 1, 7)
    alone = [head.logits(query, candidates[row : row + 1])[0] for row in range(7)]
    np.testing.assert_allclose(head.logits(query, candidates), alone, atol=1.1e-5)


def test_the_cosine_head_is_the_inner_product() -> None:
    left, right = rows(1, 4), rows(2, 4)
    np.testing.assert_allclose(CosineHead().logits(left, right), np.diag(left @ right.T), atol=1e-5)
    np.testing.assert_allclose(CosineHead().logits(left[:1], right), right @ left[0], atol=1e-5)


def test_calibration_is_a_sigmoid_that_keeps_near_certain_scores_apart() -> None:
    calibrated = Calibration(2.0, -1.0)(np.array([-1e6, 0.5, 9.0, 9.001, 1e6]))
    assert calibrated[1] == 0.5
    assert calibrated[2] < calibrated[3] < 1.0
    assert calibrated[0] == 0.0
    assert calibrated[4] == 1.0
    assert calibrated.dtype == np.float64


@pytest.fixture(scope="module")
def quadratic(tmp_path_factory: pytest.TempPathFactory) -> QuadraticHead:
    path = tmp_path_factory.mktemp("quadratic") / "head.safetensors"
    save_file(quadratic_head_tensors(3), path)
    return QuadraticHead.load(path)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20))
def test_the_quadratic_head_is_its_formula(quadratic: QuadraticHead, seed: int, count: int) -> None:
    left, right = rows(seed, count), rows(seed + 1, count)
    t = quadratic_head_tensors(3)
    expected = [
        sum(
            t["linear"][i] * (u[i] + v[i]) + t["product"][i] * u[i] * v[i] + t["difference"][i] * (u[i] - v[i]) ** 2
            for i in range(DIMS)
        )
        + t["bias"][0]
        for u, v in zip(left, right, strict=True)
    ]
    np.testing.assert_allclose(quadratic.logits(left, right), expected, atol=2e-5)
    np.testing.assert_array_equal(quadratic.logits(right, left), quadratic.logits(left, right))


def test_what_depends_on_the_kernel_is_no_part_of_a_logit(head: MlpHead, quadratic: QuadraticHead) -> None:
    """Beyond the fifth decimal; where many are compared with one, with a few, and each with its own."""
    one, many = rows(1, 1), rows(2, 3 * WORTH)
    for any_head in (head, quadratic, CosineHead()):
        for left, right in ((one, many), (one, many[:4]), (many, many[::-1])):
            logits = any_head.logits(left, right)
            np.testing.assert_array_equal(logits, np.round(logits, 5))


def test_the_digest_of_a_head_is_what_earlier_versions_made_it() -> None:
    """Indexes that are ranked by it remember it: with another one, none would open after an upgrade."""
    head = QuadraticHead(*np.array([[1.0, -0.5], [0.25, 3.0], [-2.0, 0.1]], np.float32), bias=0.75)
    assert head.digest() == "b79a0f4eae936570ee1979df8564e078dcd23b9ce502c431b8b8173c8c088155"


@given(seed=st.integers(0, 2**32 - 1), queries=st.integers(1, 5), candidates=st.integers(1, 40))
def test_a_quadratic_logit_is_an_inner_product(
    quadratic: QuadraticHead, seed: int, queries: int, candidates: int
) -> None:
    u, v = rows(seed, queries), rows(seed + 1, candidates)
    products = quadratic.query_vectors(u) @ quadratic.candidate_vectors(v).T
    expected = [quadratic.logits(query[None], v) for query in u]
    np.testing.assert_allclose(products + quadratic.query_constants(u)[:, None], expected, atol=2e-5)


@pytest.mark.parametrize(("dims", "width"), [(15, 16), (16, 32), (384, 400)])
def test_extended_vectors_have_a_width_that_kernels_like(dims: int, width: int) -> None:
    head = QuadraticHead(*(np.ones(dims, np.float32) for _ in range(3)), bias=0.0)
    assert head.query_vectors(np.ones((2, dims), np.float32)).shape == (2, width)
    assert head.candidate_vectors(np.ones((3, dims), np.float32)).shape == (3, width)


@given(seed=st.integers(0, 2**32 - 1), candidates=st.integers(1, 60))
def test_faiss_ranks_by_the_quadratic_head(quadratic: QuadraticHead, seed: int, candidates: int) -> None:
    """The logits of what FAISS finds, in its order, are all the logits, best first."""
    query, documents = rows(seed, 1), rows(seed + 1, candidates)
    vectors = quadratic.candidate_vectors(documents)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, found = index.search(quadratic.query_vectors(query), candidates)
    assert sorted(found[0]) == list(range(candidates))
    logits = quadratic.logits(query, documents)
    np.testing.assert_allclose(logits[found[0]], -np.sort(-logits), atol=2e-5)


@pytest.mark.parametrize("kind", ["mlp", "quadratic"])
def test_a_file_that_is_no_head_is_refused(tmp_path: Path, kind: str) -> None:
    save_file({"something": np.zeros(2, np.float32)}, tmp_path / "head.safetensors")
    with pytest.raises(ArtifactError, match=f"holds no {kind} head"):
        load_head(kind, tmp_path / "head.safetensors")


def test_a_head_is_loaded_by_its_kind(tmp_path: Path) -> None:
    save_file(head_tensors(3) | quadratic_head_tensors(3), tmp_path / "head.safetensors")
    loaded = [type(load_head(kind, tmp_path / "head.safetensors")) for kind in ("mlp", "quadratic", "cosine")]
    assert loaded == [MlpHead, QuadraticHead, CosineHead]
