import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from model.bundle import Student
from scripts.console import REFUSALS, BadInput
from scripts.dse import app
from tests.command import dse
from tests.conftest import WORDS
from tests.tiny import write_student


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch, student_bundle: Path, teacher_bundle: Path) -> None:
    monkeypatch.setenv("DSE_BUNDLE", str(student_bundle))
    monkeypatch.setenv("DSE_TEACHER", str(teacher_bundle))
    monkeypatch.setenv("COLUMNS", "200")


def test_search_one_off(words_index: Path) -> None:
    found = json.loads(dse("search", words_index, "listen", "-k", 3, "--json"))
    assert found["model"] == "tiny-student"
    assert len(found["hits"]) == 3
    table = dse("search", words_index, "listen", "-k", 3)
    assert all(hit["id"] in table and hit["text"] in table for hit in found["hits"])


def test_search_in_bulk_is_one_off_many_times(tmp_path: Path, words_index: Path) -> None:
    (tmp_path / "queries.txt").write_text("listen\n\nstone\n")
    dse("search", words_index, "--queries", tmp_path / "queries.txt", "-o", tmp_path / "hits.jsonl", "-k", 2)
    lines = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == ["listen", "stone"]
    for line in lines:
        alone = json.loads(dse("search", words_index, line["query"], "-k", 2, "--json"))["hits"]
        assert [hit["id"] for hit in line["hits"]] == [hit["id"] for hit in alone]
        assert [hit["score"] for hit in line["hits"]] == pytest.approx([hit["score"] for hit in alone])


@pytest.mark.parametrize("rerank", ["head", "none", "teacher"])
def test_search_is_ordered_by_whom_the_service_would_ask(words_index: Path, client: TestClient, rerank: str) -> None:
    here = json.loads(dse("search", words_index, "silent", "-k", "4", "--rerank", rerank, "--json"))["hits"]
    there = client.post("/v1/search", json={"query": "silent", "k": 4, "rerank": rerank}).json()["hits"]
    assert [hit["id"] for hit in here] == [hit["id"] for hit in there]
    assert [hit["score"] for hit in here] == pytest.approx([hit["score"] for hit in there])


def test_search_by_a_teacher_that_there_is_not(words_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_TEACHER", "")
    with pytest.raises(BadInput, match="there is no teacher; name its bundle by DSE_TEACHER"):
        dse("search", words_index, "silent", "--rerank", "teacher")


def test_search_with_a_filter(tmp_path: Path, words_index: Path) -> None:
    options = ("--filter", '{"length": {"$lt": 6}}', "-k", 9)
    hits = json.loads(dse("search", words_index, "listen", "--json", *options))["hits"]
    assert sorted(hit["text"] for hit in hits) == sorted(word for word in WORDS if len(word) < 6)
    queries, output = write(tmp_path / "queries.txt", "listen"), tmp_path / "hits.jsonl"
    dse("search", words_index, "--queries", queries, "-o", output, *options)
    assert [hit["id"] for hit in json.loads(output.read_text())["hits"]] == [hit["id"] for hit in hits]


def test_score_one_off_and_in_bulk(tmp_path: Path) -> None:
    alone = json.loads(dse("score", "listen", "stone", "--json"))
    (tmp_path / "pairs.tsv").write_text('sentence1\tsentence2\tnote\nlisten\tstone\tx\n"a\tb\ty\n')
    dse("score", tmp_path / "pairs.tsv", "-o", tmp_path / "scores.tsv")
    header, first, second = (tmp_path / "scores.tsv").read_text().splitlines()
    assert header.split("\t") == ["sentence1", "sentence2", "note", "score", "similarity"]
    assert first.split("\t")[:3] == ["listen", "stone", "x"]
    assert float(first.split("\t")[3]) == pytest.approx(alone["score"], abs=1e-5)
    assert second.startswith('"a\tb\t')
    assert f"score {alone['score']:.3f}" in dse("score", "listen", "stone")


def test_a_score_that_a_file_of_pairs_has_stays_apart_from_the_students(tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.tsv", "sentence1\tsentence2\tscore\nlisten\tstone\t5\n")
    once, twice, more = (tmp_path / f"{name}.tsv" for name in ("once", "twice", "more"))
    for read, written in ((pairs, once), (once, twice), (twice, more)):
        dse("score", read, "-o", written)
    header, row = (line.split("\t") for line in more.read_text().splitlines())
    assert header == [
        "sentence1", "sentence2", "score", "student_score", "student_similarity",
        "student_2_score", "student_2_similarity", "student_3_score", "student_3_similarity",
    ]  # fmt: skip
    assert row[:3] == ["listen", "stone", "5"]
    assert row[3:5] == row[5:7] == row[7:]


def test_encode_writes_rows_in_order(tmp_path: Path, student: Student) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    dse("encode", tmp_path / "words.txt", "-o", tmp_path / "vectors.npy")
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), student.encoder.encode(WORDS), atol=1e-6)


