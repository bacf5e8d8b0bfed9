import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import close_session
from rich.progress import Progress

from model.training.data_recipe import PairSet
from model.training.pairs import Pair, TrainingData, pair_rows, read_pairs
from model.training.recipes import TeacherRecipe, read_recipe
from scripts.console import REFUSALS, BadInput
from scripts.datasets import hub as hub_module
from scripts.datasets.catalogue import CATALOGUE
from scripts.datasets.forms import as_is
from scripts.datasets.get import get
from scripts.datasets.supplies import Fetched, Supply
from tests import command
from tests.scripts.tiny_hub import COMMIT, TinyHub, serving

pyarrow = pytest.importorskip("pyarrow")

STSB = "sentence-transformers/stsb/data/{}-00000-of-00001.parquet"
GLUE = "nyu-mll/glue/{}/{}-00000-of-00001.parquet"


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TinyHub]:
    """The only hub there is in these tests; its client's cache is the test's own."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    close_session()
    with serving(TinyHub()) as tiny:
        monkeypatch.setenv("HF_ENDPOINT", f"{tiny.address}/")
        yield tiny
    close_session()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data"


dse = partial(command.dse, "data", "get")


def parquet(**columns: list[Any]) -> bytes:
    from pyarrow import BufferOutputStream
    from pyarrow.parquet import write_table

    sink = BufferOutputStream()
    write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def count(monkeypatch: pytest.MonkeyPatch, name: str, **rows: int) -> None:
    """Pretend that so many rows of a pair set's files are published, and that it has no others."""
    parts = {part.file.removesuffix(".tsv.gz"): part for part in CATALOGUE[name].parts}
    kept = tuple(replace(parts[split], rows=number) for split, number in rows.items())
    monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], parts=kept))


@pytest.fixture
def stsb(hub: TinyHub, monkeypatch: pytest.MonkeyPatch) -> TinyHub:
    """A hub with a tiny STS-B: two pairs to train on, and one in each of the other parts."""
    train = {
        "sentence1": ['Tabs\tand "quotes"', "a"],
        "sentence2": ["cafe\u0301 \r\n here ", "b"],
        "score": [0.76, 1.0],
    }
    hub.files[STSB.format("train")] = parquet(**train)
    for split in ("validation", "test"):
        hub.files[STSB.format(split)] = parquet(sentence1=[split], sentence2=["d"], score=[0.0])
    count(monkeypatch, "stsb", train=2, dev=1, test=1)
    return hub


def written_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_stsb_is_as_the_recipes_read_it(stsb: TinyHub, out: Path) -> None:
    said = dse("stsb", "--output", out)
    assert written_below(out) == ["stsb/dev.tsv.gz", "stsb/test.tsv.gz", "stsb/train.tsv.gz"]
    train = read_pairs(out, PairSet(file="stsb/train.tsv.gz", range=(0, 5), terms="tiny"))
    assert train == [
        Pair("stsb/train:1", 'Tabs and "quotes"', "caf\u00e9 here", 0.76),
        Pair("stsb/train:2", "a", "b", 1.0),
    ]
    assert gzip.decompress((out / "stsb/train.tsv.gz").read_bytes()).decode().splitlines() == [
        "sentence1\tsentence2\tscore",
        'Tabs and "quotes"\tcaf\u00e9 here\t3.8',
        "a\tb\t5.0",
    ]
    origin = f"sentence-transformers/stsb@{COMMIT[:12]}/data/train-00000-of-00001.parquet"
    assert f"stsb/train.tsv.gz: 2 rows <- {origin}\n" in said
    assert "research only" in said


