"""What is Milvus's own: addresses, how rows are kept, and what is done when it does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="needs pymilvus: pip install '.[scale]'")

import grpc
from pymilvus import MilvusException

import index.milvus as milvus_module
import index.milvus_collections as milvus_collections
from index.documents import Document
from index.location import MilvusAddress, read_location
from index.manifest import AwayFault, GenerationManifest, IndexFault, RecipeFault
from index.milvus import MilvusIndex
from index.milvus_collections import live_at, scan
from index.milvus_rows import DIGEST, KEY, TEXT, VECTOR, key_of, kind_of, row_of
from index.milvus_server import ATTEMPTS, OPTIONS, SLOW_IN_A_ROW, Server
from index.places import build_at, copy_between, facts_at, verify_at
from index.sources import Rejects, SourcedDocument, SourceError
from tests.index.lettered import ENCODER, build_asked, build_letters, document, embed
from tests.index.milvus_words import WORDS, Refused, build, found, rebuild, upsert
from tests.standin import ACCESS, StandIn
from tests.waiting import until


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("milvus://", "is no address"),
        ("milvus:papers", "is no address"),
        ("milvus://host/", "is no address"),
        ("milvus://host/a/b", "is no address"),
        ("milvus://host/1a", "is no address"),
        ("milvus://host/a-b", "is no address"),
        ("milvus://host:port/a", "cannot be read"),
        ("milvus://me:secret@host/a", "names nobody"),
        ("milvus://host/a?token=secret", "names nobody"),
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated_where_it_is_secret(written: str, problem: str) -> None:
    with pytest.raises(IndexFault, match=problem) as refused:
        read_location(written)
    assert "secret" not in str(refused.value)


def test_what_an_address_says() -> None:
    assert read_location("milvus://[::1]:7/a_1") == MilvusAddress("::1", 7, "a_1")
    assert str(read_location("milvus://[::1]/a")) == "milvus://[::1]:19530/a"
    assert read_location("milvus/a") == Path("milvus/a")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (Document("x" * 70_000, "x"), "its id of 70,000 bytes"),
        (Document("x", "ü" * 35_000), "its text of 70,000 bytes"),
        (Document("x", "x", {"a": "y" * 70_000}), "its metadata of 70,008 bytes"),
        (Document("x", "x", {"a": "y" * 30_000}), "brings for filters of 80,0"),
        (Document("x", "x", {"a": list(range(5000))}), "5,003 paths and values"),
    ],
)
def test_what_milvus_cannot_keep_is_refused_before_anything_is_written(
    index: MilvusIndex, changed: Document, problem: str
) -> None:
    with pytest.raises(IndexFault, match=problem):
        index.upsert([document("d", "notes"), changed], embed(["notes", "x"]))
    assert found(index, "abcd") == WORDS


def test_a_row_is_found_by_a_digest_of_its_id() -> None:
    keys = {key_of(id_) for id_ in ("a", "b", "ab", "'", '"', "")}
    assert len(keys) == 6
    assert all(len(key) == 22 and set(key) <= set("-_") | set(map(chr, range(48, 123))) for key in keys)
    one, other = (row_of(Document("a", "b", {"c": value}), np.ones(2, np.float32)) for value in (1, True))
    assert (one[KEY], one[DIGEST] == other[DIGEST]) == (other[KEY], False)


def test_what_recipes_mean() -> None:
    graph = kind_of("HNSW32", 26, 1_000_000)
    assert (graph.index_type, graph.params["M"], graph.dial and graph.dial.name) == ("HNSW", 32, "ef")
    assert [effort["params"]["ef"] for effort in graph.efforts({"ef": 64}, 10)] == [64, 256, 1024, 4096]
    assert next(graph.efforts({"ef": 64}, 100))["params"] == {"ef": 100}  # what it is refused without
    lists = kind_of("IVF16,SQ8", 26, 1000)
    assert (lists.index_type, lists.params, lists.dial and lists.dial.most) == ("IVF_SQ8", {"nlist": 16}, 16)
    assert [effort["params"]["nprobe"] for effort in lists.efforts({"nprobe": 1}, 100)] == [1, 4, 16]
    assert kind_of("Flat", 26, 10).exact
    with pytest.raises(RecipeFault, match="Milvus has nothing like the recipe 'IVF16,PQ13x4fs'; it has Flat"):
        kind_of("IVF16,PQ13x4fs", 26, 1000)
    with pytest.raises(RecipeFault, match="is not a recipe that can be built"):
        kind_of("", 26, 1000)


def test_a_depth_beyond_what_milvus_brings(index: MilvusIndex) -> None:
    assert len(index.view().search(embed(["stone"])[0], 16_384).rows) == 3
    with pytest.raises(IndexFault, match="at most 16,384 candidates"):
        index.view().search(embed(["stone"])[0], 16_385)


def test_a_row_that_something_else_has_altered_is_found_out(index: MilvusIndex, server: Server) -> None:
    assert verify_at(index.address, ACCESS)[1] == 3
    (rows,) = scan(server, live_at(server).collection, ("*",))
    altered = dict(next(row for row in rows if row["id"] == "b")) | {TEXT: "violent"}
    altered[VECTOR] = np.array(altered[VECTOR], np.float32)
    server.call("altering", lambda client: client.upsert(live_at(server).collection, [altered], **OPTIONS))
    with pytest.raises(IndexFault, match=r"the document 'b' has been altered"):
        verify_at(index.address, ACCESS)


def test_an_alias_of_something_else_is_left_alone(milvus: StandIn, server: Server, tmp_path: Path) -> None:
    name = milvus.address()
    collection = live_at(server).collection
    server.call("naming", lambda client: client.create_alias(collection, name.name, **OPTIONS))
    for attempt in (lambda: MilvusIndex.open(name, ENCODER, ACCESS), lambda: build(name, WORDS, tmp_path)):
        with pytest.raises(IndexFault, match="which is no generation; choose another name"):
            attempt()
    assert live_at(server).collection == collection


def test_a_collection_without_its_manifest_is_refused(address: MilvusAddress, server: Server) -> None:
    collection = live_at(server).collection
    for value, problem in (("{}", "is no generation's manifest: documents: Field required"), ("?", "Invalid JSON")):
        milvus_collections.set_property(server, collection, "dse.manifest", value)
        with pytest.raises(IndexFault, match=problem):
            MilvusIndex.open(address, ENCODER, ACCESS)


def test_a_folder_that_is_outgrown_is_loaded_and_nothing_is_embedded(
    milvus: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_letters(tmp_path / "folder", WORDS, "SQ8")  # a recipe that Milvus has nothing like
    place = milvus.address()
    view = copy_between(folder, place, ACCESS, tmp_path / "work", lambda step: None)
    assert (len(view), view.manifest.recipe, view.manifest.encoder) == (3, "Flat", ENCODER)
    with MilvusIndex.open(place, ENCODER, ACCESS) as index:
        assert found(index, "abc") == WORDS
        (best,) = index.view().search(embed(["stone"])[0], 1).similarities
        assert best == 1.0
    with pytest.raises(IndexFault, match="not copied from Milvus to Milvus"):
        copy_between(place, milvus.address(), ACCESS, None, lambda step: None)


def test_what_an_index_must_find_goes_into_milvus_with_it_and_out_again(tmp_path: Path, milvus: StandIn) -> None:
    folder, place = build_asked(tmp_path / "folder", "IVF8,Flat"), milvus.address()
    inside = copy_between(folder, place, ACCESS, tmp_path / "work", lambda step: None).manifest
    outside = copy_between(place, tmp_path / "out", ACCESS, None, lambda step: None).manifest
    depth = GenerationManifest.read(folder / "generations/000001").depth
    for manifest, asked in ((inside, "queries"), (outside, "documents")):  # which Milvus does not keep
        assert manifest.proof is not None
        assert (manifest.proof.target, manifest.proof.k, manifest.proof.asked) == (0.9, 7, asked)
        assert manifest.depth == depth is not None


def test_what_milvus_cannot_keep_is_refused_or_passed_over_before_it_is_embedded(
    tmp_path: Path, milvus: StandIn
) -> None:
    place, embedded = milvus.address(), list[str]()
    documents = [SourcedDocument(Document(id_, text), id_, text) for id_, text in (*WORDS.items(), ("z", "z" * 65_536))]

    def counted(texts):
        embedded.extend(texts)
        return embed(texts)

    wanted = {"documents": documents, "encode": counted, "dims": 26, "encoder": ENCODER, "recipe": "Flat"}
    with pytest.raises(SourceError, match=r"^z: document 'z': its text of 65,536 bytes is larger"):
        build_at(place, ACCESS, tmp_path / "work", **wanted)
    rejects = tmp_path / "rejects"
    with Rejects(rejects) as passed_over:
        name, manifest = build_at(place, ACCESS, tmp_path / "work", rejects=passed_over, **wanted)
    assert (name, manifest.documents, sorted(set(embedded))) == ("000001", 3, sorted(WORDS.values()))
    assert "larger than the 65,535 that Milvus keeps" in rejects.read_text()


def test_an_index_says_how_many_documents_there_are_and_is_copied_out_though_it_has_none(
    index: MilvusIndex, tmp_path: Path
) -> None:
    upsert(index, {"n": "novel"})
    assert facts_at(index.address, ACCESS)[1].documents == len(WORDS) + 1
    index.delete([*WORDS, "n"])
    assert facts_at(index.address, ACCESS)[1].documents == 0
    copy = copy_between(index.address, tmp_path / "copy", ACCESS, None, lambda step: None)
    assert (len(copy), copy.manifest.recipe) == (0, "Flat")


def failing(times: int, error: Exception) -> tuple[list[int], object]:
    """An operation that fails so many times before it answers, and how often it was tried."""
    tried: list[int] = []

    def operation(client: object) -> str:
        tried.append(1)
        if len(tried) <= times:
            raise error
        return "answer"

    return tried, operation


def test_what_is_safe_is_repeated_a_few_times_and_what_is_not_is_not(server: Server) -> None:
    gone = Refused(grpc.StatusCode.UNAVAILABLE)
    tried, operation = failing(ATTEMPTS - 1, gone)
    assert (server.call("asking", operation), len(tried)) == ("answer", ATTEMPTS)
    for times, repeat, expected in ((ATTEMPTS, True, ATTEMPTS), (1, False, 1)):
        tried, operation = failing(times, gone)
        with pytest.raises(AwayFault, match="cannot be reached; it is tried again by itself"):
            server.call("asking", operation, repeat=repeat)
        assert len(tried) == expected
    tried, operation = failing(1, MilvusException(1, "no such thing\nand a long tale"))
    with pytest.raises(IndexFault, match=r"asking was refused: no such thing$") as refused:
        server.call("asking", operation)
    assert (len(tried), isinstance(refused.value, AwayFault)) == (1, False)


def test_a_breaker_opens_after_slow_calls_and_closes_when_it_is_looked_after(index: MilvusIndex) -> None:
    server, slow = index._server, Refused(grpc.StatusCode.DEADLINE_EXCEEDED)
    for number in range(SLOW_IN_A_ROW - 1):
        with pytest.raises(AwayFault, match=f"took longer than {ACCESS.timeout}"):
            server.call("asking", failing(1, slow)[1])
        assert (number, server.away) == (number, None)
    server.call("asking", failing(0, slow)[1])  # an answer between them
    for number in range(1, SLOW_IN_A_ROW + 1):
        with pytest.raises(AwayFault, match="took longer than" if number < SLOW_IN_A_ROW else "takes longer than"):
            server.call("asking", failing(1, slow)[1])
    until(lambda: index.away is None)  # opened just now; the watcher finds that the server is there
    assert found(index, "abc") == WORDS


def test_who_is_not_let_in_is_told_which_setting_it_is(server: Server) -> None:
    with pytest.raises(IndexFault, match=r"lets nobody in with this token .*DSE_MILVUS_TOKEN"):
        server.call("asking", failing(1, Refused(grpc.StatusCode.UNAUTHENTICATED))[1])


def test_a_generation_that_could_not_be_loaded_at_first_is_taken_up_later(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load, failed = milvus_module.load, list[str]()

    def fails_at_first(server: Server, collection: str) -> None:
        if len(failed) < 2:
            failed.append(collection)
            raise IndexFault("no memory for it")
        load(server, collection)

    monkeypatch.setattr(milvus_module, "load", fails_at_first)
    build(index.address, WORDS | {"d": "notes"}, tmp_path)
    until(lambda: index.view().name == "000002")
    assert found(index, "abcd") == WORDS | {"d": "notes"}
    assert caplog.text.count("no memory for it") == 1


@contextmanager
def outage(index: MilvusIndex, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server does not answer who looks after it; at the end it has been found again."""

    def gone(**options: object) -> str:
        raise Refused(grpc.StatusCode.UNAVAILABLE)

    with monkeypatch.context() as patch:
        patch.setattr(index._server._client, "get_server_version", gone)
        until(lambda: index.away is not None)
        yield
    until(lambda: index.away is None)


def test_after_an_outage_it_serves_what_is_live_by_then(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was served before is gone: only the generation before the live one is kept."""
    with outage(index, monkeypatch):
        for texts in (WORDS, WORDS | {"d": "notes"}):
            build(index.address, texts, tmp_path)
        with pytest.raises(AwayFault):
            index.view().get("a")
    assert index.view().name == "000003"
    assert found(index, "abcd") == WORDS | {"d": "notes"}


def test_after_an_outage_it_is_not_away_because_another_encoders_generations_are_live(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with outage(index, monkeypatch):
        for _ in range(2):
            rebuild(index.address, tmp_path)
    assert index.stays_because is not None
    assert "was built with encoder other" in index.stays_because
