import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.retriever import CosineScorer, HeadScorer, Retriever, TeacherScorer
from index.documents import Document
from model.bundle import Student
from model.head import Calibration, CosineHead
from tests.conftest import WORDS, build_index
from tests.fakes import ExhaustiveIndex, LengthTeacher, LetterEncoder

PLAIN = Calibration(1.0, 0.0)
COSINE = HeadScorer(CosineHead(), PLAIN)


def retriever(texts: list[str]) -> Retriever:
    documents = [Document(f"d{row}", text) for row, text in enumerate(texts)]
    return Retriever(LetterEncoder(), ExhaustiveIndex(documents, LetterEncoder()))


def search(found: Retriever, text: str, k: int, depth: int = 10, scorer=COSINE) -> list[str]:
    return [hit.document.text for hit in found.search(found.queries([text])[0], k, depth, scorer).hits]


def test_an_anagram_is_the_best_hit() -> None:
    assert search(retriever(["google", "listen", "banana"]), "silent", k=1) == ["listen"]


def test_a_hit_carries_its_own_id_text_and_similarity() -> None:
    found = retriever(["google", "listen"])
    (hit,) = found.search(found.queries(["silent"])[0], 1, 10, COSINE).hits
    assert (hit.document.id, hit.document.text) == ("d1", "listen")
    assert hit.similarity == pytest.approx(1)
    assert hit.score == pytest.approx(1 / (1 + np.exp(-1)))


def test_ties_are_ordered_by_id() -> None:
    documents = [Document(id_, "listen") for id_ in ("b", "c", "a")]
    found = Retriever(LetterEncoder(), ExhaustiveIndex(documents, LetterEncoder()))
    hits = found.search(found.queries(["silent"])[0], 3, 3, COSINE).hits
    assert [hit.document.id for hit in hits] == ["a", "b", "c"]


@pytest.mark.parametrize("scorer", [COSINE, TeacherScorer(LengthTeacher(), PLAIN)])
def test_of_candidates_that_tie_for_the_last_place_the_first_id_gets_it(scorer) -> None:
    documents = [Document(id_, text) for id_, text in [("b", "enlist"), ("c", "silent"), ("a", "tinsel"), ("z", "go")]]
    found = Retriever(LetterEncoder(), ExhaustiveIndex(documents, LetterEncoder()))
    for k in (1, 2, 3, 4):
        hits = found.search(found.queries(["listen"])[0], k, 4, scorer).hits
        assert [hit.document.id for hit in hits] == ["a", "b", "c", "z"][:k]


class Counting(ExhaustiveIndex):
    """Remembers how many documents were read at a time."""

    def documents(self, rows: np.ndarray) -> list[Document]:
        self.read.append(len(rows))
        return super().documents(rows)


@pytest.mark.parametrize(("scorer", "read"), [(COSINE, [2]), (TeacherScorer(LengthTeacher(), PLAIN), [5])])
def test_only_documents_that_are_answered_or_looked_at_are_read(scorer, read: list[int]) -> None:
    texts = ["listen", "google", "banana", "stone", "a"]
    index = Counting([Document(f"d{row}", text) for row, text in enumerate(texts)], LetterEncoder())
    index.read = []
    found = Retriever(LetterEncoder(), index)
    assert len(found.search(found.queries(["lists"])[0], 2, 5, scorer).hits) == 2
    assert index.read == read


def test_equal_texts_tie_wherever_they_stand(tmp_path, student: Student) -> None:
    from index.generations import Generation

    folder = build_index(tmp_path / "index", student, ["a horse"] * 40 + ["a house"])
    found = Retriever(student.encoder, Generation.open(folder))
    hits = found.search(found.queries(["horses"])[0], 40, 41, HeadScorer(student.head, student.score)).hits
    twins = [hit for hit in hits if hit.document.text == "a horse"]
    assert len({(hit.logit, hit.score, hit.similarity) for hit in twins}) == 1
    assert [hit.document.id for hit in twins] == sorted(hit.document.id for hit in twins)


def test_k_beyond_depth_still_answers_k() -> None:
    assert len(search(retriever(WORDS), "silent", k=5, depth=2)) == 5


def test_the_teacher_ranks_by_reading_the_text() -> None:
    scorer = TeacherScorer(LengthTeacher(), PLAIN)
    assert search(retriever(["abcdef", "abc", "ab"]), "xyz abc", k=1, scorer=scorer) == ["abcdef"]
    assert search(retriever(["abcdef", "abc", "ab"]), "abc", k=1, scorer=scorer) == ["abc"]


def test_without_reranking_the_score_is_the_calibrated_cosine() -> None:
    found = retriever(["listen", "google"])
    hits = found.search(found.queries(["silent"])[0], 2, 2, CosineScorer(Calibration(4.0, -2.0))).hits
    assert [hit.score for hit in hits] == [pytest.approx(1 / (1 + np.exp(2 - 4 * hit.similarity))) for hit in hits]


@settings(max_examples=25)
@given(query=st.text("abcdefgh ", min_size=1, max_size=12).filter(str.strip), k=st.integers(1, 10))
def test_at_full_depth_search_is_exhaustive_head_scoring(words_index, student: Student, query: str, k: int) -> None:
    """The oracle scores every document with the same head, one pair at a time."""
    from index.generations import Generation

    scorer = HeadScorer(student.head, student.score)
    found = Retriever(student.encoder, Generation.open(words_index))
    hits = found.search(found.queries([query])[0], k, len(WORDS), scorer).hits

    u = student.encoder.encode([query])
    logits = {word: student.head.logits(u, student.encoder.encode([word]))[0] for word in WORDS}
    best = sorted(WORDS, key=lambda word: -logits[word])[:k]
    np.testing.assert_allclose([hit.logit for hit in hits], [logits[word] for word in best], atol=2e-5)
    for hit in hits:  # ids, texts and metadata belong to the document that was scored
        assert hit.document.text == WORDS[int(hit.document.id[1:])]
        assert hit.document.metadata == {"length": len(hit.document.text)}
        assert hit.logit == pytest.approx(logits[hit.document.text], abs=2e-5)


def test_more_depth_never_loses_a_better_hit(words_index, student: Student) -> None:
    from index.generations import Generation

    scorer = HeadScorer(student.head, student.score)
    found = Retriever(student.encoder, Generation.open(words_index))
    query = found.queries(["tonsil"])[0]
    best = [found.search(query, 1, depth, scorer).hits[0].logit for depth in range(1, len(WORDS) + 1)]
    assert best == sorted(best)


def test_an_approximate_index_answers_with_exact_similarities(tmp_path, student: Student) -> None:
    from index.generations import Generation

    texts = ["".join(np.random.default_rng(n).choice(list("abcdefgh"), 6)) for n in range(300)]
    generation = Generation.open(build_index(tmp_path / "index", student, sorted(set(texts)), recipe="SQ4"))
    query = student.encoder.encode(["hgfedcba"])[0]
    found = generation.search(query, 20)
    np.testing.assert_allclose(found.similarities, found.embeddings @ query, atol=1e-5)
    assert list(found.similarities) == sorted(found.similarities, reverse=True)
