"""Batches that threads share out are answered as each row is alone, and no failure among them is lost."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle import GRAPH_FILES, TOKENIZER
from model.manifest import ArtifactError
from model.sessions import GraphRunner
from model.tokens import BATCH_TOKENS, LEAST_TOKENS, SentenceTokenizer, Tokens, plan_shares
from tests import tiny

OUTPUT = "sentence_embedding"
TEXTS = st.lists(st.text("abc ", min_size=1, max_size=120), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_student(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def tokenizer(bundle: Path) -> SentenceTokenizer:
    return SentenceTokenizer.load(bundle / TOKENIZER, 128)


@pytest.fixture(scope="module")
def runners(bundle: Path) -> dict[int, GraphRunner]:
    return {threads: GraphRunner(bundle / GRAPH_FILES["int8"], threads) for threads in (1, 2, 3, 16)}


def long(tokenizer: SentenceTokenizer, rows: int) -> Tokens:
    """Texts of which no two fit a batch of the least size."""
    return tokenizer.tokenize(["a" * LEAST_TOKENS] * rows)


@given(texts=TEXTS, budget=st.sampled_from([None, 8, 10_000]))
@settings(deadline=None)
def test_rows_are_answered_in_order_as_each_alone(
    runners: dict[int, GraphRunner], tokenizer: SentenceTokenizer, texts: list[str], budget: int | None
) -> None:
    alone = [tokenizer.tokenize([text]) for text in texts]
    expected = [runners[1].run(OUTPUT, one.lengths, partial(tokenizer.padded, one))[0] for one in alone]
    tokens = tokenizer.tokenize(texts)
    for runner in runners.values():
        found = runner.run(OUTPUT, tokens.lengths, partial(tokenizer.padded, tokens), budget)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@given(lengths=st.lists(st.integers(1, 300), max_size=200), threads=st.integers(1, 16))
def test_every_row_has_one_share_and_threads_have_work(lengths: list[int], threads: int) -> None:
    shares = plan_shares(np.array(lengths, np.intp), threads)
    assert sorted(row for share in shares for row in share) == list(range(len(lengths)))
    padded = [max(lengths[row] for row in share) * len(share) for share in shares]
    assert all(tokens <= BATCH_TOKENS or len(share) == 1 for tokens, share in zip(padded, shares, strict=True))
    if sum(lengths) <= threads * LEAST_TOKENS:
        assert len(shares) <= threads
    if threads == 1 and max(lengths, default=0) * len(lengths) <= BATCH_TOKENS:
        assert len(shares) <= 1


@given(length=st.integers(LEAST_TOKENS, 128), threads=st.integers(1, 16), each=st.integers(1, 2))
def test_rows_alike_are_shared_evenly(length: int, threads: int, each: int) -> None:
    shares = plan_shares(np.full(threads * each, length), threads)
    assert [len(share) for share in shares] == [each] * threads


@pytest.mark.parametrize(("rows", "threads", "sizes"), [(12, 2, [6, 6]), (20, 2, [5] * 4), (18, 2, [5, 5, 5, 3])])
def test_a_few_batches_are_of_one_size(rows: int, threads: int, sizes: list[int]) -> None:
    """Filled up to the most, batches of 8 would leave the last thread 4, 4 and 2."""
    assert [len(share) for share in plan_shares(np.full(rows, 32), threads)] == sizes


def test_as_many_batches_run_at_once_as_there_are_threads(
    runners: dict[int, GraphRunner], tokenizer: SentenceTokenizer
) -> None:
    tokens, together = long(tokenizer, 3), threading.Barrier(3, timeout=30)

    def arrays(rows: np.ndarray) -> dict[str, np.ndarray]:
        together.wait()  # until all three are here
        return tokenizer.padded(tokens, rows)

    assert runners[3].run(OUTPUT, tokens.lengths, arrays).shape == (3, tiny.DIMS)


def test_calls_do_not_wait_for_each_other(runners: dict[int, GraphRunner], tokenizer: SentenceTokenizer) -> None:
    """Every call's own thread works, though its helpers are another call's for as long as that lasts."""
    tokens, go_on = long(tokenizer, 2), threading.Event()

    def held(rows: np.ndarray) -> dict[str, np.ndarray]:
        assert go_on.wait(30)
        return tokenizer.padded(tokens, rows)

    with ThreadPoolExecutor(1) as beside:
        first = beside.submit(runners[2].run, OUTPUT, tokens.lengths, held)
        second = runners[2].run(OUTPUT, tokens.lengths, partial(tokenizer.padded, tokens))
        assert not first.done()
        go_on.set()
        np.testing.assert_array_equal(first.result(30), second)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("broken", [0, 3])
def test_a_batch_that_fails_is_the_callers_failure(
    runners: dict[int, GraphRunner], tokenizer: SentenceTokenizer, threads: int, broken: int
) -> None:
    tokens = long(tokenizer, 4)

    def arrays(rows: np.ndarray) -> dict[str, np.ndarray]:
        if broken in rows:
            raise ArithmeticError(f"row {broken}")
        return tokenizer.padded(tokens, rows)

    with pytest.raises(ArithmeticError, match=f"row {broken}"):
        runners[threads].run(OUTPUT, tokens.lengths, arrays)
    assert len(runners[threads].run(OUTPUT, tokens.lengths, partial(tokenizer.padded, tokens))) == 4


def test_a_batch_that_fails_in_a_helper_is_the_callers_failure(
    runners: dict[int, GraphRunner], tokenizer: SentenceTokenizer
) -> None:
    tokens, caller = long(tokenizer, 2), threading.get_ident()
    together = threading.Barrier(2, timeout=30)

    def arrays(rows: np.ndarray) -> dict[str, np.ndarray]:
        together.wait()  # until each of the two has a batch
        if threading.get_ident() != caller:
            raise ArithmeticError("the helper's")
        return tokenizer.padded(tokens, rows)

    with pytest.raises(ArithmeticError, match="the helper's"):
        runners[2].run(OUTPUT, tokens.lengths, arrays)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=r"graph\.onnx is not a graph"):
        GraphRunner(tmp_path / "graph.onnx", 1)
