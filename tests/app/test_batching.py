"""The micro-batcher: whose texts run when, and what is answered to those whose texts do not."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.batching import TOKEN_BUDGET, Queue, Queues, retry_after
from app.calls import CALL, CLIENT_GONE, Call
from app.errors import ServiceError
from app.settings import BUNDLES, Settings
from model.bundle import Student, load_student, load_teacher
from model.tokens import PairTokens, Ragged, Tokens
from tests.waiting import until

BUDGET = 32


def texts(*lengths: int, first: int = 1) -> Tokens:
    """Texts of some lengths, no two alike: the first token of each counts up from ``first``."""
    rows = [[first + at] + [0] * (length - 1) for at, length in enumerate(lengths)]
    return Tokens(Ragged.of(rows), np.zeros(len(rows), np.bool_))


class Graph:
    """Answers each row with its first token and its length; notes each batch; waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.faults: dict[int, BaseException] = {}  # by first token

    def __call__(self, tokens: Tokens) -> NDArray[np.int64]:
        rows = [(int(tokens.ids.row(row)[0]), int(tokens.lengths[row])) for row in range(len(tokens))]
        self.batches.append(rows)
        self.entered.set()
        assert self.open.wait(10)
        for token, _ in rows:
            if token in self.faults:
                raise self.faults[token]
        return np.array(rows, np.int64)


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def queue(graph: Graph) -> Iterator[Queue]:
    queue = Queue("fake", graph, BUDGET, max_tokens=200, seconds_down=0.2)
    yield queue
    graph.open.set()
    queue.close()


@pytest.fixture
def ask(queue: Queue, graph: Graph) -> Iterator[Callable[..., Future[NDArray[Any]]]]:
    """Ask the queue in a thread of its own; returns once the texts wait there."""
    with ThreadPoolExecutor(64) as pool:

        def ask(tokens: Tokens, call: Call | None = None, waits: bool = True) -> Future[NDArray[Any]]:
            context = copy_context()
            context.run(CALL.set, call)
            before = queue.waiting[0]
            future = pool.submit(context.run, queue.run, tokens)
            until(lambda: not waits or future.done() or queue.waiting[0] >= before + len(tokens))
            return future

        yield ask
        graph.open.set()


def hold(graph: Graph, ask: Callable[..., Future[NDArray[Any]]], token: int = 1000) -> Future[NDArray[Any]]:
    """Let a text enter the graph and stay there."""
    graph.open.clear()
    graph.entered.clear()
    held = ask(texts(1, first=token), waits=False)
    assert graph.entered.wait(5)
    return held


def status_of(future: Future[Any]) -> int:
    error = future.exception(5)
    assert isinstance(error, ServiceError)
    return error.status


# The queue


@given(requests=st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=12), min_size=1, max_size=8))
def test_every_request_gets_its_own_answers_in_order(requests: list[list[int]]) -> None:
    graph = Graph()
    queue = Queue("fake", graph, BUDGET, max_tokens=10**6)
    asked = [texts(*lengths, first=100 * number) for number, lengths in enumerate(requests)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(queue.run, asked))
    queue.close()
    for number, (lengths, answer) in enumerate(zip(requests, answers, strict=True)):
        assert answer.tolist() == [[100 * number + at, length] for at, length in enumerate(lengths)]
    for batch in graph.batches:
        assert len(batch) == 1 or sum(length for _, length in batch) <= BUDGET
    assert queue.waiting == (0, 0)


def test_an_idle_worker_takes_a_text_at_once_and_then_what_came_meanwhile(graph: Graph, ask: Any) -> None:
    held = hold(graph, ask)
    waiting = [ask(texts(4, first=token)) for token in (1, 2, 3)]
    graph.open.set()
    assert [future.result(5).tolist() for future in (held, *waiting)] == [[[1000, 1]], *[[[t, 4]] for t in (1, 2, 3)]]
    assert graph.batches == [[(1000, 1)], [(1, 4), (2, 4), (3, 4)]]


