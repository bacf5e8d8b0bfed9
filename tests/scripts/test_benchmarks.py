"""dse benchmark, as it is typed, over small indexes. No timing is asserted."""

import gzip
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.loading import identity
from index.build import build
from index.documents import Document
from index.live import LiveIndex
from index.sources import SourcedDocument, read_documents
from model.bundle import Student
from scripts.benchmarks import corpus as corpus_module
from scripts.benchmarks.changes import Phase, lost
from scripts.benchmarks.conditions import processor
from scripts.benchmarks.scratch import change
from scripts.benchmarks.service import Asked, Client, served
from scripts.benchmarks.timing import CALLS_PER_TURN, in_turns
from scripts.console import REFUSALS, BadInput
from tests import command

DOCUMENTS = 300


@pytest.fixture(autouse=True)
def environment(student_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_BUNDLE", str(student_bundle))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that what a command sets is taken back


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, student: Student) -> Path:
    """An index of a few hundred texts, one of which is in the smallest bucket."""
    made = tmp_path_factory.mktemp("benchmarks")
    random = np.random.default_rng(0)
    lines = [
        {"id": f"d{row}", "text": "".join(random.choice(list("abcdefgh "), 12)) + "x", "metadata": {"bucket": 33 * row}}
        for row in range(DOCUMENTS)
    ]
    (made / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    documents = (SourcedDocument(found.document, found.place) for found in read_documents([made / "lines.jsonl"]))
    build(documents, student.encoder.encode, student.encoder.dims, identity(student), made / "index", "Flat")
    return made / "index"


dse = partial(command.dse, "benchmark")


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def measured(output: Path, student: Student) -> dict[str, Any]:
    """What a benchmark wrote, after a look at what all of them say."""
    found = json.loads(output.read_text())
    said = {name: found[name] for name in ("bundle", "threads", "dims", "recipe", "encoder")}
    assert said == {
        "bundle": student.name,
        "threads": 1,
        "dims": 16,
        "recipe": "Flat",
        "encoder": student.encoder_digest,
    }
    assert found["command"].split()[0] == "dse"
    assert found["date"].endswith("+00:00")
    assert found["processor"]
    return found


@pytest.mark.parametrize(("changes", "documents"), [(0, DOCUMENTS), (31, DOCUMENTS + 1)])
def test_search_is_timed_beside_faiss_and_leaves_the_index_alone(
    tmp_path: Path, folder: Path, student: Student, changes: int, documents: int
) -> None:
    before = bytes_of(folder)
    output = tmp_path / "search.json"
    dse("search", folder, "--searches", 40, "--clients", 1, "--clients", 3, "--changes", changes, "--threads", 1,
        "--depth", 20, "--scratch", tmp_path, "-o", output)  # fmt: skip
    found = measured(output, student)
    assert (found["documents"], found["changes_pending"], found["queries"]) == (documents, changes, documents)
    assert found["results"]["depth"] == 20
    one, three = found["results"]["costs"]
    assert (one["clients"], three["clients"]) == (1, 3)
    for cost, calls in ((one, 40), (three, 60)):
        paces = cost["paces"]
        assert {name: pace["calls"] for name, pace in paces.items()} == {
            "query embedding": calls, "bare FAISS call": calls, "search": calls, "search and head": calls
        }  # fmt: skip
        assert all(0 < pace["p50"] <= pace["p99"] for pace in paces.values())
        for part, to, by in (("wrapper", "bare FAISS call", "search"), ("head", "search", "search and head")):
            for prefix, median in (("", "p50"), ("cpu_", "cpu_p50")):
                difference = paces[by][median] - paces[to][median]
                assert cost[part][f"{prefix}milliseconds"] == pytest.approx(difference, abs=0.001)
                assert cost[part][f"{prefix}percent"] == pytest.approx(100 * difference / paces[to][median], abs=0.06)
    assert bytes_of(folder) == before
    assert sorted(tmp_path.iterdir()) == [output]


def test_changes_are_made_as_they_are_counted(tmp_path: Path, folder: Path, student: Student) -> None:
    from index.snapshot import snapshot

    snapshot(folder, tmp_path / "copy")
    with LiveIndex.open(tmp_path / "copy", identity(student), writable=True) as index:
        old = {document.id: document.text for document in index.view().documents(index.view().rows())}
        change(index, 32)
        view = index.view()
        new = {document.id: document.text for document in view.documents(view.rows())}
    assert view.pending == 32
    assert (len(new.keys() - old.keys()), len(old.keys() - new.keys())) == (12, 10)
    replaced = [id_ for id_ in old.keys() & new.keys() if old[id_] != new[id_]]
    assert len(replaced) == 10
    vectors = student.encoder.encode([new[document.id] for document in view.documents(view.rows())])
    np.testing.assert_allclose(view.embeddings(view.rows()), vectors, atol=1e-6)


def test_filters_of_a_flat_index_find_everything(tmp_path: Path, folder: Path, student: Student) -> None:
    output = tmp_path / "filters.json"
    dse("filters", folder, "--most", 12, "--threads", 1, "--output", output)
    sweeps = measured(output, student)["results"]["sweeps"]
    assert [(sweep["share"], sweep["documents"], sweep["recall"]) for sweep in sweeps] == [
        (0.5, 152, 1.0), (0.1, 31, 1.0), (0.01, 4, 1.0), (0.001, 1, 1.0), (0.0001, 1, 1.0)
    ]  # fmt: skip
    assert sweeps[1]["filter"] == '{"bucket": {"$lt": 1000}}'
    assert all(sweep["search"]["calls"] == 12 and sweep["first_milliseconds"] > 0 for sweep in sweeps)


def test_a_filtered_search_that_misses_shows(folder: Path, student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    from index.view import View
    from scripts.benchmarks.filters import measure

    with LiveIndex.open(folder, identity(student)) as index:
        view = index.view()
        plain = View.search

        def worse(self: View, query: Any, depth: int, filter: Any = None) -> Any:
            return plain(self, -query, depth, filter)  # the farthest instead of the nearest

        monkeypatch.setattr(View, "search", worse)
        (half,) = measure(view, student, ["abc d", "hhh"], "bucket", 20, shares=[0.5])
    assert half.recall < 0.5


def test_searches_go_on_while_documents_are_written_and_compacted(
    tmp_path: Path, folder: Path, student: Student
) -> None:
    before = bytes_of(folder)
    output = tmp_path / "changes.json"
    (tmp_path / "asked.txt").write_text("abc\nhead\n")
    dse("changes", folder, "--queries", tmp_path / "asked.txt", "--upserts", 50, "--batch", 20, "--clients", 2,
        "--seconds", 0.3, "--threads", 1, "--scratch", tmp_path, "-o", output)  # fmt: skip
    found = measured(output, student)
    results = found["results"]
    assert (found["queries"], found["asked"]) == (2, "asked.txt")
    phases = {phase["name"]: phase for phase in results["phases"]}
    assert list(phases) == ["before", "upserts", "compaction", "after"]
    assert [phase["failed"] for phase in phases.values()] == [0, 0, 0, 0], phases
    assert phases["before"]["searches"]["calls"] > 0
    assert phases["after"]["searches"]["calls"] > 0
    assert (results["upserts"], results["puts"]["calls"], results["failed_puts"]) == (50, 3, 0)
    assert (results["lost"], results["looked_for"], results["compaction_fault"]) == (0, 100, None)
    assert (results["documents"], results["generation"]) == (DOCUMENTS + 25, "000002")
    assert bytes_of(folder) == before
    assert sorted(tmp_path.iterdir()) == [tmp_path / "asked.txt", output]


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (({"text": "as it was written"}, None), True),
        (({"text": "something else"}, None), False),
        ((None, "404: no such document"), False),
        ((None, "RemoteDisconnected: it hung up"), None),
    ],
)
def test_a_document_is_lost_only_where_the_service_says_so(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[Any, str | None], there: bool | None
) -> None:
    monkeypatch.setattr(Client, "ask", lambda *_: answer)
    written = [Document("a/b", "as it was written")]
    if there is None:
        with pytest.raises(BadInput, match="does not say whether it holds 'a/b'"):
            lost("http://127.0.0.1:1", written)
    else:
        assert lost("http://127.0.0.1:1", written) == (not there)