def test_large_files_lie_elsewhere_and_the_token_stays_with_the_hub(
    stsb: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    stsb.large = True
    dse("stsb", "--output", out)
    assert len(written_below(out)) == 3
    assert {(method, path.startswith("/storage/"), token) for method, path, token in stsb.asked} == {
        ("HEAD", False, True),
        ("GET", True, False),
    }


def test_classes_are_written_by_name_and_rows_without_one_are_left_out(
    hub: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files[GLUE.format("mnli", "train")] = parquet(
        premise=["p0", "p1", "p2", "p3"], hypothesis=["h0", "h1", "h2", "h3"], label=[0, 1, 2, -1], idx=[0, 1, 2, 3]
    )
    count(monkeypatch, "mnli", train=3)
    dse("mnli", "--output", out)
    labels = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
    pairs = read_pairs(out, PairSet(file="mnli/train.tsv.gz", labels=labels, terms="tiny"))
    assert [(pair.left, pair.right, pair.gold) for pair in pairs] == [
        ("p0", "h0", 1.0),
        ("p1", "h1", 0.5),
        ("p2", "h2", 0.0),
    ]


def test_a_part_without_labels_is_not_written(hub: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[GLUE.format("mrpc", "train")] = parquet(sentence1=["a", "c"], sentence2=["b", "d"], label=[1, 0])
    hub.files[GLUE.format("mrpc", "test")] = parquet(sentence1=["a"], sentence2=["b"], label=[-1])
    count(monkeypatch, "mrpc", train=2, test=1725)
    said = dse("mrpc", "--output", out)
    assert written_below(out) == ["mrpc/train.tsv.gz"]
    assert [score for _, _, score in pair_rows(out / "mrpc/train.tsv.gz")] == ["1", "0"]
    assert "mrpc/test.tsv.gz: not written, no row of nyu-mll/glue@" in said


def test_a_set_that_the_hub_converts_is_taken_from_that_revision(
    hub: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["RobZamp/sick/default/train/0000.parquet"] = parquet(
        sentence_A=["a"], sentence_B=["b"], label=[1], relatedness_score=[4.5]
    )
    count(monkeypatch, "sick", train=1)
    dse("sick", "--output", out)
    assert list(pair_rows(out / "sick/train.tsv.gz")) == [("a", "b", "4.5")]
    assert hub.asked[0][:2] == (
        "HEAD",
        "/datasets/RobZamp/sick/resolve/refs%2Fconvert%2Fparquet/default/train/0000.parquet",
    )


@pytest.fixture
def scifact(hub: TinyHub, monkeypatch: pytest.MonkeyPatch) -> TinyHub:
    hub.files |= {
        "BeIR/scifact/corpus/corpus-00000-of-00001.parquet": parquet(
            _id=["d1", "d2"], title=["T\t1", ""], text=["one\ntwo", "three"]
        ),
        "BeIR/scifact/queries/queries-00000-of-00001.parquet": parquet(_id=["q1"], title=[""], text=["which?"]),
        "BeIR/scifact-qrels/test.tsv": b"query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
    }
    rows = {"corpus.jsonl.gz": 2, "queries.jsonl.gz": 1, "qrels/test.tsv": 1}
    parts = tuple(replace(p, rows=rows[p.file]) for p in CATALOGUE["scifact"].parts if p.file in rows)
    monkeypatch.setitem(CATALOGUE, "scifact", replace(CATALOGUE["scifact"], parts=parts))
    return hub


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def assert_is_scifact(folder: Path) -> None:
    assert written_below(folder) == ["corpus.jsonl.gz", "qrels/test.tsv", "queries.jsonl.gz"]
    assert lines(folder / "corpus.jsonl.gz") == [
        {"_id": "d1", "title": "T 1", "text": "one two"},
        {"_id": "d2", "title": "", "text": "three"},
    ]
    assert lines(folder / "queries.jsonl.gz") == [{"_id": "q1", "text": "which?"}]
    assert (folder / "qrels/test.tsv").read_bytes() == b"query-id\tcorpus-id\tscore\nq1\td1\t2\n"


def test_a_retrieval_set_has_the_layout_of_beir_and_only_positive_judgements(scifact: TinyHub, out: Path) -> None:
    dse("scifact", "--output", out)
    assert_is_scifact(out / "scifact")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_file_is_named_with_its_address_and_nothing_is_written(stsb: TinyHub, out: Path, split: str) -> None:
    del stsb.files[STSB.format(split)]
    address = f"{stsb.address}/datasets/sentence-transformers/stsb/resolve/main/data/{split}-00000-of-00001.parquet"
    with pytest.raises(BadInput, match=f"^{address}: answered 404; .*--from DIR$"):
        dse("stsb", "--output", out)
    assert not out.exists()


def test_a_body_that_is_cut_short_leaves_nothing_and_the_next_run_is_whole(stsb: TinyHub, out: Path) -> None:
    stsb.cut = 9
    with pytest.raises(BadInput, match=r"train-00000-of-00001.parquet: .*should be of size \d+.*--from DIR"):
        dse("stsb", "--output", out)
    assert not out.exists()
    assert not list((out.parent / "cache").rglob("*.incomplete"))
    stsb.cut = 0
    dse("stsb", "--output", out)
    assert len(written_below(out)) == 3


def test_a_hub_that_is_down_or_slow_is_given_up_at_once(
    stsb: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "TIMEOUT_SECONDS", 0.1)
    stsb.delay = 0.5
    with pytest.raises(BadInput, match=f"^{stsb.address}/.*: ReadTimeout: .*--from DIR"):
        dse("stsb", "--output", out)
    with socket.create_server(("127.0.0.1", 0)) as freed:
        port = freed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(BadInput, match=rf"^http://127.0.0.1:{port}/.*: ConnectError: .*--from DIR"):
        dse("stsb", "--output", out)
    assert not out.exists()


def test_a_private_set_asks_for_a_token() -> None:
    class Refused(Exception):
        response = type("Response", (), {"status_code": 401})

    assert hub_module._reason(Refused()) == "answered 401 (does it ask for another HF_TOKEN?)"


def test_offline_is_refused_before_anything_is_asked(stsb: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"HF_HUB_OFFLINE is set; .*--from DIR"):
        dse("stsb", "--output", out)
    assert stsb.asked == []
    assert not out.exists()


def test_what_is_there_and_whole_is_not_asked_for_again(stsb: TinyHub, out: Path) -> None:
    dse("stsb", "--output", out)
    before = (out / "stsb/train.tsv.gz").read_bytes()
    stsb.asked.clear()
    assert dse("stsb", "--output", out).count("there already\n") == 3
    assert stsb.asked == []

    (out / "stsb/dev.tsv.gz").write_bytes(before[:-9])
    said = dse("stsb", "--output", out)
    assert "stsb/dev.tsv.gz: 1 rows <- " in said
    assert said.count("there already\n") == 2
    assert [left for left, *_ in pair_rows(out / "stsb/dev.tsv.gz")] == ["validation"]

    stsb.asked.clear()
    assert "there already" not in dse("stsb", "--output", out, "--force")
    assert sum(method == "GET" for method, *_ in stsb.asked) == 3
    assert (out / "stsb/train.tsv.gz").read_bytes() == before  # the same rows are the same bytes


def test_a_file_of_another_form_is_not_replaced_unless_asked_for(stsb: TinyHub, out: Path) -> None:
    own = b"sentence1\tsentence2\tlabel\na\tb\t1\n"
    (out / "stsb").mkdir(parents=True)
    (out / "stsb/train.tsv.gz").write_bytes(gzip.compress(own))
    with pytest.raises(BadInput, match=r"train\.tsv\.gz is not of the form .*--force replaces it"):
        dse("stsb", "--output", out)
    assert gzip.decompress((out / "stsb/train.tsv.gz").read_bytes()) == own
    assert [path.name for path in (out / "stsb").iterdir()] == ["train.tsv.gz"]
    assert "train.tsv.gz: 2 rows <- " in dse("stsb", "--output", out, "--force")


def test_another_number_of_rows_than_published_is_refused_unless_asked_for(
    stsb: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(monkeypatch, "stsb", train=5749, dev=1, test=1)
    with pytest.raises(BadInput, match=r"2 rows for train.tsv.gz, 5,749 are published; --any-count"):
        dse("stsb", "--output", out)
    assert written_below(out) == []
    assert "train.tsv.gz: 2 rows (5,749 are published) <- " in dse("stsb", "--output", out, "--any-count")
    again = dse("stsb", "--output", out)
    assert "train.tsv.gz: 2 rows (5,749 are published), there already; --force gets it anew" in again


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Log in to this network</html>", r"not a Parquet file that can be read"),
        (parquet(sentence1=["a"], text2=["b"], score=[1.0]), r"row 1: no column 'sentence2' among \['score', 's"),
        (parquet(sentence1=["a"], sentence2=["b"], score=["high"]), "row 1: "),
        (parquet(sentence1=["a"], sentence2=["b"], score=[float("nan")]), "row 1: score is nan"),
    ],
)
def test_a_file_that_is_not_as_catalogued_is_refused(stsb: TinyHub, out: Path, content: bytes, message: str) -> None:
    stsb.files[STSB.format("train")] = content
    with pytest.raises(BadInput, match=message):
        dse("stsb", "--output", out)
    assert not out.exists()


def test_a_label_that_has_no_name_is_refused(hub: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[GLUE.format("rte", "train")] = parquet(sentence1=["a", "c"], sentence2=["b", "d"], label=[1, 2])
    count(monkeypatch, "rte", train=2)
    with pytest.raises(BadInput, match=r"rte/train-00000-of-00001.parquet: row 2: label 2 is none of {0: 'entailment'"):
        dse("rte", "--output", out)
    assert written_below(out) == []


def test_without_pyarrow_nothing_is_downloaded(stsb: TinyHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadInput, match=r"pip install '\.\[parquet\]'"):
        dse("stsb", "--output", out)
    assert stsb.asked == []


def test_an_interruption_leaves_what_was_there(tmp_path: Path) -> None:
    def rows(*, killed: bool) -> Iterator[dict[str, str]]:
        yield {"sentence1": "a", "sentence2": "b", "score": "1"}
        if killed:
            raise KeyboardInterrupt

    def supply(*, killed: bool) -> Supply:
        return Supply("train.tsv.gz", 1, lambda: Fetched(rows(killed=killed), as_is, "test"))

    get([supply(killed=False)], tmp_path, Progress(disable=True))
    before = (tmp_path / "train.tsv.gz").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        get([supply(killed=True)], tmp_path, Progress(disable=True), force=True)
    assert written_below(tmp_path) == ["train.tsv.gz"]
    assert (tmp_path / "train.tsv.gz").read_bytes() == before


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_uniform_copy_is_checked_and_cleaned(hub: TinyHub, tmp_path: Path, out: Path) -> None:
    copy = tmp_path / "copy"
    write(copy / "stsb/train.tsv", 'sentence1\tsentence2\tscore\n "a\x0b\u00e9 \tcafe\u0301\t3.800\n')
    write(copy / "stsb/dev.tsv.gz", gzip.compress(b"sentence1\tsentence2\tscore\nc\td\t0\n"))
    said = dse("stsb", "--output", out, "--from", copy)
    assert written_below(out) == ["stsb/dev.tsv.gz", "stsb/train.tsv.gz"]
    assert list(pair_rows(out / "stsb/train.tsv.gz")) == [('"a \u00e9', "caf\u00e9", "3.800")]
    assert f"stsb/train.tsv.gz: 1 rows (5,749 are published) <- {copy}/stsb/train.tsv\n" in said
    assert hub.asked == []


def test_a_uniform_copy_may_hold_sets_that_the_hub_has_not(tmp_path: Path, out: Path) -> None:
    copy = tmp_path / "copy"
    write(copy / "parade/dev.tsv", "sentence1\tsentence2\tscore\na\tb\t1\n")
    assert dse("parade", "--output", out, "--from", copy) == (f"parade/dev.tsv.gz: 1 rows <- {copy}/parade/dev.tsv\n")
    with pytest.raises(BadInput, match=r"no set is called 'nope'; there are .*mnli, .*parade, .*stsb"):
        dse("nope", "--output", out, "--from", copy)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.tsv", "sentence1\tsentence2\na\tb\n", "train.tsv: the header lacks .'score'"),
        ("train.tsv", "sentence1\tsentence2\tscore\na\tb\n", "train.tsv:2: fewer columns than the header"),
        ("train.tsv", "sentence1\tsentence2\tscore\na\tb\t\n", "train.tsv: row 1: score is empty"),
        ("train.tsv.gz", "not gzip", "train.tsv.gz: Not a gzipped file"),
        ("corpus.jsonl", '{"_id": "a", "text": "b"}\nc\n', "corpus.jsonl:2: not JSON"),
        ("corpus.jsonl", "[]\n", "corpus.jsonl:1: not a JSON object"),
        ("corpus.jsonl", '{"_id": "a"}\n', r"corpus.jsonl: row 1: no column 'text' among \['_id'\]"),
        ("corpus.jsonl", '{"_id": "", "text": "b"}\n', "corpus.jsonl: row 1: _id is empty"),
        ("qrels/test.tsv", "q1\td1\t1\n", "test.tsv: the header is"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n", "test.tsv:2: 2 columns, the header has 3"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tx\n", "test.tsv: row 1: invalid literal"),
    ],
)
def test_a_uniform_copy_that_is_not_uniform_is_refused(
    tmp_path: Path, out: Path, file: str, content: str, message: str
) -> None:
    write(tmp_path / "copy/mine" / file, content)
    with pytest.raises(REFUSALS, match=message):
        dse("mine", "--output", out, "--from", tmp_path / "copy")
    assert not out.exists() or written_below(out) == []


def test_a_beir_archive_as_unpacked_is_a_copy(tmp_path: Path, out: Path) -> None:
    copy = tmp_path / "copy/scifact"
    documents = '{"_id": "d1", "title": "T\\t1", "text": "one\\ntwo", "metadata": {}}\n{"_id": "d2", "text": "three"}\n'
    write(copy / "corpus.jsonl", documents)
    write(copy / "queries.jsonl", '{"_id": "q1", "text": "which?", "metadata": {}}\n')
    write(copy / "qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    dse("scifact", "--output", out, "--from", copy.parent)
    assert_is_scifact(out / "scifact")


@pytest.mark.parametrize("owner", ["BeIR/", ""])
def test_originals_are_taken_from_below_their_repositories_names(
    scifact: TinyHub, tmp_path: Path, out: Path, owner: str
) -> None:
    for name, content in scifact.files.items():
        write(tmp_path / "copy" / (owner + name.removeprefix("BeIR/")), content)
    dse("scifact", "--output", out, "--from", tmp_path / "copy")
    assert_is_scifact(out / "scifact")
    assert scifact.asked == []


def test_originals_are_all_there_and_of_the_published_size_or_refused(
    stsb: TinyHub, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    for name in (STSB.format("train"), STSB.format("test")):
        write(copy / name, stsb.files[name])
    with pytest.raises(BadInput, match=r"holds neither stsb/dev.tsv.gz nor .*data/validation-.*1 of the 3 originals"):
        dse("stsb", "--output", out, "--from", copy)
    count(monkeypatch, "stsb", train=5749, test=1379)
    with pytest.raises(BadInput, match=r"2 rows for train.tsv.gz, 5,749 are published"):
        dse("stsb", "--output", out, "--from", copy)
    assert written_below(out) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stsb"], "give the names of some sets and --output DIR"),
        (["--output", "out"], "give the names of some sets and --output DIR"),
        (["nope", "stsb", "--output", "out"], "no set is called 'nope'; there are .*stsb, trec-covid"),
        (["stsb", "--output", "out", "--from", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_what_the_caller_can_mend(
    hub: TinyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        dse(*arguments)
    assert hub.asked == []
    assert not (tmp_path / "out").exists()


def test_every_set_is_listed_with_its_source_terms_and_size() -> None:
    said, found = dse("--list"), json.loads(dse("--list", "--json"))
    assert found.keys() == CATALOGUE.keys() >= {"stsb", "mrpc", "qqp", "mnli", "qnli", "rte", "snli", "sick", "fiqa"}
    for name, row in found.items():
        assert f"\n{name}: " in f"\n{said}"
        assert row["source"] in said
        assert row["terms"] in said
    assert "train 5,749, dev 1,500, test 1,379" in said


def test_what_was_got_as_json(stsb: TinyHub, out: Path) -> None:
    (train, *_) = json.loads(dse("stsb", "--output", out, "--json"))["stsb"]
    origin = f"sentence-transformers/stsb@{COMMIT[:12]}/data/train-00000-of-00001.parquet"
    assert train == {"file": "train.tsv.gz", "rows": 2, "published": 2, "origin": origin}


def test_the_environment_of_the_hub_holds_for_the_program(hub: TinyHub, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "scripts.dse", "data", "get", "scidocs", "--output", str(tmp_path / "out")]
    environment = {"PATH": os.environ["PATH"], "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "HF_TOKEN": "hf_secret"}
    missing = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (2, "", 1)
    assert missing.stderr.startswith(f"dse: {hub.address}/datasets/BeIR/scidocs/resolve/main/corpus/corpus-00000-of-")
    assert [(method, token) for method, _, token in hub.asked] == [("HEAD", True)]  # and no telemetry
    offline = subprocess.run(
        program, capture_output=True, text=True, check=False, env=environment | {"HF_HUB_OFFLINE": "1"}
    )
    assert (offline.returncode, offline.stdout, offline.stderr.count("\n")) == (2, "", 1)
    assert "HF_HUB_OFFLINE is set" in offline.stderr
    assert len(hub.asked) == 1


@pytest.mark.parametrize("name", ["stsb", "rte", "cranfield"])
def test_real_sets_are_copied_line_for_line(data: Path, out: Path, name: str) -> None:
    dse(name, "--output", out, "--from", data)
    for file in written_below(out / name):
        mine, theirs = (folder / name / file for folder in (out, data))
        if mine.suffix == ".gz":
            assert gzip.decompress(mine.read_bytes()) == gzip.decompress(theirs.read_bytes()), file
        else:
            assert mine.read_bytes() == theirs.read_bytes(), file


def test_real_sets_have_the_published_counts(data: Path, out: Path) -> None:
    said = dse("stsb", "rte", "mrpc", "xnli_en", "paws", "--output", out, "--from", data)
    assert "are published" not in said
    assert said.count(" rows <- ") == 3 + 2 + 3 + 1 + 1


def test_the_documentation_names_every_set() -> None:
    guide = (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8")
    assert [name for name in CATALOGUE if f"`{name}`" not in guide] == []


def test_the_teacher_recipe_reads_what_was_got(data: Path, out: Path) -> None:
    recipe = read_recipe(Path(__file__).parents[2] / "scripts/recipes/teacher.toml", TeacherRecipe).data
    files = [*recipe.held_out, recipe.dev.file, recipe.test.file, *(pairs.file for pairs in recipe.sets.values())]
    dse(*sorted({file.split("/")[0] for file in files}), "--output", out, "--from", data)
    got, given = (TrainingData(folder, recipe) for folder in (out, data))
    for name in recipe.sets:
        assert got.pairs(name) == given.pairs(name) != []
