"""dse benchmark encode: who is compared, in which order, and what the ratios say. No timing is asserted."""

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from scripts import speed_commands
from scripts.benchmarks.contestants import Ours, Peer, Timed
from scripts.benchmarks.encode import Spread, measure, quality
from scripts.benchmarks.peers.sentence_transformers_lines import quantisation
from scripts.benchmarks.texts import texts_of
from scripts.console import BadInput
from scripts.dse import app

FAKE = Path(__file__).with_name("fake_peer.py")


class Scripted:
    """Takes as long as it was told, one turn after the other, and writes down when it was asked."""

    def __init__(self, name: str, seconds: Sequence[float], single: float, seen: list[str]) -> None:
        self.name, self.facts, self._single, self._seen = name, {"runs": name}, single, seen
        self._turns = iter([0.0, *seconds])  # the first does not count

    def all_at_once(self) -> Timed:
        self._seen.append(self.name)
        seconds = next(self._turns)
        return Timed([seconds], 2 * seconds)

    def one_by_one(self, places: Sequence[int]) -> Timed:
        return Timed([self._single] * len(places), self._single)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        angles = np.array([len(text) for text in texts]) * (1.0 if self.name == "slow" else -1.0)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def close(self) -> None:
        raise AssertionError("who opened it closes it")


def test_turns_go_there_and_back_and_ratios_are_taken_round_by_round() -> None:
    seen: list[str] = []
    fast = Scripted("fast", [1.0, 1.0, 2.0, 2.0], 0.001, seen)
    slow = Scripted("slow", [2.0, 4.0, 2.0, 2.0], 0.004, seen)
    first, second = measure([fast, slow], ["a", "bb"], 2, 2, slow, None, lambda words: None)
    assert seen == ["fast", "slow"] + 2 * ["fast", "slow", "slow", "fast"]
    assert (first.per_second, second.per_second) == (round(8 / 6, 1), round(8 / 10, 1))
    assert first.behind is None
    assert second.behind == Spread(2.0, 1.0, 3.0)  # 6 s to 2 s, then 4 s to 4 s
    assert second.behind_cpu == second.behind
    assert second.behind_single == Spread(4.0, 4.0, 4.0)
    assert (second.p50, first.p99) == (4.0, 1.0)
    assert second.agreement is None
    assert first.agreement == pytest.approx((np.cos(2) + np.cos(4)) / 2, abs=1e-5)


def test_quality_is_the_rank_correlation_with_the_gold() -> None:
    contestant = Scripted("slow", [], 0.0, [])
    pairs = [("a", "aa"), ("a", "a"), ("a", "aaa")]  # 1, 0 and 2 radians apart
    assert quality(contestant, pairs, [2.0, 5.0, 0.0]) == 100.0
    assert quality(contestant, pairs, [2.0, 0.0, 5.0]) == -100.0


def test_a_call_may_hold_a_part_of_the_texts() -> None:
    calls: list[list[str]] = []

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        calls.append(list(texts))
        return np.zeros((len(texts), 2), np.float32)

    texts = ["a", "b", "c"]
    Ours("all", encode, texts, {}).all_at_once()
    Ours("two", encode, texts, {}, 2).all_at_once()
    assert len(Ours("one", encode, texts, {}).one_by_one([2, 0]).seconds) == 2
    assert calls == [["a", "b", "c"], ["a", "b"], ["c"], ["c"], ["a"]]


def test_a_peer_answers_from_a_process_of_its_own(tmp_path: Path) -> None:
    wish = {"weights": "w", "backend": "torch"}
    peer = Peer("a peer", Path(sys.executable), FAKE, wish, ["a", "bb"], tmp_path)
    assert peer.facts == {"runs": "torch", "versions": {}}
    assert peer.all_at_once() == Timed([3.0], 6.0)
    assert peer.one_by_one([1, 0]) == Timed([0.25, 0.25], 0.5)
    np.testing.assert_allclose(peer.vectors(["abc"]), [[3 / 24**0.5, *15 * [1 / 24**0.5]]], rtol=1e-6)
    peer.close()