def test_encode_cuts_where_the_bundle_allows(tmp_path: Path) -> None:
    bundle = write_student(tmp_path / "bundle", matryoshka=[8])
    arguments = ("encode", write(tmp_path / "words.txt", "listen"), "-o", tmp_path / "vectors.npy", "--bundle", bundle)
    dse(*arguments, "--dimensions", 8)
    assert np.load(tmp_path / "vectors.npy").shape == (1, 8)
    with pytest.raises(REFUSALS, match="of 4 dimensions were asked for; this model gives 8, 16"):
        dse(*arguments, "--dimensions", 4)


def test_build_info_verify(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("key,body,kind\n1,listen,verb\n2,stone,noun\n")
    columns = ("--id-column", "key", "--text-column", "body")
    built = json.loads(
        dse("index", "build", tmp_path / "words.csv", "--output", tmp_path / "index", *columns, "--json")
    )
    assert (built["documents"], built["generation"], built["recipe"]) == (2, "000001", "Flat")
    assert json.loads(dse("index", "info", tmp_path / "index", "--json"))["files"] == built["files"]
    assert "000001" in dse("index", "info", tmp_path / "index")
    assert "is whole (2 documents)" in dse("index", "verify", tmp_path / "index")
    hit = json.loads(dse("search", tmp_path / "index", "stone", "--json", "-k", 2))["hits"]
    assert {h["id"]: h["metadata"] for h in hit} == {"1": {"kind": "verb"}, "2": {"kind": "noun"}}


def test_an_index_says_what_was_proven_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = np.random.default_rng(0).choice(list("abcdefgh"), (300, 7))
    write(tmp_path / "words.txt", "\n".join(sorted({"".join(word) for word in letters})))
    arguments = ("index", "build", tmp_path / "words.txt", "--output", tmp_path / "index", "--recipe", "IVF8,SQ8")
    assert "target 0.9;" in dse(*arguments, "--target-recall", 0.9, "--memory", "1.5MB")
    said, facts = (
        dse("index", "info", tmp_path / "index"),
        json.loads(dse("index", "info", tmp_path / "index", "--json")),
    )
    assert facts["proof"]["target"] == 0.9
    assert facts["proof"]["lower_bound"] >= 0.9
    assert f"nprobe {facts['search']['nprobe']}" in said
    assert f"depth {facts['depth']}:" in said
    monkeypatch.delenv("DSE_DEPTH", raising=False)
    assert len(json.loads(dse("search", tmp_path / "index", "abc", "-k", 3, "--json"))["hits"]) == 3
    queries = write(tmp_path / "queries.txt", "\n".join("".join(word) for word in letters[:20]))
    with pytest.raises(REFUSALS, match=r"over 10 queries; nothing is published: .*give 104 queries or more"):
        dse(*arguments, "--queries", queries)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--memory", "much"), "--memory 'much' is no number of bytes"),
        (("--memory", "10"), "more than --memory 10; give"),
        (("--target-recall", "1"), "give one above 0 and below 1"),
        (("--rank-by", "head"), "FAISS cannot rank by the head of tiny-student"),
        (("--recipe", "PQ8"), "'PQ8' is not a recipe for here"),
        (("--queries", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_a_build_that_cannot_be_proven_is_refused(tmp_path: Path, options: tuple[str, str], message: str) -> None:
    words = write(tmp_path / "words.txt", "\n".join(WORDS))
    with pytest.raises(REFUSALS, match=message):
        dse("index", "build", words, "--output", tmp_path / "index", "--recipe", "SQ8", *options)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "INDEX"], "give either one query, or --queries"),
        (["search", "INDEX", "a", "--queries", "x", "-o", "y"], "give either one query"),
        (["search", "INDEX", "--queries", "x"], "give either one query"),
        (["search", "INDEX", "--queries", "nowhere.txt", "-o", "y"], "nowhere.txt"),
        (["search", "INDEX", " "], "the query is empty"),
        (["search", "INDEX", "a", "--filter", "lang=en"], "--filter is not JSON"),
        (["search", "INDEX", "a", "--filter", '{"n": {"$near": 1}}'], r"--filter: n\.\$near: no such operator"),
        (["search", "nowhere", "a"], "nowhere is not an index"),
        (["search", "INDEX", "a", "--bundle", "nowhere"], "nowhere is not a bundle"),
        (["score", "one"], "give either two sentences"),
        (["score", "a", ""], "a sentence is empty"),
        (["score", "nowhere.tsv", "-o", "y"], "nowhere.tsv"),
        (["index", "build", "nowhere.txt", "--output", "NEW"], "nowhere.txt: No such file"),
        (["index", "info", "nowhere"], "nowhere is not an index"),
        (["evaluate", "pairs.tsv"], "give a model: --folder"),
    ],
)  # fmt: skip
def test_what_the_caller_can_mend_is_said_in_a_line(
    tmp_path: Path, words_index: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"INDEX": str(words_index), "NEW": str(tmp_path / "new")}
    with pytest.raises(REFUSALS, match=message):
        dse(*(places.get(argument, argument) for argument in arguments))
    assert not (tmp_path / "new").exists()


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "scripts.dse", "index", "info", str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"dse: {tmp_path} is not an index")
    assert done.stderr.count("\n") == 1


