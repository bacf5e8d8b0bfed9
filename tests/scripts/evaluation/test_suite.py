from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.head import Head
from scripts.console import BadInput
from scripts.evaluation.results import Results, Row, guard, means
from scripts.evaluation.scorers import Model, ModelFacts, Rows, Scores
from scripts.evaluation.sets import Collection, GoldPairs, Registry, SetFacts
from scripts.evaluation.suite import Measured, measure
from tests.fakes import LengthTeacher, LetterEncoder
from tests.scripts.evaluation.tiny_sets import write_sets


class LongestFirst:
    """A head that has no taste: the fewer letters a text repeats, the better."""

    def logits(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return -right.max(axis=1).astype(np.float64)


def letters(name: str = "letters", sign: float = 1.0, head: Head | None = None) -> Model:
    """Compares texts by their letters; with a sign of -1, finds those that share none."""

    def encode(texts: Sequence[str]) -> np.ndarray:
        return LetterEncoder().encode(texts)

    def score(rows: Rows) -> Scores:
        cosines = np.array([float(np.prod(encode([left, right]), axis=0).sum()) for left, right in rows])
        return {"similarity": sign * cosines.round(5)}

    return Model(ModelFacts(name, "folder", 1.0, None), score, encode=encode, head=head)


def teacher() -> Model:
    def score(rows: Rows) -> Scores:
        return {"score": LengthTeacher().score(rows).logits}

    return Model(ModelFacts("lengths", "teacher", 1.0, None), score, teaches=("score",))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[GoldPairs | Collection]:
    home = write_sets(tmp_path_factory.mktemp("sets"))
    return [listed.read(home, name) for name, listed in Registry.read(home / "sets.toml").chosen([]).items()]


def run(sets: list[GoldPairs | Collection], *models: Model, earlier: Results | None = None) -> Measured:
    baseline = earlier.baseline if earlier else models[0].facts.name
    return measure(sets, models, baseline, 10, lambda *_: None, earlier)


def rows_of(measured: Measured, model: str) -> dict[tuple[str, str], Row]:
    return {(row.set, row.by): row for row in measured.rows if row.model == model}


def test_a_model_that_is_right_has_perfect_figures(sets: list[GoldPairs | Collection]) -> None:
    found = rows_of(run(sets, letters()), "letters")
    assert set(found) == {("words/test", "similarity"), ("anagrams/dev", "similarity"), ("letters/test", "similarity")}
    words, anagrams, collection = found.values()
    assert {name: figure.value for name, figure in words.figures.items()} == {"pearson": 100, "spearman": 100}
    assert {name: figure.value for name, figure in anagrams.figures.items()} == {
        "average_precision": 100, "f1": 100, "accuracy": 100,
    }  # fmt: skip
    assert anagrams.thresholds["f1"] == pytest.approx(0.8)
    assert {name: figure.value for name, figure in collection.figures.items()} == {
        "ndcg@10": 100, "mrr@10": 100, "recall@10": 100, "recall@100": 100,
    }  # fmt: skip


def test_a_head_orders_the_candidates_and_the_cosine_is_reported_beside_it(sets: list[GoldPairs | Collection]) -> None:
    found = rows_of(run(sets, letters(head=LongestFirst())), "letters")
    by_head, by_cosine = found["letters/test", "score"], found["letters/test", "similarity"]
    assert by_cosine.main == 100
    assert by_head.main == pytest.approx(100 * (1 + 1 / np.log2(3)) / 2, abs=0.01)  # silent before notes, twice
    assert by_head.figures["recall@100"].value == 100


class LastFirst:
    """A head to whom the farthest is the best."""

    def logits(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return -(right @ left[0]).astype(np.float64)


@pytest.mark.parametrize(("depth", "by_head"), [(10, 0.0), (150, 100.0)])
def test_figures_look_at_a_hundred_hits_and_a_head_at_as_many_as_it_is_given(depth: int, by_head: float) -> None:
    """Of two hundred, ever farther away, the 51st and the 150th are right."""
    facts = SetFacts("far/test", "retrieval", 1, 200, False, None, {})
    names = [f"{row:03}" for row in range(200)]
    far = Collection(facts, names, names, ["q"], ["0"], [{50: 1.0, 149: 1.0}], [None])

    def encode(texts: Sequence[str]) -> np.ndarray:
        angles = np.array([int(text) for text in texts]) / 200
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    model = replace(letters(head=LastFirst()), encode=encode)
    measured = measure([far], [model], "letters", depth, lambda *_: None)
    figures = {by: row.figures for (_, by), row in rows_of(measured, "letters").items()}
    assert figures["similarity"]["recall@100"].value == 50
    assert figures["score"]["mrr@10"].value == by_head


def test_embeddings_that_were_cut_are_searched_and_not_guarded(sets: list[GoldPairs | Collection]) -> None:
    """Of the letters, the first five: to them a stone is as silent as it is notes."""

    def encode(texts: Sequence[str]) -> np.ndarray:
        embeddings = LetterEncoder().encode(texts) + 1e-3  # so that no text is nothing once it is cut
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    measured = run(sets, letters(), replace(letters("cut"), encode=encode, prefixes=(5,)))
    found = rows_of(measured, "cut")
    assert found["letters/test", "similarity"].main == 100
    assert (found["letters/test", "similarity@5"].main or 0) < 100
    assert guard(measured.rows, measured.sets, "letters", 1.0).behind == []


def test_models_are_compared_with_the_baseline_by_answers_of_the_same_name(sets: list[GoldPairs | Collection]) -> None:
    measured = run(sets, letters(), letters("opposite", sign=-1.0))
    words = rows_of(measured, "opposite")["words/test", "similarity"]
    over = words.over_baseline["spearman"]
    assert over.value == -200
    assert over.high < 0
    assert all(row.over_baseline == {} for row in rows_of(measured, "letters").values())
    same = rows_of(measured, "opposite")["letters/test", "similarity"].over_baseline["ndcg@10"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_teachers_answer_pairs_only_and_students_are_held_against_them(sets: list[GoldPairs | Collection]) -> None:
    measured = run(sets, letters(), teacher())
    assert set(rows_of(measured, "lengths")) == {("words/test", "score"), ("anagrams/dev", "score")}
    assert [(one.set, one.model, one.by, one.teacher) for one in measured.agreement] == [
        ("words/test", "letters", "similarity", "lengths"),
        ("anagrams/dev", "letters", "similarity", "lengths"),
    ]
    assert measured.agreement[0].kendall is None  # all of these are of equal length
    assert measured.agreement[0].spearman is None


def results(measured: Measured, baseline: str) -> Results:
    facts = [letters(name).facts for name in dict.fromkeys(row.model for row in measured.rows)]
    return Results.of(baseline, facts, measured.sets, measured.rows, measured.agreement, None, None)


def test_models_of_an_earlier_run_take_part_with_the_figures_they_had(
    sets: list[GoldPairs | Collection], tmp_path: Path
) -> None:
    (tmp_path / "earlier.json").write_text(results(run(sets, letters()), "letters").dumped())
    earlier = Results.read(tmp_path / "earlier.json")
    assert earlier == results(run(sets, letters()), "letters")
    measured = run(sets, letters("opposite", sign=-1.0), earlier=earlier)
    assert set(rows_of(measured, "letters")) == set(rows_of(measured, "opposite"))
    over = rows_of(measured, "opposite")["anagrams/dev", "similarity"].over_baseline["average_precision"]
    assert over.value == pytest.approx(41.67 - 100, abs=0.01)
    assert (over.low, over.high) == (None, None)


def test_sets_that_are_kept_apart_have_no_part_in_means_unless_they_are_alone(
    sets: list[GoldPairs | Collection],
) -> None:
    words = sets[0]
    apart = replace(words, facts=replace(words.facts, name="seen/test", apart=True))
    wrong = letters("opposite", sign=-1.0)
    both, alone = run([words, apart], wrong), run([apart], wrong)
    assert [(one.sets, one.value) for one in means(both.rows, both.sets)] == [(1, -100)]
    assert [(one.sets, one.value) for one in means(alone.rows, alone.sets)] == [(1, -100)]
    mixed = [*alone.rows, *run([words], letters("opposite")).rows]
    assert [(one.sets, one.value) for one in means(mixed, both.sets)] == [(1, 100)]


def test_figures_of_a_set_that_has_changed_are_not_compared(sets: list[GoldPairs | Collection]) -> None:
    earlier = results(run(sets, letters()), "letters")
    changed = replace(sets[0], facts=replace(sets[0].facts, files={"words/test.tsv.gz": "another"}))
    with pytest.raises(BadInput, match="no figures of words/test as it is now"):
        run([changed], letters("other"), earlier=earlier)


def test_the_guard_names_who_is_behind_on_guarded_sets_only(sets: list[GoldPairs | Collection]) -> None:
    measured = run(sets, letters(), letters("opposite", sign=-1.0), letters("taste", head=LongestFirst()))
    found = guard(measured.rows, measured.sets, "letters", 1.0)
    assert [(one.set, one.model, one.by) for one in found.behind] == [
        ("anagrams/dev", "opposite", "similarity"),
        ("letters/test", "taste", "score"),
    ]  # and not words/test, which is not guarded
    assert (found.checked, found.holds) == (5, False)
    assert found.behind[1].difference == pytest.approx(-18.45, abs=0.01)
    assert guard(measured.rows, measured.sets, "letters", 99.0).holds
    just = -found.behind[1].difference
    assert len(guard(measured.rows, measured.sets, "letters", just).behind) == 1  # behind by as much is not by more


def test_what_cannot_be_compared_does_not_pass_the_guard(sets: list[GoldPairs | Collection]) -> None:
    measured = run(sets, teacher(), letters())  # the baseline searches nothing
    found = guard(measured.rows, measured.sets, "lengths", 1.0)
    assert [(one.set, one.difference) for one in found.behind] == [("letters/test", None)]
    alone = guard([row for row in measured.rows if row.model == "lengths"], measured.sets, "lengths", 1.0)
    assert (alone.checked, alone.holds) == (0, False)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(BadInput, match=r"results\.json is not a result of dse evaluate"):
        Results.read(tmp_path / "results.json")
    with pytest.raises(BadInput, match="No such file"):
        Results.read(tmp_path / "nowhere.json")