def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the peer a peer ended with 1: no such backend"):
        Peer("a peer", Path(sys.executable), FAKE, {"weights": "w", "backend": "broken"}, [], tmp_path)
    with pytest.raises(BadInput, match="nowhere/python cannot be run: No such file"):
        Peer("a peer", Path("nowhere/python"), FAKE, {"weights": "w"}, [], tmp_path)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [("avx2 avx512f avx512_vnni", "avx512_vnni"), ("avx512f avx2", "avx512"), ("sse avx2", "avx2"), ("neon", "arm64")],
)
def test_int8_is_quantised_for_the_processor(tmp_path: Path, flags: str, kind: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
    assert quantisation(tmp_path / "cpuinfo") == kind


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    pairs = "sentence1\tsentence2\tscore\na dog\ta cat\t1.0\na dog\ta dog\t5.0\nb\tcc\t2.5\n"
    for name, text in {
        "stsb/test.tsv.gz": pairs,
        "clinc150/test.tsv.gz": "sentence\tlabel\n" + "".join(f"query {'x' * number}\tl\n" for number in range(9)),
        "boolq_passages/corpus.jsonl.gz": "".join(f'{{"text": "{"word " * n}"}}\n' for n in range(3, 7)),
    }.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(text.encode()))
    return tmp_path / "data"


def test_the_mix_holds_every_kind_each_text_once(tmp_path: Path, data_folder: Path) -> None:
    mixed, source = texts_of(None, data_folder, "mix", 10)
    kinds = [text.split()[0] if text.startswith(("query", "word")) else "sentence" for text in mixed]
    assert source == "mix"
    assert kinds == 2 * ["query", "sentence", "query", "sentence", "word"]
    assert texts_of(None, data_folder, "queries", 3)[0] == ["query ", "query xxx", "query xxxxxx"]
    (tmp_path / "lines").write_text("one\n\ntwo\none\n")
    assert texts_of(tmp_path / "lines", data_folder, "mix", 10) == (["one", "two"], "lines")


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that what a command sets is taken back
    monkeypatch.delenv("DSE_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def test_every_graph_and_peer_is_measured(
    tmp_path: Path, data_folder: Path, student_bundle: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_commands, "PEERS", FAKE.parent)
    monkeypatch.setattr(speed_commands, "SCRIPT", FAKE.name)
    shown = run(
        "encode", "--bundle", student_bundle, "--threads", 1, "--data", data_folder, "--count", 9, "--rounds", 1,
        "--singles", 2, "--weights", tmp_path, "--peer-python", sys.executable, "-o", tmp_path / "encode.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "encode.json").read_text())
    results: dict[str, Any] = {standing["name"]: standing for standing in found["results"]}
    assert list(results) == ["dse int8", "dse int8, 32 texts a call", "dse fp32", *speed_commands.SENTENCE_TRANSFORMERS]
    assert (found["texts"], found["threads"], found["source"]) == (9, 1, "mix")
    peer = results["sentence-transformers torch fp32"]
    assert (peer["per_second"], peer["per_cpu_second"], peer["p50"]) == (3.0, 1.5, 250.0)
    assert peer["runs"]["runs"] == "torch"
    assert results["sentence-transformers ONNX fp32"]["agreement"] == 1.0
    assert results["dse int8"]["behind"] is None
    assert results["dse int8"]["quality"] == results["dse fp32"]["quality"]
    assert "dse int8 is faster" in " ".join(shown.split())


def test_weights_of_another_width_are_refused(
    tmp_path: Path, student_bundle: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_commands, "PEERS", FAKE.parent)
    monkeypatch.setattr(speed_commands, "SCRIPT", FAKE.name)
    monkeypatch.setenv("WIDTH", "8")
    (tmp_path / "texts").write_text("one\ntwo\n")
    with pytest.raises(BadInput, match=r"dse int8 answers 16 numbers a text, the peers 8: .* dse benchmark bundle"):
        run(
            "encode", "--bundle", student_bundle, "--threads", 1, "--texts", tmp_path / "texts", "--rounds", 1,
            "--weights", tmp_path, "--peer-python", sys.executable,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", ".", "--kind", "prose"], "--kind prose: give queries, sentences, paragraphs or mix"),
        (["--peer-python", "python"], "the peers need --weights FOLDER"),
        ([], "there is nothing to encode: give --texts FILE"),
        (["--data", "nowhere"], "No such file or directory.*give --texts FILE"),
    ],
)
def test_what_the_caller_can_mend_is_said(
    student_bundle: Path, one_thread: None, arguments: list[str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        run("encode", "--bundle", student_bundle, *arguments)
