"""Texts that are longer than a graph reads, piece by piece: --long-text chunk."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle import Student, load_student
from model.encoder import whole_embeddings
from model.long_text import MOST_PIECES
from model.tokens import SentenceTokenizer, Tokens
from scripts.bundle_freight import BundleFreight
from tests import tiny

READ = 10  # tokens at a time, of which two are markers
TEXTS = st.text("abcdefghijklmnopqrstuvwxyz ", max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_student(tmp_path_factory.mktemp("chunk") / "bundle", max_tokens=READ)


@pytest.fixture(scope="module")
def cutting(folder: Path) -> Student:
    return load_student(folder, threads=1)


@pytest.fixture(scope="module")
def chunking(folder: Path) -> Student:
    return load_student(folder, threads=1, long_text="chunk")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> SentenceTokenizer:
    return SentenceTokenizer.load(folder / "tokenizer.json", READ)


def oracle(student: Student, tokenizer: SentenceTokenizer, text: str) -> np.ndarray:
    """The mean of what the graph says of each piece alone, weighed by its tokens."""
    pieces = tokenizer.pieces([text]).tokens
    rows = [Tokens.gathered([(pieces, row)]) for row in range(len(pieces))]
    mean = sum(student.encoder.forward(row)[0] * len(row.ids.values) for row in rows)
    return np.asarray(mean / np.linalg.norm(mean))


@settings(max_examples=60)
@given(texts=st.lists(TEXTS, max_size=6))
def test_a_text_is_the_mean_of_its_pieces_and_a_short_one_what_it_always_was(
    cutting: Student, chunking: Student, tokenizer: SentenceTokenizer, texts: list[str]
) -> None:
    found = chunking.encoder.encode(texts)
    assert found.shape == (len(texts), chunking.encoder.dims)
    for text, row in zip(texts, found, strict=True):
        np.testing.assert_allclose(row, oracle(chunking, tokenizer, text), atol=1e-6)
    np.testing.assert_allclose(whole_embeddings(tokenizer, cutting.encoder.embed, texts), found, atol=1e-7)
    short = [row for row, cut in enumerate(cutting.encoder.tokenize(texts).truncated) if not cut]
    np.testing.assert_array_equal(found[short], cutting.encoder.encode(texts)[short])


def test_what_is_read_of_a_text_has_an_end(chunking: Student) -> None:
    most = MOST_PIECES * (READ - 2)  # tokens, a letter each, beside the markers
    texts = ["a b " * (most // 2), "a b " * (most // 2) + "c", "a b " * (most // 2) + "z " * 100_000]
    tokens = chunking.encoder.tokenize(texts)
    assert tokens.truncated.tolist() == [False, True, True]
    assert chunking.encoder.max_tokens == MOST_PIECES * READ
    assert tokens.lengths.tolist() == 3 * MOST_PIECES * [READ]
    embeddings = chunking.encoder.embed(tokens)
    np.testing.assert_array_equal(embeddings[1:], embeddings[[0, 0]])


def test_batches_and_workers_read_as_the_encoder_does(chunking: Student, folder: Path) -> None:
    texts = ["abcdefghijklmnop" * 3, "ab", "qrstuvwxyz" * 2]
    expected = chunking.encoder.encode(texts)
    (found,) = chunking.encoder.with_token_budget(16).encode_batches([texts])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(BundleFreight.of(folder, "chunk")(1)(texts), expected, atol=1e-6)
    assert not np.allclose(BundleFreight.of(folder, "truncate")(1)(texts)[0], expected[0], atol=1e-3)


def test_it_is_another_encoder(cutting: Student, chunking: Student) -> None:
    assert chunking.encoder_digest == f"{cutting.encoder_digest}+chunk"
