import json
import random
from pathlib import Path

import numpy as np
import pytest

from model.head import Calibration
from model.training.logits import LogitsError, TeacherLogits, label
from model.training.pairs import Pair
from model.training.quality import Correlation
from model.training.signal import Member, Signal

SIGNAL = Signal(
    "letters",
    (
        Member("left", "fake", "d1", mean=2.0, deviation=2.0, dev=Correlation(1, 1)),
        Member("right", "fake", "d2", mean=0.0, deviation=1.0, dev=Correlation(1, 1)),
    ),
    Calibration(2.0, 1.0),
    Correlation(1, 1),
    max_tokens=48,
)


class Lengths:
    """Members say how long the left and the right sentence are."""

    signal = SIGNAL

    def __init__(self) -> None:
        self.asked: list[str] = []

    def raw_scores(self, pairs):
        self.asked += [pair.id for pair in pairs]
        return np.array([[len(pair.left), len(pair.right)] for pair in pairs], np.float64)


PAIRS = [Pair(f"set:{n}", "a" * n, "b" * (n % 3), 0.0) for n in range(1, 30)]


def expected(pair: Pair) -> float:
    return 2 * ((len(pair.left) - 2) / 2 + len(pair.right)) / 2 + 1


def test_the_signal_is_the_calibrated_mean_of_standardised_scores(tmp_path: Path) -> None:
    found = label(Lengths(), PAIRS, tmp_path / "logits.jsonl").of(PAIRS)
    np.testing.assert_allclose(found, [expected(pair) for pair in PAIRS])


def test_logits_follow_shuffled_pairs(tmp_path: Path) -> None:
    label(Lengths(), PAIRS, tmp_path / "logits.jsonl")
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    found = TeacherLogits.load(tmp_path / "logits.jsonl").of(shuffled)
    np.testing.assert_allclose(found, [expected(pair) for pair in shuffled])


def test_the_file_names_its_members_and_their_digests(tmp_path: Path) -> None:
    label(Lengths(), PAIRS, tmp_path / "logits.jsonl")
    header, first, *_ = map(json.loads, (tmp_path / "logits.jsonl").read_text().splitlines())
    assert [(m["name"], m["digest"]) for m in header["signal"]["members"]] == [("left", "d1"), ("right", "d2")]
    assert first["digest"] == next(pair for pair in PAIRS if pair.id == first["pair"]).digest
    assert TeacherLogits.load(tmp_path / "logits.jsonl").signal == SIGNAL


def test_a_missing_pair_is_refused_by_name(tmp_path: Path) -> None:
    logits = label(Lengths(), PAIRS, tmp_path / "logits.jsonl")
    with pytest.raises(LogitsError, match="no logit for 1 of 2 pairs, first other:1; run dse teacher label"):
        logits.of([PAIRS[0], Pair("other:1", "a", "b", 0)])


def test_an_altered_pair_is_refused_by_name(tmp_path: Path) -> None:
    logits = label(Lengths(), PAIRS, tmp_path / "logits.jsonl")
    altered = Pair("set:3", "aaa!", PAIRS[2].right, 0)
    with pytest.raises(LogitsError, match="pair set:3 was altered"):
        logits.of([PAIRS[0], altered])
    with pytest.raises(LogitsError, match="pair set:3 was altered"):
        label(Lengths(), [altered], tmp_path / "logits.jsonl")


def test_what_is_labelled_is_not_asked_again(tmp_path: Path) -> None:
    label(Lengths(), PAIRS[:10], tmp_path / "logits.jsonl")
    teacher = Lengths()
    label(teacher, PAIRS, tmp_path / "logits.jsonl")
    assert sorted(teacher.asked) == sorted(pair.id for pair in PAIRS[10:])


def test_a_pair_that_two_sets_hold_is_asked_once(tmp_path: Path) -> None:
    teacher = Lengths()
    assert len(label(teacher, [*PAIRS, *PAIRS[:5]], tmp_path / "logits.jsonl").of(PAIRS[:5])) == 5
    assert sorted(teacher.asked) == sorted(pair.id for pair in PAIRS)