def test_training_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadInput, match=r"pip install '\.\[train\]'"):
        dse("teacher", "train", "recipe.toml", "--data", ".", "--output", "out")


def write(path: Path, content: str) -> Path:
    path.write_text(content, "utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence1\tsentence2\n", "no pairs in it"),
        ("sentence1\tother\na\tb\n", r"the header lacks \['sentence2'\]"),
        ("sentence1\tsentence2\tn\tn\na\tb\t1\t2\n", r"the header names \['n'\] more than once"),
        ("sentence1\tsentence2\na\n", "pairs.tsv:2: 1 columns, the header has 2"),
        ("sentence1\tsentence2\na\t \n", "pairs.tsv:2: sentence2 is empty"),
        ("sentence1\tsentence2\na\0\tb\n", "pairs.tsv:2: sentence1 holds a NUL character"),
    ],
)
def test_a_pair_file_that_cannot_be_scored_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    pairs = write(tmp_path / "pairs.tsv", content)
    with pytest.raises(BadInput, match=message):
        dse("score", pairs, "-o", tmp_path / "scores.tsv")
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.tsv"]


def test_a_pair_file_may_have_a_mark_a_return_and_long_cells(tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.tsv", f"\ufeffsentence1\tsentence2\r\na\rb\t{'word ' * 50_000}\r\n")
    dse("score", pairs, "-o", tmp_path / "scores.tsv")
    assert (tmp_path / "scores.tsv").read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("place", ["nowhere/out", "folder"])
@pytest.mark.parametrize("command", ["search", "score", "encode", "stdlib"])
def test_a_place_that_cannot_be_written_is_said_before_any_work(
    tmp_path: Path, words_index: Path, command: str, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    texts = write(tmp_path / "texts.txt", "listen\n")
    pairs = write(tmp_path / "pairs.tsv", "sentence1\tsentence2\na\tb\n")
    output = tmp_path / place
    if command == "stdlib":
        output = texts / "out" if place == "nowhere/out" else output
    arguments = {
        "search": ["search", words_index, "--queries", texts],
        "score": ["score", pairs],
        "encode": ["encode", texts],
        "stdlib": ["data", "stdlib"],
    }
    with pytest.raises(REFUSALS, match=r"cannot be written|File exists|Not a directory"):
        dse(*arguments[command], "-o", output)
    assert not list(tmp_path.rglob("*.partial"))


def test_an_output_is_replaced_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, output = write(tmp_path / "texts.txt", "listen\nstone\n"), write(tmp_path / "out.npy", "precious")

    there: list[str] = []

    def killed(*_: object) -> None:
        there.extend(path.name for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("model.encoder.OnnxEncoder.embed", killed)
    CliRunner().invoke(app, ["encode", str(texts), "-o", str(output)])
    assert len(there) == 3  # it was being written, beside what was there
    assert output.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "texts.txt"]


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from rich.console import Console

    from scripts import console

    monkeypatch.setattr(console, "errors", Console(stderr=True, force_terminal=False, highlight=False))
    with console.progress_bar() as bar:
        task = bar.add_task("labelling", total=5000)
        bar.update(task, completed=1200)
        bar.advance(task, 100)  # too soon for another line
        monkeypatch.setattr(console, "SECONDS_PER_LINE", 0.0)
        bar.advance(task, 200)
    assert capsys.readouterr().err == "labelling: 1,200 of 5,000\nlabelling: 1,500 of 5,000\n"


def test_a_table_shows_a_text_as_it_is(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.txt", "a [red]b[/x] c\n")
    dse("index", "build", texts, "--output", tmp_path / "index")
    assert "a [red]b[/x] c" in dse("search", tmp_path / "index", "a")


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_DEPTH", "100")
    monkeypatch.setenv("DSE_MAX_DEPTH", "50")
    with pytest.raises(BadInput, match=r"DSE_DEPTH \(100\) is above DSE_MAX_DEPTH \(50\)"):
        dse("score", "a", "b")
    monkeypatch.setenv("DSE_DEPTH", "many")
    with pytest.raises(BadInput, match="--depth or DSE_DEPTH: Input should be a valid integer"):
        dse("score", "a", "b")


def test_a_value_that_an_option_does_not_have_is_refused_by_its_name() -> None:
    with pytest.raises(BadInput, match="--long-text or DSE_LONG_TEXT: Input should be 'truncate' or 'chunk'"):
        dse("score", "listen", "stone", "--long-text", "cut")


def test_a_misspelt_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_READONLY", "true")
    with pytest.raises(BadInput, match="DSE_READONLY is not a setting; did you mean DSE_READ_ONLY"):
        dse("serve")
    monkeypatch.delenv("DSE_READONLY")
    monkeypatch.setenv("DSE_SERVICE_HOST", "10.0.0.1")  # as Kubernetes would, of a Service that is called dse
    assert "score" in dse("score", "a", "b")


def test_a_port_in_use_is_refused_before_the_models_are_read() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            dse("serve", "--port", port, "--bundle", "nowhere")
    with pytest.raises(BadInput, match=r"cannot listen on a\.\.b:0: not a host's name"):
        dse("serve", "--host", "a..b", "--port", 0)
    with pytest.raises(BadInput, match=r"cannot listen on nope\.invalid"):
        dse("serve", "--host", "nope.invalid", "--port", 1)


@pytest.mark.parametrize("url", ["foo", "http://127.0.0.1:9"])
def test_evaluating_what_is_no_service_says_so(tmp_path: Path, url: str) -> None:
    pairs = write(tmp_path / "pairs.tsv", "sentence1\tsentence2\tscore\na\tb\t1\nc\td\t4\n")
    with pytest.raises(BadInput, match=r"give the address of a running service|does not answer as this service does"):
        dse("evaluate", pairs, "--url", url)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (["1"], "scores that are not all the same"),
        (["1", "1"], "scores that are not all the same"),
        (["nan", "1"], "pairs.tsv, row 1: score 'nan' is not within 0 to 5"),
        (["1", "99"], "pairs.tsv, row 2: score '99' is not within 0 to 5"),
    ],
)
def test_evaluating_on_gold_that_cannot_be_agreed_with_is_refused(
    tmp_path: Path, scores: list[str], message: str
) -> None:
    rows = "".join(f"a\tb\t{score}\n" for score in scores)
    pairs = write(tmp_path / "pairs.tsv", f"sentence1\tsentence2\tscore\n{rows}")
    with pytest.raises(REFUSALS, match=message):
        dse("evaluate", pairs, "--url", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("variable", "expected"), [({}, None), ({"DSE_THREADS": "1"}, "1"), ({"DSE_THREADS": "x"}, None)]
)
def test_the_thread_budget_reaches_the_native_libraries(variable: dict[str, str], expected: str | None) -> None:
    from app.threads import thread_budget

    code = "import scripts.dse, os, sys; print(os.environ['OMP_NUM_THREADS'], 'numpy' in sys.modules)"
    environment = {"PATH": "/usr/bin:/bin", **variable}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [expected or str(thread_budget()), "False"]


def test_bad_lines_are_passed_over_where_asked(tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"id": "a", "text": "stone"}\n{"id": \n{"id": "a", "text": "notes"}\n')
    place = ["index", "build", lines, "--output", tmp_path / "index"]
    said = dse(*place, "--on-error", "skip", "--rejects", tmp_path / "rejects.jsonl")
    assert "1 documents" in said
    assert "2 lines passed over" in said
    rejected = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [entry["place"] for entry in rejected] == [f"{lines}:2", f"{lines}:3"]
    assert json.loads(dse(*place, "--on-error", "skip", "--fresh", "--json"))["rejected"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rejects", "r.jsonl"], "--rejects needs --on-error skip"),
        (["--on-error", "skip", "--rejects", "INPUT"], "is an input, or in one; give --rejects another file"),
    ],
)
def test_rejects_that_make_no_sense(tmp_path: Path, options: list[str], message: str) -> None:
    lines = tmp_path / "in.txt"
    lines.write_text("stone\n")
    given = [str(lines) if option == "INPUT" else option for option in options]
    with pytest.raises(BadInput, match=message):
        dse("index", "build", lines, "--output", tmp_path / "index", *given)
    assert lines.read_text() == "stone\n"


def test_what_is_said_of_a_cluster_needs_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--ray-workers and --ray-cpus need --engine ray"):
        dse("index", "build", write(tmp_path / "in.txt", "a"), "--output", tmp_path / "index", "--ray-cpus", 2)


def test_a_build_on_ray_without_the_extra_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "index.ray_workers", raising=False)
    with pytest.raises(BadInput, match=r"--engine ray needs the extra: pip install '\.\[ray\]'"):
        dse("index", "build", write(tmp_path / "in.txt", "a"), "--output", tmp_path / "index", "--engine", "ray")


def test_a_rejects_file_in_a_folder_that_is_read_is_refused(tmp_path: Path) -> None:
    options = ("--output", tmp_path / "index", "--on-error", "skip", "--rejects", tmp_path / "in" / "rejects.jsonl")
    with pytest.raises(BadInput, match="is an input, or in one"):
        dse("index", "build", tmp_path / "in", *options)