def test_a_small_request_does_not_wait_for_a_huge_one(graph: Graph, ask: Any) -> None:
    held = hold(graph, ask)
    huge, small = ask(texts(*[16] * 10, first=1)), ask(texts(2, first=99))
    graph.open.set()
    huge.result(5), small.result(5), held.result(5)
    tokens = [[token for token, _ in batch] for batch in graph.batches]
    assert 99 in tokens[1], tokens


def test_what_is_alike_is_answered_in_the_order_in_which_it_came(graph: Graph, ask: Any) -> None:
    hold(graph, ask)
    asked = [ask(texts(*[32] * 2, first=first)) for first in (1, 11, 21)]
    graph.open.set()
    assert [len(future.result(5)) for future in asked] == [2, 2, 2]
    assert [batch[0][0] // 10 for batch in graph.batches[1:]] == [0, 0, 1, 1, 2, 2]


def test_what_waited_gets_its_turn_before_small_ones_that_keep_coming(graph: Graph, queue: Queue, ask: Any) -> None:
    held = hold(graph, ask)
    large = ask(texts(32, 32, first=1))
    came = []

    def another(batch: Any) -> None:
        if not large.done():
            came.append(ask(texts(20, first=100 + len(came))))

    queue.on_batch = another
    graph.open.set()
    assert [len(future.result(5)) for future in (held, large)] == [1, 2]
    queue.on_batch = lambda batch: None
    order = [batch[0][0] for batch in graph.batches]
    assert max(order.index(1), order.index(2)) < 20, order
    assert all(len(future.result(5)) == 1 for future in came)


def test_who_gave_up_has_no_share_of_what_is_done_after(graph: Graph, queue: Queue, ask: Any) -> None:
    held = hold(graph, ask)
    call = Call("gone", timeout=10)
    left, first = ask(texts(32, 32, 32, first=1), call), ask(texts(32, 32, first=11))
    call.gone = True
    came = []

    def another(batch: Any) -> None:
        if len(graph.batches) == 2:
            came.append(ask(texts(20, 20, first=21)))  # with half of a share the first would be far from its end

    queue.on_batch = another
    graph.open.set()
    assert [len(future.result(5)) for future in (held, first)] == [1, 2]
    assert len(came[0].result(5)) == 2
    assert status_of(left) == CLIENT_GONE
    assert [batch[0][0] // 10 for batch in graph.batches[1:]] == [1, 1, 2, 2]


def test_equal_texts_run_once(graph: Graph, ask: Any) -> None:
    hold(graph, ask)
    twins = [ask(texts(4, first=7)) for _ in range(3)]
    other = ask(texts(4, first=8))
    graph.open.set()
    assert [twin.result(5).tolist() for twin in twins] == [[[7, 4]]] * 3
    assert other.result(5).tolist() == [[8, 4]]
    assert sorted(graph.batches[1]) == [(7, 4), (8, 4)]


def test_pairs_that_differ_in_their_segments_alone_are_not_equal() -> None:
    ids, types = Ragged.of([[1, 2], [1, 2]]), Ragged.of([[0, 0], [0, 1]])
    tokens = PairTokens(ids, np.zeros(2, np.bool_), types)
    queue = Queue("fake", lambda tokens: tokens.type_ids.values.reshape(len(tokens), 2).sum(axis=1))
    assert queue.run(tokens).tolist() == [0, 1]
    queue.close()


def test_a_text_above_the_budget_runs_alone(graph: Graph, queue: Queue) -> None:
    assert queue.run(texts(50, 2)).tolist() == [[1, 50], [2, 2]]
    assert sorted(map(len, graph.batches)) == [1, 1]


def test_a_batch_may_be_just_as_large_as_the_budget(graph: Graph, queue: Queue) -> None:
    queue.run(texts(*[BUDGET // 2] * 4))
    assert [len(batch) for batch in graph.batches] == [2, 2]


def test_the_inference_of_a_request_is_that_of_all_its_batches() -> None:
    def slow(tokens: Tokens) -> NDArray[np.int64]:
        time.sleep(0.05)
        return tokens.lengths

    queue, call = Queue("slow", slow, BUDGET), Call("a", timeout=60)
    CALL.set(call)
    queue.run(texts(*[BUDGET] * 4))
    CALL.set(None)
    queue.close()
    assert call.seconds["inference"] > 0.19  # four times 0.05, or hardly less


# Refusals


def test_a_request_that_never_fits_is_413_and_names_the_limit(queue: Queue) -> None:
    with pytest.raises(
        ServiceError, match=r"201 tokens in one request; the limit is 200 \(DSE_MAX_QUEUE_TOKENS\)"
    ) as no:
        queue.run(texts(200, 1))
    assert no.value.status == 413


def test_a_full_queue_is_429_with_when_to_try_again(graph: Graph, queue: Queue, ask: Any) -> None:
    hold(graph, ask)
    full = ask(texts(*[32] * 6))
    assert queue.waiting == (6, 192)
    refused = ask(texts(9, first=50)).exception(5)
    assert (refused.status, refused.retry_after) == (429, 1)
    fits = ask(texts(8, first=50))
    graph.open.set()
    assert full.result(5).shape == (6, 2)
    assert fits.result(5).tolist() == [[50, 8]]
    assert queue.waiting == (0, 0)
    assert queue.run(texts(200)).tolist() == [[1, 200]]


def test_retry_after_is_the_measured_time_in_whole_seconds(graph: Graph, queue: Queue, ask: Any) -> None:
    queue._seen_tokens, queue._seen_seconds = 10.0, 0.4  # 25 tokens a second
    hold(graph, ask)
    ask(texts(*[25] * 6))
    assert queue.seconds_to_empty == pytest.approx(6)
    assert [retry_after(seconds) for seconds in (0, 1.2, 10**6)] == [1, 2, 60]


def test_there_is_room_again_when_the_busiest_has_some(graph: Graph) -> None:
    queues = Queues()
    assert queues.seconds_to_empty == 0
    for waiting in (50, 150, 0):
        queue = Queue("fake", graph)
        queue._tokens, queue._seen_tokens, queue._seen_seconds = waiting, 10.0, 0.4  # 25 tokens a second
        queues.all.append(queue)
    assert queues.seconds_to_empty == pytest.approx(6)


def test_nobody_waits_long_but_who_asks_for_much(graph: Graph, queue: Queue, ask: Any) -> None:
    queue._max_wait = 2.0
    queue._seen_tokens, queue._seen_seconds = 100.0, 5.0  # 0.05 s a token
    hold(graph, ask)
    large = ask(texts(30, 30, 30))  # 4.5 s of work, of which a small request waits for none
    small = [ask(texts(2, first=100 + 10 * number)) for number in range(21)]  # before the last of them are 2 s of work
    refused = ask(texts(2, first=70)).exception(5)
    assert isinstance(refused, ServiceError)
    assert (refused.status, refused.retry_after) == (429, 3)
    assert str(refused).startswith("fake has work for 2.1 seconds before this, more than it would let wait (DSE_MAX_WA")
    other = ask(texts(20, 20, first=60))  # it takes 2 s itself, and waits up to 32
    graph.open.set()
    assert [len(future.result(5)) for future in (large, *small, other)] == [3, *[1] * 21, 2]


def test_throughput_is_by_the_clock_while_there_is_work(graph: Graph, queue: Queue, ask: Any) -> None:
    """What is done between two batches, by whomever, takes time from what waits too."""
    held = hold(graph, ask)
    waiting = [ask(texts(20, first=first)) for first in (1, 2)]
    pick = queue._pick
    queue._pick = lambda: (time.sleep(0.1), pick())[1]  # type: ignore[method-assign]
    graph.open.set()
    assert [len(future.result(5)) for future in (held, *waiting)] == [1, 1, 1]
    queue._pick = pick  # type: ignore[method-assign]
    assert queue._seconds(40) > 0.15
    ask(texts(20, first=3)).result(5)
    before = queue._seen_seconds
    time.sleep(0.2)  # idle
    ask(texts(20, first=4)).result(5)
    assert queue._seen_seconds == before


def test_time_after_the_last_one_left_is_no_work(graph: Graph, queue: Queue, ask: Any) -> None:
    hold(graph, ask)
    call = Call("gone", timeout=10)
    left = ask(texts(4, first=7), call)
    call.gone = True
    graph.open.set()
    assert status_of(left) == CLIENT_GONE
    until(lambda: not queue._line)
    time.sleep(0.5)  # idle
    assert len(ask(texts(20, 20, first=20)).result(5)) == 2
    assert 0 < queue._seen_seconds < 0.25


def test_whoever_stops_waiting_a_little_early_is_late(graph: Graph, ask: Any) -> None:
    """Clocks are not the same to the last digit: a wait may end before the deadline has passed."""

    class Early(Call):
        left = 0.05

    hold(graph, ask)
    assert status_of(ask(texts(4), Early("early", timeout=10))) == 504


def test_what_waits_beyond_its_deadline_is_504_and_never_runs(graph: Graph, queue: Queue, ask: Any) -> None:
    held = hold(graph, ask)
    late = ask(texts(4, first=7), Call("late", timeout=0.05))
    assert status_of(late) == 504
    graph.open.set()
    held.result(5)
    until(lambda: queue.waiting == (0, 0))
    assert graph.batches == [[(1000, 1)]]
    assert queue.dropped == 1


def test_what_is_late_when_it_comes_never_runs(graph: Graph, ask: Any) -> None:
    assert status_of(ask(texts(4), Call("late", timeout=0.0), waits=False)) == 504
    call = Call("gone", timeout=10)
    call.gone = True
    assert status_of(ask(texts(4), call, waits=False)) == CLIENT_GONE
    assert graph.batches == []


def test_what_a_client_left_behind_never_runs(graph: Graph, queue: Queue, ask: Any) -> None:
    hold(graph, ask)
    call = Call("gone", timeout=10)
    left, stays = ask(texts(4, 4, first=7), call), ask(texts(4, first=20))
    call.gone = True
    graph.open.set()
    assert status_of(left) == CLIENT_GONE
    assert stays.result(5).tolist() == [[20, 4]]
    assert graph.batches == [[(1000, 1)], [(20, 4)]]
    assert queue.dropped == 2


def test_a_client_that_leaves_between_batches_costs_no_further_one(graph: Graph, queue: Queue, ask: Any) -> None:
    hold(graph, ask)
    call = Call("gone", timeout=10)
    huge = ask(texts(*[32] * 5), call)
    graph.entered.clear()
    original = graph.__call__
    queue._forward = lambda tokens: (setattr(call, "gone", True), original(tokens))[1]
    graph.open.set()
    assert status_of(huge) == CLIENT_GONE
    assert len(graph.batches) == 2
    assert queue.waiting == (0, 0)


# Faults


def test_alone_no_thread_is_changed_and_whatever_happens_there_the_next_is_answered(graph: Graph, queue: Queue) -> None:
    graph.faults[1] = SystemExit("killed")
    with pytest.raises(SystemExit):
        queue.run(texts(4, 4))
    assert queue.run(texts(4, 4, first=5)).tolist() == [[5, 4], [6, 4]]
    assert queue._thread is None
    assert (queue.waiting, queue.fault()) == ((0, 0), None)


def test_a_batch_that_fails_fails_only_the_request_that_is_at_fault(graph: Graph, queue: Queue, ask: Any) -> None:
    hold(graph, ask)
    graph.faults[2] = ArithmeticError("not finite")
    good, bad, other = (ask(texts(4, first=token)) for token in (1, 2, 3))
    graph.open.set()
    assert good.result(5).tolist() == [[1, 4]]
    assert other.result(5).tolist() == [[3, 4]]
    assert isinstance(bad.exception(5), ArithmeticError)
    assert queue.waiting == (0, 0)
    assert queue.fault() is None


def test_a_dead_worker_is_told_at_once_fails_what_waits_and_begins_again(graph: Graph, queue: Queue, ask: Any) -> None:
    hold(graph, ask)
    graph.faults[1] = SystemExit("killed")
    waiting = [ask(texts(4, first=1)), ask(texts(32, first=2)), ask(texts(32, 32, first=3))]
    graph.open.set()
    assert [status_of(future) for future in waiting] == [503] * 3
    assert queue.fault() == "the worker of fake died"
    with pytest.raises(ServiceError) as no:
        queue.run(texts(3))
    assert (no.value.status, no.value.retry_after) == (503, 1)
    until(lambda: queue.fault() is None)
    assert queue.run(texts(3, first=5)).tolist() == [[5, 3]]
    assert (queue.restarts, queue.waiting) == (1, (0, 0))


def test_a_batch_without_an_end_is_a_fault(graph: Graph, queue: Queue, ask: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("app.batching.STALLED_SECONDS", 0.05)
    assert queue.fault() is None
    hold(graph, ask)
    until(lambda: queue.fault() is not None)
    assert "in one batch for" in str(queue.fault())
    graph.open.set()
    until(lambda: queue.fault() is None)


def test_closing_fails_what_waits_and_refuses_what_comes(graph: Graph, queue: Queue, ask: Any) -> None:
    held = hold(graph, ask)
    waiting = ask(texts(4))
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(queue.close)
        until(lambda: queue._closed)
        graph.open.set()
        closing.result(5)
    assert held.result(5).tolist() == [[1000, 1]]
    assert status_of(waiting) == 503
    with pytest.raises(ServiceError, match="the service is stopping"):
        queue.run(texts(1))


# The models


SENTENCES = [
    "A man is playing a flute.",
    "Someone makes music.",
    "How do I wait for several threads to finish?",
    "stone",
    "The quick brown fox jumps over the lazy dog, and then, because it is tired, sleeps for the rest of the day.",
    "listen " * 100,
]


def test_the_shipped_student_answers_the_same_alone_and_in_company() -> None:
    student = load_student(BUNDLES / "dse-minilm-l6", threads=1)
    queues = Queues()
    encoder = queues.student(student).encoder
    requests: Sequence[list[str]] = [[a, b] for a in SENTENCES for b in SENTENCES if a != b]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(encoder.encode, requests))
    queues.close()
    alone = {text: student.encoder.encode([text])[0] for text in SENTENCES}
    for request, embeddings in zip(requests, together, strict=True):
        for text, embedding in zip(request, embeddings, strict=True):
            np.testing.assert_allclose(embedding, alone[text], atol=1e-6)


def test_the_shipped_teacher_answers_the_same_alone_and_in_company() -> None:
    teacher = load_teacher(BUNDLES / "teacher-minilm-l6", threads=1)
    queues = Queues()
    scorer = queues.teacher(teacher).scorer
    pairs = [(a, b) for a in SENTENCES for b in SENTENCES[:3]]
    with ThreadPoolExecutor(16) as pool:
        together = [answer.logits[0] for answer in pool.map(lambda pair: scorer.score([pair]), pairs)]
    queues.close()
    alone = [teacher.scorer.score([pair]).logits[0] for pair in pairs]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_setting_is_what_a_queue_takes_by_itself() -> None:
    assert Settings().batch_tokens == TOKEN_BUDGET  # the settings are read before numpy may be loaded


def test_no_texts_no_answers(student: Student) -> None:
    queues = Queues()
    assert queues.student(student).encoder.encode([]).shape == (0, 16)
    teacher = queues.teacher(load_teacher(BUNDLES / "teacher-minilm-l6", threads=1))
    assert teacher.scorer.score([]).logits.shape == (0,)
    names = ["tiny-student", "teacher-minilm-l6", "teacher-minilm-l6#2"]  # a queue for each of the teacher's graphs
    assert [queue.name for queue in queues.all] == names
    queues.close()
