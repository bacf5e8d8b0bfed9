import json
import math
from pathlib import Path

import numpy as np
import pytest

from model.faults import TrainingFault
from scripts.console import BadInput
from scripts.evaluation.retrieval import NOTHING, figures
from scripts.evaluation.sets import (
    REGISTRY,
    Collection,
    LabelledSet,
    Registry,
    RetrievalSet,
    StsSet,
    check_present,
    one_set,
)
from tests.scripts.evaluation.tiny_sets import write_sets


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def test_pairs_are_read_with_their_gold_on_a_scale_of_one(home: Path) -> None:
    found = StsSet(file="words/test.tsv.gz").read(home, "words/test")
    assert found.pairs[0] == ("listen", "silent")
    assert found.gold.tolist() == [1.0, 1.0, 0.0, 0.8, 0.0]
    assert (found.facts.kind, found.facts.items, found.facts.guarded) == ("sts", 5, False)
    assert len(found.facts.files["words/test.tsv.gz"]) == 64


def test_a_collection_holds_the_queries_that_have_an_answer_and_rows_in_the_order_of_ids(home: Path) -> None:
    found = RetrievalSet(folder="letters", guarded=True).read(home, "letters/test")
    assert found.document_ids == ["d1", "d2", "d3", "d4", "d5"]
    assert found.documents[:2] == ["silent", "notes"]
    assert found.queries == ["listen", "stone"]
    assert found.judged == [{0: 2.0}, {1: 1.0}]
    assert (found.facts.items, found.facts.documents, found.facts.guarded) == (2, 5, True)
    assert sorted(found.facts.files) == ["letters/corpus.jsonl.gz", "letters/qrels/test.tsv", "letters/queries.jsonl"]


def test_a_document_is_its_title_and_its_text(home: Path, tmp_path: Path) -> None:
    write_sets(tmp_path)
    row = {"_id": "d1", "title": "Tin", "text": "sel"}
    (tmp_path / "letters/corpus.jsonl.gz").rename(tmp_path / "letters/elsewhere")
    (tmp_path / "letters/corpus.jsonl").write_text(json.dumps(row) + "\n\n" + '{"_id": "d2", "text": "on"}\n')
    (tmp_path / "letters/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert one_set(tmp_path / "letters", "retrieval").documents == ["Tin sel", "on"]


def collection(folder: Path, documents: dict[str, tuple[str, str]], queries: dict[str, str], judged: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": id_, "title": title, "text": text} for id_, (title, text) in documents.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"_id": id_, "text": text} for id_, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def test_a_query_is_no_answer_to_itself_but_a_document_that_only_shares_its_number_is(tmp_path: Path) -> None:
    """With its title, as in ArguAna, or without."""
    documents = {"1": ("", "one"), "2": ("a title", "two"), "3": ("with", "three"), "4": ("", "another")}
    queries = {"1": "one", "2": "two", "3": "with three", "4": "four", "5": "one"}
    judged = "".join(f"{query}\t4\t1\n" for query in queries)
    found = one_set(collection(tmp_path / "set", documents, queries, judged), "retrieval")
    assert isinstance(found, Collection)
    assert found.themselves == [0, 1, 2, None, None]


def test_a_relevant_document_that_is_not_there_is_never_found(tmp_path: Path) -> None:
    documents = {f"d{n:03}": ("", "text") for n in range(120)}
    judged = [f"q\t{id_}\t1\n" for id_ in documents] + ["q\tgone\t2\n", "other\tgone\t1\n"]
    folder = collection(tmp_path / "set", documents, {"q": "a", "other": "b"}, "".join(judged))
    found = one_set(folder, "retrieval")
    assert isinstance(found, Collection)
    assert [len(of) for of in found.judged] == [121, 1]
    assert max(found.judged[1]) < NOTHING
    assert max(found.judged[0].values()) == 2.0
    ranking = np.array([[0, 1, *[NOTHING] * 98], [0, *[NOTHING] * 99]])
    figured = figures(ranking, found.judged)
    ideal = 2 + sum(1 / math.log2(rank + 1) for rank in range(2, 11))
    assert figured["ndcg@10"] == pytest.approx([(1 + 1 / math.log2(3)) / ideal, 0.0])
    few = collection(tmp_path / "few", documents, {"q": "a"}, "q\td001\t1\nq\tgone\t1\n")
    with pytest.raises(BadInput, match=r"test\.tsv:3: judges document 'gone', one of 1 that are not in .*corpus"):
        one_set(few, "retrieval")


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ([], ["words/test", "anagrams/dev", "letters/test"]),
        (["letters"], ["letters/test"]),
        (["anagrams/dev", "sts"], ["words/test", "anagrams/dev"]),
        (["retrieval", "letters/test"], ["letters/test"]),
    ],
)
def test_sets_are_chosen_by_name_by_folder_or_by_kind(home: Path, only: list[str], expected: list[str]) -> None:
    assert list(Registry.read(home / "sets.toml").chosen(only)) == expected


def test_a_set_that_is_not_listed_is_refused(home: Path) -> None:
    with pytest.raises(BadInput, match=r"--only letter: there is no such set \(there are words/test, anagrams/dev"):
        Registry.read(home / "sets.toml").chosen(["letters", "letter"])


