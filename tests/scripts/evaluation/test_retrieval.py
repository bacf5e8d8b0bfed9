import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.retriever import HeadScorer, Retriever
from index.documents import Document
from model.head import Calibration
from scripts.evaluation import retrieval
from scripts.evaluation.sets import SetFacts
from tests.fakes import ExhaustiveIndex, LetterEncoder

FACTS = SetFacts("letters/test", "retrieval", 1, 1, False, None, {})
WORDS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=12)


class FirstLetterHead:
    """Prefers documents by how many letters a they have."""

    def logits(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return right[:, 0].astype(np.float64)


def ranked_by_hand(query: str, documents: list[str], depth: int) -> list[int]:
    """Cosines one by one, then sorted with ties by row."""

    def cosine(document: str) -> float:
        counts = [(query.count(letter), document.count(letter)) for letter in "abc"]
        lengths = math.sqrt(sum(x * x for x, _ in counts) * sum(y * y for _, y in counts))
        return round(sum(x * y for x, y in counts) / lengths, 5)

    return sorted(range(len(documents)), key=lambda row: (-cosine(documents[row]), row))[:depth]


@given(queries=WORDS, documents=WORDS, depth=st.integers(1, 15))
def test_the_nearest_are_those_of_comparing_one_by_one(queries: list[str], documents: list[str], depth: int) -> None:
    encoder = LetterEncoder()
    found = retrieval.nearest(encoder.encode(queries), encoder.encode(documents), depth, [None] * len(queries))
    for row, query in zip(found.tolist(), queries, strict=True):
        expected = ranked_by_hand(query, documents, depth)
        assert row == expected + [retrieval.NOTHING] * (depth - len(expected))


def test_more_queries_than_a_block_keep_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "QUERIES_PER_BLOCK", 2)
    texts = ["a", "b", "c", "ab", "bc"]
    rows = LetterEncoder().encode(texts)
    assert retrieval.nearest(rows, rows, 1, [None] * 5)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert retrieval.nearest(rows, rows, 5, [0, 1, 2, 3, 4])[:, 4].tolist() == [retrieval.NOTHING] * 5


def test_the_head_orders_what_the_cosine_found_and_adds_nothing() -> None:
    encoder = LetterEncoder()
    queries, documents = encoder.encode(["bbb"]), encoder.encode(["a", "ab", "b", "aab", "c"])
    by_cosine = retrieval.nearest(queries, documents, 3, [None])
    assert by_cosine.tolist() == [[2, 1, 3]]
    assert retrieval.reordered(by_cosine, queries, documents, FirstLetterHead()).tolist() == [[3, 1, 2]]


@given(query=st.text("abc", min_size=1, max_size=4), texts=WORDS)
def test_the_heads_order_is_what_the_service_answers(query: str, texts: list[str]) -> None:
    encoder = LetterEncoder()
    documents = [Document(f"d{row:02}", text, {}) for row, text in enumerate(texts)]
    service = Retriever(encoder, ExhaustiveIndex(documents, encoder))
    scorer = HeadScorer(FirstLetterHead(), Calibration(1.0, 0.0))
    hits = service.search(service.queries([query])[0], len(texts), len(texts), scorer).hits
    queries, embeddings = encoder.encode([query]), encoder.encode(texts)
    by_cosine = retrieval.nearest(queries, embeddings, len(texts), [None])
    ours = retrieval.reordered(by_cosine, queries, embeddings, FirstLetterHead())
    assert [documents[row].id for row in ours[0]] == [hit.document.id for hit in hits]


def test_equal_scores_of_the_head_go_by_id() -> None:
    encoder = LetterEncoder()
    queries, documents = encoder.encode(["b"]), encoder.encode(["bc", "b", "bbc"])
    by_cosine = retrieval.nearest(queries, documents, 10, [None])
    assert by_cosine[0, :3].tolist() == [1, 2, 0]
    reordered = retrieval.reordered(by_cosine, queries, documents, FirstLetterHead())
    assert reordered.tolist() == [[0, 1, 2] + [retrieval.NOTHING] * 7]


def test_figures_of_two_queries() -> None:
    ranking = np.array([[4, 1, 0], [3, 2, retrieval.NOTHING]])
    found = retrieval.figures(ranking, [{1: 2.0, 0: 1.0, 9: 1.0}, {7: 1.0}])
    gain = (2 / math.log2(3) + 1 / 2) / (2 + 1 / math.log2(3) + 1 / 2)
    assert found["ndcg@10"] == pytest.approx([gain, 0])
    assert found["mrr@10"] == pytest.approx([1 / 2, 0])
    assert found["recall@10"] == pytest.approx([2 / 3, 0])
    assert found["recall@100"] == pytest.approx([2 / 3, 0])