def test_a_search_belongs_to_the_phase_it_began_in() -> None:
    asked = [Asked(0.5, 1.0, None), Asked(1.0, 0.25, None), Asked(1.5, 9.0, "500: no"), Asked(2.0, 0.1, None)]
    found = Phase.of("second", (1.0, 2.0), asked)
    assert (found.seconds, found.failed, found.fault) == (1.0, 1, "500: no")
    assert found.searches is not None
    assert (found.searches.calls, found.searches.p50, found.searches.per_second) == (1, 250.0, 1.0)
    assert Phase.of("none", (5.0, 6.0), asked).searches is None


def test_a_service_that_does_not_start_says_why(tmp_path: Path, folder: Path, student_bundle: Path) -> None:
    with pytest.raises(BadInput, match=r"^dse serve ended with 2: dse: --threads or DSE_THREADS: "):  # noqa: SIM117
        with served(folder, student_bundle, 0, tmp_path / "log"):
            raise AssertionError("it started")


def test_every_call_goes_through_all_items_in_turns() -> None:
    seen: list[tuple[str, int]] = []
    paces = in_turns({"a": lambda item: seen.append(("a", item)), "b": lambda item: seen.append(("b", item))}, 7, 2, 50)
    turn = 2 * CALLS_PER_TURN
    assert {name: pace.calls for name, pace in paces.items()} == {"a": 2 * turn, "b": 2 * turn}
    assert [name for name, _ in seen] == [name for _ in range(3) for name in "ab" for _ in range(turn)]
    for name in "ab":
        counts = np.bincount([item for called, item in seen[2 * turn :] if called == name], minlength=7)
        assert counts.max() - counts.min() <= 1


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    for name, text in {
        "corpus/b_sentences.txt.gz": "One  two.\nThree.\n\nOne two.\n",
        "corpus/captions.jsonl.gz": '{"captions": ["A dog.", "Three."]}\n{"title": "Dogs", "text": "Long."}\n',
        "pairs/dev.tsv.gz": 'sentence1\tsentence2\tscore\nA dog.\tA "cat.\t5\n',
        "pairs/labels.tsv.gz": "sentence\tlabel\nNot a pair.\tx\n",
        "pairs/long.tsv": f"sentence1\tsentence2\tscore\n{'x' * 501}\tLast.\t1\n",
    }.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return made


