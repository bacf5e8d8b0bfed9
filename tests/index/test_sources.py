import gzip
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from index.build import build
from index.documents import Document
from index.sources import Columns, Inputs, Rejects, SourceError, read_documents
from tests.index.journal import Journal
from tests.index.lettered import ENCODER, embed

ID_AND_TEXT = Columns()


def documents(*paths: Path, columns: Columns = ID_AND_TEXT) -> list[Document]:
    return [sourced.document for sourced in read_documents(paths, columns)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"id": "x", "text": "one", "metadata": {"n": 1}}\n\n{"id": 7, "text": "two"}\n{"text": "thrée"}\n',
    )
    assert documents(path) == [
        Document("x", "one", {"n": 1}),
        Document("7", "two"),
        Document(f"{path}:4", "thrée"),
    ]


def test_csv_with_quotes_and_a_line_break_in_a_cell(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text,year\n1,"a, ""b""\nc",1999\n')
    assert documents(path) == [Document("1", 'a, "b"\nc', {"year": "1999"})]


def test_in_tsv_a_quotation_mark_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\n"half\nwhole\n')
    assert documents(path) == [Document(f"{path}:2", '"half'), Document(f"{path}:3", "whole")]


def test_txt_a_line_a_document(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeffone\r\n\n  two  \n")
    assert documents(path) == [Document(f"{path}:1", "one"), Document(f"{path}:3", "two")]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"key": ["a"], "body": ["one"], "n": [3]}), path)
    assert documents(path, columns=Columns("key", "body")) == [Document("a", "one", {"n": 3})]


def test_inputs_follow_each_other_and_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = write(tmp_path / "a/x.txt", "one\n"), write(tmp_path / "b/x.txt", "two\n")
    found = documents(first, second)
    assert [d.text for d in found] == ["one", "two"]
    assert found[0].id != found[1].id


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"text\n{'word ' * 50_000}\n")
    assert len(documents(path)[0].text) > 200_000


def test_parquet_without_the_extra_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"pip install '\.\[parquet\]'"):
        documents(write(tmp_path / "a.parquet", "x"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"id": "1", "text": "ok"}\n{"id": "2", "te\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: not a JSON object"),
        ("a.jsonl", '{"id": "1"}\n', "a.jsonl:1: 'text' is missing or not a string"),
        ("a.jsonl", '{"id": "1", "text": 5}\n', "a.jsonl:1: 'text' is missing or not a string"),
        ("a.jsonl", '{"id": true, "text": "a"}\n', "a.jsonl:1: 'id' is missing or not a string"),
        ("a.jsonl", '{"id": "1", "text": " "}\n', "a.jsonl:1: 'text' is empty"),
        ("a.jsonl", '{"id": "", "text": "a"}\n', "a.jsonl:1: 'id' is empty"),
        ("a.jsonl", '{"id": "1", "text": "a\\u0000b"}\n', "a.jsonl:1: 'text' holds a NUL character"),
        ("a.jsonl", '{"id": "1", "text": "\\ud800"}\n', "a.jsonl:1: 'text' holds half of a surrogate pair"),
        ("a.jsonl", '{"id": "1", "text": "a", "metadata": 3}\n', "a.jsonl:1: metadata is not a JSON object"),
        ("a.jsonl", '{"id": "1", "text": "a", "metadata": {"x": NaN}}\n', "a.jsonl:1: metadata is not JSON: 'x'"),
        (
            "a.jsonl",
            '{"id": "1", "text": "a", "metadata": ' + '{"x":' * 65 + "1" + "}" * 66,
            "more than 64 levels deep",
        ),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: not JSON"),
        ("a.csv", 'id,text\n1,"never closed\n2,foo\n', r"a.csv: after line .*\(a quotation mark is not closed\)"),
        ("a.csv", "id,text,text\n1,a,b\n", r"a.csv: the header names .'text'. twice"),
        ("a.jsonl", '{"id": "1", "text": "a", "titel": "b"}\n', r"a.jsonl:1: unknown fields \['titel'\]"),
        ("a.jsonl", "", "a.jsonl: no documents in it"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', "a.jsonl: after line .*not UTF-8"),
        ("a.txt", "\n\n", "a.txt: no documents in it"),
        ("a.csv", "id,body\n1,one\n", "a.csv: no column 'text' among .*--text-column"),
        ("a.csv", "id,text\n1\n", "a.csv:2: not as many columns"),
        ("a.csv", "id,text\n1,one,two\n", "a.csv:2: not as many columns"),
        ("a.docx", "x", "a.docx: of a kind that is not read"),
    ],
)
def test_a_broken_input_is_named_with_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        documents(write(tmp_path / name, content))


