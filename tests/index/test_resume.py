import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from index import build as job
from index.documents import Document
from index.finish import SearchWanted
from index.generations import Generation, current_name, new_generation
from index.manifest import EncoderIdentity, IndexFault
from index.needs import FEWER, Needs
from index.recall import Aim
from index.shards import digests_of
from index.sources import Inputs, Rejects, SourcedDocument, SourceError
from tests.index.crash_build import ALPHABET, ENCODER, Letters, live_files, small_shards
from tests.waiting import until

WORDS = ["stone", "notes", "onset", "google", "cabana", "tinsel", "enlist", "abba", "lemon", "melon", "apple"]


class Stopped(Exception):
    """As a kill would, in the middle of a build."""


class StopsAt(Letters):
    """Embeds until it meets a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if self._text in texts:
            raise Stopped
        return super().__call__(texts)


class Heard(job.Watcher):
    def __init__(self) -> None:
        self.needed: list[Needs] = []
        self.seen: list[tuple[int, int, int | None]] = []

    def needs(self, needs: Needs) -> None:
        self.needed.append(needs)

    def embedded(self, documents: int, resumed: int, expected: int | None) -> None:
        self.seen.append((documents, resumed, expected))


def documents(texts: Sequence[str], first: int = 0) -> Iterator[SourcedDocument]:
    for row, text in enumerate(texts, first):
        yield SourcedDocument(Document(f"id-{row}", text, {"row": row}), f"input:{row + 1}")


def build(folder: Path, texts: Sequence[str] = WORDS, encode: Letters | None = None, **options) -> list[str]:
    """Builds; which texts were embedded, beside the one that is timed?"""
    encode = encode or Letters()
    options = {"encoder": ENCODER, "recipe": "Flat"} | options
    with small_shards():
        job.build(documents(texts), encode, len(ALPHABET), folder=folder, **options)
    return encode.texts[1:]


def interrupt(folder: Path, at: str = "lemon") -> None:
    with pytest.raises(Stopped):
        build(folder, encode=StopsAt(at))


def test_what_is_embedded_is_not_embedded_again(tmp_path: Path) -> None:
    build(tmp_path / "whole")
    interrupt(tmp_path / "index")
    heard = Heard()
    assert build(tmp_path / "index", watcher=heard) == WORDS[8:]
    assert live_files(tmp_path / "index") == live_files(tmp_path / "whole")
    assert heard.seen == [(4, 4, None), (8, 8, None), (10, 8, None), (11, 8, None)]
    manifest = Generation.open(tmp_path / "index").manifest
    assert manifest.measured["resumed"] == 8
    assert not list(tmp_path.rglob("*.partial"))


def test_a_build_that_is_done_with_embedding_takes_another_recipe(tmp_path: Path) -> None:
    with pytest.raises(IndexFault, match="cannot build 'IVF64,SQ8' over 11 rows"):  # which shows when all are embedded
        build(tmp_path, recipe="IVF64,SQ8")
    assert build(tmp_path, recipe="SQ8") == []
    assert Generation.open(tmp_path).manifest.recipe == "SQ8"


def test_a_search_that_is_not_proven_costs_no_embedding(tmp_path: Path) -> None:
    two = Letters()(["stone", "notes"])
    wanted = SearchWanted(aim=Aim(0.95, queries=two))
    with pytest.raises(IndexFault, match="nothing is published"):
        build(tmp_path, recipe="SQ8", search=wanted)
    assert not (tmp_path / "CURRENT").exists()
    assert build(tmp_path, recipe="Flat", search=wanted) == []
    build(tmp_path / "whole", recipe="Flat", search=wanted)
    assert live_files(tmp_path) == live_files(tmp_path / "whole")
    assert Generation.open(tmp_path).manifest.proof == Generation.open(tmp_path / "whole").manifest.proof


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([*WORDS[:5], "changed", *WORDS[6:]], r"input:6 \(document 6\) is not what it was"),
        ([*WORDS[:3], *WORDS[4:]], r"input:4 \(document 4\) is not what it was"),
        (WORDS[:6], "the input ends after document 6"),
        (WORDS[:4], "the input ends after document 4"),
    ],
)
def test_another_input_is_noticed(tmp_path: Path, texts: list[str], message: str) -> None:
    interrupt(tmp_path)
    with pytest.raises(IndexFault, match=rf"{message}; the unfinished build in .* began with another input.*--fresh"):
        build(tmp_path, texts)
    assert build(tmp_path) == WORDS[8:]  # refusing has cost nothing


def test_a_changed_id_is_noticed_and_metadata_may_change(tmp_path: Path) -> None:
    interrupt(tmp_path)
    with small_shards(), pytest.raises(IndexFault, match="document 1"):
        job.build(documents(WORDS, 1), Letters(), 26, ENCODER, tmp_path)
    changed = (SourcedDocument(Document(s.document.id, s.document.text, {}), s.place) for s in documents(WORDS))
    with small_shards():
        job.build(changed, Letters(), 26, ENCODER, tmp_path)
    assert Generation.open(tmp_path).documents(np.array([0, 10]))[1].metadata == {}


def test_a_letter_that_moves_from_the_id_to_the_text_is_noticed() -> None:
    here, there = digests_of([Document("ab", "c"), Document("a", "bc")])
    assert here.tolist() != there.tolist()


def test_what_comes_after_the_last_shard_may_have_been_mended(tmp_path: Path) -> None:
    lines = [json.dumps({"text": word}) for word in WORDS]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join([*lines[:9], '{"text', *lines[10:]]))
    with small_shards(), pytest.raises(SourceError, match=r"in\.jsonl:10: not JSON"):
        job.build(Inputs([path]), Letters(), 26, ENCODER, tmp_path / "index")
    path.write_text("\n".join(lines))
    encode = Letters()
    with small_shards():
        job.build(Inputs([path]), encode, 26, ENCODER, tmp_path / "index")
    assert encode.texts[1:] == WORDS[8:]


def test_another_encoder_is_refused_with_both_names(tmp_path: Path) -> None:
    interrupt(tmp_path)
    with pytest.raises(IndexFault, match=r"with encoder letters \(d+\).* this one is with other \(e+\).*--fresh"):
        build(tmp_path, encoder=EncoderIdentity(name="other", digest="e" * 64))
    assert build(tmp_path) == WORDS[8:]


def test_fresh_begins_again(tmp_path: Path) -> None:
    interrupt(tmp_path)
    assert build(tmp_path, WORDS[::-1], resume=False) == WORDS[::-1]


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content[:-1] + b"\1", lambda _: b""])
def test_a_damaged_shard_is_embedded_again_and_no_other(tmp_path: Path, damage) -> None:
    build(tmp_path / "whole")
    interrupt(tmp_path / "index")
    shard = tmp_path / "index/generations/build.partial/000000.safetensors"
    shard.write_bytes(damage(shard.read_bytes()))
    assert build(tmp_path / "index") == [*WORDS[:4], *WORDS[8:]]
    assert live_files(tmp_path / "index") == live_files(tmp_path / "whole")


def test_what_a_build_left_when_it_died_after_publishing_is_not_taken_up(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("index.shards.shutil.rmtree", lambda *_, **__: None)
        build(tmp_path)
    assert (tmp_path / "generations/build.partial/job.json").exists()
    build(tmp_path, ["other", "words"])
    assert len(Generation.open(tmp_path)) == 2


def test_two_builds_at_once_are_refused(tmp_path: Path) -> None:
    class Second(Letters):
        def __call__(self, texts: Sequence[str]) -> np.ndarray:
            with pytest.raises(IndexFault, match=r"another build into .* is under way; wait for it to end"):
                build(tmp_path)
            return super().__call__(texts)

    build(tmp_path, encode=Second())
    assert len(Generation.open(tmp_path)) == len(WORDS)


def test_other_writers_may_publish_during_a_build_and_leave_it_alone(tmp_path: Path) -> None:
    build(tmp_path, ["old", "words"])
    interrupt(tmp_path)
    before = tmp_path / "generations/000001"
    with new_generation(tmp_path) as home:
        for path in before.iterdir():
            (home / path.name).write_bytes(path.read_bytes())
    assert current_name(tmp_path) == "000002"
    assert build(tmp_path) == WORDS[8:]
    assert current_name(tmp_path) == "000003"


def test_publishing_waits_for_another_writer_to_end(tmp_path: Path) -> None:
    build(tmp_path, ["old", "words"])
    entered, waiting, leave = threading.Event(), threading.Event(), threading.Event()

    def compact() -> None:
        with new_generation(tmp_path) as home:
            entered.set()
            assert leave.wait(60)
            for path in (tmp_path / "generations/000001").iterdir():
                (home / path.name).write_bytes(path.read_bytes())

    other = threading.Thread(target=compact)
    other.start()
    assert entered.wait(60)
    encode = Letters()

    def building() -> None:
        build(tmp_path, encode=encode)
        waiting.set()

    builder = threading.Thread(target=building)
    builder.start()
    until(lambda: encode.texts[1:] == WORDS)
    assert not waiting.wait(0.3)  # all is embedded, and it goes no further
    leave.set()
    builder.join()
    other.join()
    assert waiting.is_set()
    assert current_name(tmp_path) == "000003"
    assert len(Generation.open(tmp_path)) == len(WORDS)


def test_it_says_first_what_it_needs_and_refuses_what_the_disk_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    build(tmp_path / "index", watcher=heard, share_read=lambda: 0.25)
    (needed,) = heard.needed
    assert (needed.documents, needed.known) == (16, True)
    vectors = 16 * 26 * 4
    assert 3 * vectors < needed.disk < 3 * vectors + 16 * 200
    assert needed.memory > 2 * vectors
    assert needed.seconds is not None

    monkeypatch.setattr("index.build.shutil.disk_usage", lambda _: type("Usage", (), {"free": 77}))
    with pytest.raises(IndexFault, match=r"about 400,000 documents need about [\d,]+ bytes of disk, \d[\d,]+ are free"):
        build(tmp_path / "second", share_read=lambda: 1e-5)
    assert not (tmp_path / "second").exists()


def test_a_guess_refuses_only_what_an_eighth_of_it_would_not_fit_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first documents of a file may be its shortest."""
    heard = Heard()
    build(tmp_path / "index", watcher=heard, share_read=lambda: 1e-4)
    least = heard.needed[0].disk // FEWER
    for free, refused in ((least, False), (least - 100_000, True)):
        monkeypatch.setattr("index.build.shutil.disk_usage", lambda _, free=free: type("Usage", (), {"free": free}))
        with pytest.raises(IndexFault, match="are free") if refused else nullcontext():
            build(tmp_path / f"disk {refused}", share_read=lambda: 1e-4)