def test_a_corpus_holds_every_sentence_once(tmp_path: Path, data: Path) -> None:
    dse("corpus", "--data", data, "--count", 6, "--output", tmp_path / "corpus.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    assert [(line["id"], line["text"]) for line in lines] == [
        ("b_sentences/0", "One two."), ("b_sentences/1", "Three."), ("captions/2", "A dog."), ("captions/3", "Dogs"),
        ("pairs/4", 'A "cat.'), ("pairs/5", "Last."),
    ]  # fmt: skip
    assert all(line["metadata"]["source"] == line["id"].partition("/")[0] for line in lines)
    dse("corpus", "--data", data, "--count", 6, "--output", tmp_path / "again.jsonl.gz")
    assert gzip.decompress((tmp_path / "again.jsonl.gz").read_bytes()) == (tmp_path / "corpus.jsonl").read_bytes()


def test_buckets_are_spread_evenly(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/numbers.txt").write_text("\n".join(f"Number {number}." for number in range(2000)))
    buckets = np.array([document["metadata"]["bucket"] for document in corpus_module.documents(tmp_path, 2000)])
    counts = np.histogram(buckets, bins=10, range=(0, corpus_module.BUCKETS))[0]
    assert counts.sum() == 2000
    assert counts.min() > 140


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast One 9\nmodel name\t: Fast One 9\n")
    assert processor(tmp_path / "cpuinfo") == "Fast One 9"
    assert processor(tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus", "--data", "DATA", "-o", "out.jsonl"], "holds 6 sentences of at most 500 characters; give --count"),
        (["corpus", "--data", "nowhere", "-o", "out.jsonl"], "nowhere is not a folder"),
        (["search", "nowhere"], "nowhere is not an index"),
        (["search", "INDEX", "--changes", "301"], "the index has 300 documents; give --changes as many or fewer"),
        (["search", "INDEX", "--changes", "1", "--scratch", "nowhere"], "--scratch nowhere: No such file"),
        (["filters", "INDEX", "--field", "shelf"], '{"shelf": {"$lt": 5000}} lets no document through; index what'),
        (["changes", "nowhere"], "nowhere is not an index"),
    ],
)
def test_what_the_caller_can_mend_is_said_in_a_line(
    tmp_path: Path, folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"INDEX": str(folder), "DATA": str(data)}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(REFUSALS) as refused:
        dse(*(places.get(argument, argument) for argument in arguments))
    assert message in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before