def test_metadata_may_be_nested_64_levels_deep(tmp_path: Path) -> None:
    metadata = '{"x":' * 64 + "1" + "}" * 64
    path = write(tmp_path / "a.jsonl", f'{{"id": "1", "text": "a", "metadata": {metadata}}}\n')
    assert documents(path) == [Document("1", "a", json.loads(metadata))]


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jsonl: No such file"):
        documents(tmp_path / "nowhere.jsonl")


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(SourceError, match="not a Parquet file"):
        documents(write(tmp_path / "a.parquet", "x"))


def test_nothing_is_read_ahead(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "fine"}), "broken"]
    reader = read_documents([write(tmp_path / "a.jsonl", "\n".join(lines))])
    assert next(reader).document.text == "fine"
    with pytest.raises(SourceError, match=r"a\.jsonl:2"):
        next(reader)


def skipping(path: Path, rejects: Path) -> tuple[list[Document], list[dict[str, str | None]]]:
    with Rejects(rejects) as rejected:
        found = [sourced.document for sourced in Inputs([path], ID_AND_TEXT, rejected)]
        rejected.save()
        lines = [json.loads(line) for line in rejects.read_text("utf-8").splitlines()]
        assert rejected.count == len(lines)
    return found, lines


@pytest.mark.parametrize(
    ("name", "content", "texts", "bad"),
    [
        (
            "a.jsonl",
            '{"text": "one"}\n{"te\n[]\n{"text": "\\ud800"}\r\n{"text": "two"}',
            ["one", "two"],
            [(2, "not JSON", '{"te'), (3, "not a JSON object", "[]"), (4, "half of a", '{"text": "\\ud800"}')],
        ),
        ("a.txt", "one\na\0b\ntwo\n", ["one", "two"], [(2, "NUL", "a\0b")]),
        (
            "a.csv",
            'text,n\none,1\nshort\n"a"b,2\n"two\nlines",3\n\ntwo,4,5\n',
            ["one", "two\nlines"],
            [(3, "not as many columns", "short"), (4, "not a row", '"a"b,2'), (8, "as many columns", "two,4,5")],
        ),
        ("a.tsv", 'text\tn\n"one\t1\n\t2\ntwo\t3\n', ['"one', "two"], [(3, "'text' is empty", "\t2")]),
    ],
)
def test_a_bad_line_is_passed_over_and_written_down(
    tmp_path: Path, name: str, content: str, texts: list[str], bad: list[tuple[int, str, str]]
) -> None:
    path = write(tmp_path / name, content)
    found, rejected = skipping(path, tmp_path / "rejects.jsonl")
    assert [document.text for document in found] == texts
    assert [(line["place"], line["line"]) for line in rejected] == [(f"{path}:{row}", raw) for row, _, raw in bad]
    assert all(reason in str(line["reason"]) for line, (_, reason, _) in zip(rejected, bad, strict=True))