def test_sets_that_are_not_there_are_named_before_any_is_measured(home: Path) -> None:
    sets = {
        "words/test": StsSet(file="words/test.tsv.gz"),
        "a/dev": StsSet(file="a.tsv"),
        "b": RetrievalSet(folder="b"),
    }
    with pytest.raises(BadInput, match=r"lacks 2 of 3 sets: a/dev, b; name those to measure with --only"):
        check_present(sets, home)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sts = 1", "sts: Input should be"),
        ("[sts]\na = { file = 'a', rang = [0, 5] }", "sts.a.rang: Extra inputs"),
        ("[classification]\na = { file = 'a', range = [0, 5] }", "classification.a.range: Extra inputs"),
        ("[nli]", "nli: Extra inputs"),
        ("[", "sets.toml: "),
    ],
)
def test_a_list_that_cannot_be_followed_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "sets.toml").write_text(content)
    with pytest.raises(BadInput, match=message):
        Registry.read(tmp_path / "sets.toml")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", '{"_id": "d1"}\n', "corpus.jsonl:1: not an object with _id and text"),
        ("corpus.jsonl", '{"_id": "d1", "text": null}\n', "corpus.jsonl:1: not an object with _id and text"),
        ("corpus.jsonl", '{"_id": "a", "text": "b"}\n' * 2, "corpus.jsonl:2: the _id 'a' is taken already"),
        ("corpus.jsonl", '{"_id": "a", "text": "\\ud800"}\n', "corpus.jsonl:1: 'text' holds half of a surrogate pair"),
        ("corpus.jsonl", "[1]\n", "corpus.jsonl:1: not a JSON object"),
        ("corpus.jsonl", "[" * 100_000, "corpus.jsonl:1: not JSON"),
        ("queries.jsonl", "{\n", "queries.jsonl:1: not JSON"),
        ("qrels/test.tsv", "header\nq1\td1\n", r"test.tsv:2: not a query, a document and a grade"),
        ("qrels/test.tsv", "header\nq1\td1\tgood\n", r"test.tsv:2: not a query, a document and a grade"),
        ("qrels/test.tsv", "header\nq1\td1\tnan\n", r"test.tsv:2: not a query, a document and a grade.*a grade of nan"),
        ("qrels/test.tsv", "header\nq1\td9\t1\n", "test.tsv:2: judges document .d9., one of 1 that are not in"),
        ("qrels/test.tsv", "q1\td1\t1\n", "test.tsv:1: a judgement, where the columns are named"),
        ("qrels/test.tsv", "header\nq9\td1\t1\n", "test.tsv:2: judges query 'q9', which is not in"),
        ("qrels/test.tsv", "header\nq1\td1\t0\n", "no query has a relevant document"),
    ],
)  # fmt: skip
def test_a_broken_collection_is_named_with_its_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    write_sets(tmp_path)
    (tmp_path / "letters" / file).write_text(content)
    with pytest.raises(BadInput, match=message):
        RetrievalSet(folder="letters").read(tmp_path, "letters/test")


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    write_sets(tmp_path)
    corpus = tmp_path / "letters/corpus.jsonl.gz"
    whole = corpus.read_bytes()
    for damaged in (whole[:-12], whole[:10] + b"\xff" * 20 + whole[30:]):
        corpus.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"corpus\.jsonl\.gz: "):
            RetrievalSet(folder="letters").read(tmp_path, "letters/test")


def test_labels_are_0_and_1_and_both_of_them(tmp_path: Path) -> None:
    for scores in (["0", "0"], ["1", "0.5"]):
        rows = "".join(f"a\tb\t{score}\n" for score in scores)
        (tmp_path / "pairs.tsv").write_text(f"sentence1\tsentence2\tscore\n{rows}")
        with pytest.raises(BadInput, match="classification needs scores of 0 and 1, some of each"):
            one_set(tmp_path / "pairs.tsv", "classification")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match="No such file"):
        one_set(tmp_path / "pairs.tsv", "sts")
    with pytest.raises(BadInput, match="No such file"):
        one_set(tmp_path, "retrieval")


def test_every_listed_set_is_there_and_reads(data: Path) -> None:
    sets = Registry.read(REGISTRY).chosen([])
    check_present(sets, data)
    for name in ("stsb/dev", "sick/dev", "semrel_eng/dev", "rqe/test", "medline/test"):
        facts = sets[name].read(data, name).facts
        assert (facts.name, facts.items > 20) == (name, True)


def test_the_listed_sets_are_held_out_of_training() -> None:
    """Their sentences are never trained on, but for those whose remark says that they are."""
    import tomllib

    held_out = tomllib.loads((REGISTRY.parent / "data.toml").read_text())["held_out"]
    sets = Registry.read(REGISTRY)
    for name, listed in {**sets.sts, **sets.classification}.items():
        assert listed.file in held_out or "are in the training parts of" in (listed.remark or ""), name


def test_kinds_are_told_apart() -> None:
    sets = Registry.read(REGISTRY)
    assert {type(listed) for listed in sets.classification.values()} == {LabelledSet}
    assert len(sets.retrieval) == 13
    assert all(listed.guarded for listed in sets.retrieval.values())
    assert [name for name, listed in sets.classification.items() if listed.guarded] == [
        "qqp/test",
        "stackexchange_meta_dup/dev",
    ]