@pytest.mark.parametrize(("memory", "refused"), [(250_000, False), (100_000, True)])
def test_nor_does_a_guess_refuse_for_memory(tmp_path: Path, memory: int, refused: bool) -> None:
    """4,000 documents need 600,000 bytes, 500 of them 212,000."""
    with pytest.raises(IndexFault, match="--memory") if refused else nullcontext():
        build(tmp_path / "index", share_read=lambda: 0.001, search=SearchWanted(memory=memory))
    assert (tmp_path / "index").exists() is not refused


@pytest.mark.parametrize("size", [0, 40, 2000])
def test_the_disk_it_says_is_enough_and_not_far_too_much(tmp_path: Path, size: int) -> None:
    heard = Heard()
    texts = [f"listen {n}" + "x" * size for n in range(2000)]
    each = [
        Document(f"{n:06}", text, {f"{n % 7}{m}": "y" * size + f"{n}" for m in range(3)})
        for n, text in enumerate(texts)
    ]
    sourced = [SourcedDocument(document, document.id) for document in each]
    options = {"encoder": ENCODER, "recipe": "Flat", "watcher": heard, "share_read": lambda: 1.0}
    job.build(sourced, Letters(), len(ALPHABET), folder=tmp_path / "index", **options)  # type: ignore[arg-type]
    written = sum(path.stat().st_size for path in (tmp_path / "index").rglob("*") if path.is_file())
    (needed,) = heard.needed
    assert written <= needed.disk <= 3 * written