def test_a_bad_parquet_row_is_passed_over(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    days = pyarrow.array([0, 2**40, None], pyarrow.int64()).cast(pyarrow.timestamp("s"))
    table = pyarrow.table({"text": ["one", "two", "three"], "day": days, "n": [1.0, 2.0, float("nan")]})
    parquet.write_table(table.drop(["n"]), tmp_path / "days.parquet")
    parquet.write_table(table.drop(["day"]), tmp_path / "numbers.parquet")
    found, rejected = skipping(tmp_path / "days.parquet", tmp_path / "rejects.jsonl")
    assert [document.text for document in found] == ["three"]
    assert ["has no place in JSON" in str(line["reason"]) for line in rejected] == [False, True]
    found, rejected = skipping(tmp_path / "numbers.parquet", tmp_path / "rejects.jsonl")
    assert [document.text for document in found] == ["one", "two"]
    assert [line["place"] for line in rejected] == [f"{tmp_path / 'numbers.parquet'}:3"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', "not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "ok"}\n' * 1000)[:-20], "not a whole gzip file"),
        ("a.jsonl.gz", b'{"text": "ok"}\n', "after line 0: not a whole gzip file"),
        ("a.jsonl.gz", b"", "a.jsonl.gz: an empty file is no gzip"),
        ("a.csv", 'text\none\n"two\nthree\n', "a quotation mark is not closed"),
        ("a.csv", "body\none\n", "no column 'text'"),
    ],
)
def test_a_broken_file_is_an_error_even_where_lines_are_skipped(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        skipping(write(tmp_path / name, content), tmp_path / "rejects.jsonl")


def test_compressed_inputs_read_as_their_content(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", '{"text": "one"}\n'), ("a.txt", "one\n"), ("a.csv", "n,text\n1,one\n")):
        path = write(tmp_path / f"{name}.gz", gzip.compress(content.encode()))
        assert [document.text for document in documents(path)] == ["one"]


def test_it_knows_how_far_it_has_read(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, "text of a line\n" * 20_000) for name in ("a.txt", "b.txt")]
    inputs = Inputs(paths)
    shares = [inputs.share_read() for _ in inputs]
    assert shares == sorted(shares)
    np.testing.assert_allclose(shares, np.arange(40_000) / 40_000, atol=0.02)
    assert inputs.share_read() == 1
    assert Inputs([Path("-")]).share_read() is None


def test_a_rejects_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be written: it is there, and no file"):
        Rejects(tmp_path)
    with pytest.raises(SourceError, match="cannot be written: No such file"):
        Rejects(tmp_path / "nowhere" / "rejects")


def test_a_build_that_is_refused_leaves_the_rejects_of_another(tmp_path: Path) -> None:
    path, rejects = write(tmp_path / "a.txt", "one\na\0b\n"), tmp_path / "rejects"
    _, whole = skipping(path, rejects)
    with Rejects(rejects) as refused:
        assert {file.name for file in tmp_path.iterdir()} == {"a.txt", "rejects"}  # as a kill would leave it
        refused.add("elsewhere", "none", None)
    assert [json.loads(line) for line in rejects.read_text().splitlines()] == whole
    assert {file.name for file in tmp_path.iterdir()} == {"a.txt", "rejects"}


def test_rejects_are_durable_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    with Rejects(tmp_path / "rejects") as rejects:
        rejects.add("a.txt:2", "NUL", "a\0b")
        rejects.save()
    partial = f"rejects.{os.getpid()}.partial"
    assert journal.steps == [f"fsync {partial}", f"replace {partial}", f"fsync {tmp_path.name}"]


def shards(folder: Path) -> Path:
    """As those who write shards leave them: out of order, one empty, with files that only they read."""
    (folder / "b").mkdir(parents=True)
    write(folder / "b" / "part-1.jsonl", '{"id": "3", "text": "three"}\n')
    write(folder / "part-2.jsonl.gz", gzip.compress(b'{"id": "4", "text": "four"}\n'))
    write(folder / "part-0.jsonl", "")
    write(folder / "a.tsv", "id\ttext\n1\tone\n2\ttwo\n")
    for hidden in ("_SUCCESS", ".a.tsv.crc", "b/_metadata"):
        write(folder / hidden, "no documents")
    return folder


def test_a_folder_is_its_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards")
    assert [found.id for found in documents(folder)] == ["1", "2", "3", "4"]
    inputs = Inputs([folder])
    places = [sourced.place for sourced in inputs]
    assert places[2] == f"{folder / 'b' / 'part-1.jsonl'}:1"
    assert inputs.share_read() == 1.0


def test_a_url_is_what_the_folder_there_is(tmp_path: Path) -> None:
    import fsspec

    folder = shards(tmp_path / "shards")
    memory = fsspec.filesystem("memory")
    try:
        memory.put(str(folder), "/bucket/shards", recursive=True)
        url = "memory://bucket/shards"
        found = list(Inputs([url]))
        assert [sourced.document for sourced in found] == documents(folder)
        assert found[2].place == "memory:///bucket/shards/b/part-1.jsonl:1"
        alone = Inputs([f"{url}/a.tsv"])
        assert [sourced.document.text for sourced in alone] == ["one", "two"]
        assert alone.share_read() == 1.0
        assert [sourced.document.id for sourced in Inputs([f"{url}/part-*"])] == ["4"]
        for missing in (f"{url}/nothing.jsonl", f"{url}/no*.jsonl"):
            with pytest.raises(SourceError, match=rf"{missing.split('/')[-1].replace('*', '.')}: "):
                list(Inputs([missing]))
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_server_need_not_say_how_long_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        memory.pipe("/bucket/a.txt", b"one\ntwo\n")
        monkeypatch.setattr(type(memory), "size", lambda *_: None)
        inputs = Inputs(["memory://bucket/a.txt"])
        assert [(sourced.document.text, inputs.share_read()) for sourced in inputs] == [("one", None), ("two", None)]
    finally:
        memory.rm("/bucket", recursive=True)


def test_the_name_of_a_file_need_not_be_text(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("one\n")
    assert [found.id for found in documents(folder)] == [rf"{folder}/caf\xe9.txt:1"]
    build(Inputs([folder]), embed, 26, ENCODER, tmp_path / "index")


@pytest.mark.parametrize("url", ["nobody://bucket/x.jsonl", "abfs://bucket/x.jsonl"])
def test_a_url_that_nothing_here_speaks_is_an_error_that_says_so(url: str) -> None:
    with pytest.raises(SourceError, match=rf"^{url}: .*(not known|[Ii]nstall)"):
        list(Inputs([url]))


def test_a_file_that_would_be_missed_in_a_folder_is_an_error(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards")
    write(folder / "part-3.json", "{}")
    with pytest.raises(SourceError, match=r"part-3\.json: of a kind that is not read"):
        documents(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: no files in it"):
        documents(tmp_path / "empty")