def test_a_torn_last_line_is_dropped_and_labelled_again(tmp_path: Path) -> None:
    whole = label(Lengths(), PAIRS, tmp_path / "whole.jsonl")
    content = (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "torn.jsonl").write_bytes(content[:-20])
    teacher = Lengths()
    label(teacher, PAIRS, tmp_path / "torn.jsonl")
    assert len(teacher.asked) == 1
    np.testing.assert_array_equal(TeacherLogits.load(tmp_path / "torn.jsonl").of(PAIRS), whole.of(PAIRS))


@pytest.mark.parametrize("logit", ["null", '"1"', "[]", "[1, null]", "NaN", "1e999", "{}"])
def test_a_logit_that_is_no_number_is_refused_with_its_line(tmp_path: Path, logit: str) -> None:
    label(Lengths(), PAIRS, tmp_path / "logits.jsonl")
    header, first, *rest = (tmp_path / "logits.jsonl").read_text().splitlines()
    spoilt = json.dumps(json.loads(first) | {"logit": "HERE"}).replace('"HERE"', logit)
    (tmp_path / "logits.jsonl").write_text("\n".join([header, spoilt, *rest]) + "\n")
    with pytest.raises(LogitsError, match=r"logits.jsonl:2: not a line of a logits file \(the logit is"):
        TeacherLogits.load(tmp_path / "logits.jsonl")


def test_logits_of_one_output_and_of_several_do_not_mix(tmp_path: Path) -> None:
    label(Lengths(), PAIRS, tmp_path / "logits.jsonl")
    header, first, *rest = (tmp_path / "logits.jsonl").read_text().splitlines()
    several = json.dumps(json.loads(first) | {"logit": [1.0, 2.0]})
    (tmp_path / "logits.jsonl").write_text("\n".join([header, several, *rest]) + "\n")
    with pytest.raises(LogitsError, match="logits of unlike shapes"):
        TeacherLogits.load(tmp_path / "logits.jsonl").of(PAIRS)


def test_another_teachers_file_is_refused(tmp_path: Path) -> None:
    label(Lengths(), PAIRS, tmp_path / "logits.jsonl")
    other = Lengths()
    other.signal = Signal("other", SIGNAL.members, SIGNAL.calibration, SIGNAL.dev, 48)
    with pytest.raises(LogitsError, match="written by letters with other members"):
        label(other, PAIRS, tmp_path / "logits.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{}\n", "logits.jsonl:1: not a line"),
        ("x\n", ":1: not"),
        ('{"format": 1, "signal": {"name": "x"}}\n', "logits.jsonl:1: not a line"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "logits.jsonl").write_text(content)
    with pytest.raises(LogitsError, match=message):
        TeacherLogits.load(tmp_path / "logits.jsonl")
    with pytest.raises(LogitsError, match=message):
        label(Lengths(), PAIRS, tmp_path / "logits.jsonl")


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(LogitsError, match="run dse teacher label"):
        TeacherLogits.load(tmp_path / "logits.jsonl")


class Classes:
    """One member that answers three logits."""

    signal = Signal(
        "classes",
        (Member("one", "fake", "d", 0.0, 1.0, Correlation(1, 1)),),
        Calibration(1.0, 0.0),
        Correlation(1, 1),
        48,
    )

    def raw_scores(self, pairs):
        return np.array([[[len(pair.left)], [len(pair.right)], [-1.0]] for pair in pairs], np.float64)


def test_a_pair_may_have_a_logit_for_each_class(tmp_path: Path) -> None:
    label(Classes(), PAIRS, tmp_path / "logits.jsonl")
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    found = TeacherLogits.load(tmp_path / "logits.jsonl").of(shuffled)
    np.testing.assert_allclose(found, [[len(pair.left), len(pair.right), -1.0] for pair in shuffled])