def test_an_input_of_no_known_size_is_told_by_the_million(tmp_path: Path) -> None:
    heard = Heard()
    build(tmp_path, watcher=heard)
    assert (heard.needed[0].documents, heard.needed[0].known) == (1_000_000, False)


def test_what_memory_cannot_hold_is_refused_before_it_is_embedded(tmp_path: Path) -> None:
    encode, wanted = Letters(), SearchWanted(memory=10)
    for recipe in (None, "Flat"):
        with pytest.raises(IndexFault, match="--memory"):
            build(tmp_path / "index", encode=encode, recipe=recipe, search=wanted, share_read=lambda: 0.5)
    assert len(encode.texts) == 2  # the sample of each
    assert not (tmp_path / "index").exists()


def test_a_second_document_with_an_id_is_passed_over_where_lines_are(tmp_path: Path) -> None:
    lines = ['{"id": "a", "text": "one"}', '{"id": "b", "text": "two"}', '{"id": "a", "text": "late"}', '{"te']
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, '{"id": "c", "text": "three"}']))
    with Rejects(tmp_path / "rejects.jsonl") as rejects, small_shards():
        inputs = Inputs([tmp_path / "in.jsonl"], rejects=rejects)
        job.build(inputs, Letters(), 26, ENCODER, tmp_path / "index", rejects=rejects)
        written = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [document.text for document in Generation.open(tmp_path / "index").documents(np.arange(3))] == [
        "one", "two", "three"
    ]  # fmt: skip
    assert [(line["place"][-2:], line["line"]) for line in written] == [(":3", lines[2]), (":4", lines[3])]
    assert written[0]["reason"] == f"id 'a' is already that of {tmp_path / 'in.jsonl'}:1"


def test_a_batchwise_encoder_that_reads_ahead_gives_the_same(tmp_path: Path) -> None:
    encode = Letters()

    def ahead(batches) -> Iterator[np.ndarray]:
        return map(encode, list(batches))

    build(tmp_path / "one")
    build(tmp_path / "other", encode=encode, encode_batches=ahead)
    assert live_files(tmp_path / "one") == live_files(tmp_path / "other")
