"""How generations change places in Milvus: writers wait, none that was acknowledged is lost, one wins."""

import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="needs pymilvus: pip install '.[scale]'")

import grpc
from pymilvus import MilvusClient, MilvusException

import index.milvus as milvus_module
import index.milvus_build as milvus_build
import index.milvus_collections as milvus_collections
import index.milvus_publish as milvus_publish
import index.milvus_switch as milvus_switch
from index.location import MilvusAddress
from index.manifest import AwayFault, BusyFault, GenerationManifest
from index.milvus import MilvusIndex
from index.milvus_collections import collection_at
from index.milvus_server import LONG_SECONDS, OPTIONS, Server
from tests.index.lettered import ENCODER, embed
from tests.index.milvus_words import OTHER, WORDS, Refused, build, found, rebuild, upsert
from tests.standin import ACCESS


def test_the_generation_before_is_kept_and_older_ones_are_not(
    address: MilvusAddress, server: Server, tmp_path: Path
) -> None:
    kept = []
    for _ in range(3):
        kept.append(collection_at(server))
        build(address, WORDS, tmp_path)
    listed = set(server.call("listing", lambda client: client.list_collections(**OPTIONS)))
    assert collection_at(server) in listed
    assert kept[2] in listed
    assert not {kept[0], kept[1]} & listed
    assert not list(tmp_path.glob("work*"))


def test_a_second_build_that_is_refused_takes_nothing_from_the_first(
    address: MilvusAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = milvus_build.publish_folder

    def with_a_second(server: Server, home: Path, *arguments) -> GenerationManifest:
        staged = sorted(home.iterdir())
        with pytest.raises(BusyFault, match=r"another build into .* is under way"):
            build(address, WORDS, tmp_path)
        assert sorted(home.iterdir()) == staged != []
        return publish(server, home, *arguments)

    monkeypatch.setattr(milvus_build, "publish_folder", with_a_second)
    build(address, WORDS | {"d": "notes"}, tmp_path)
    with MilvusIndex.open(address, ENCODER, ACCESS) as index:
        assert found(index, "abcd") == WORDS | {"d": "notes"}
    assert not list(tmp_path.glob("work*"))


def test_writers_wait_while_the_last_changes_are_taken_in(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_publish, "ROUNDS", 0)
    said: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        if not said:
            assert upsert(index, {"a": "tinsel", "d": "notes"}) == ["updated", "created"]
            assert index.delete(["b"]) == 1
            said.append("written")
        elif len(said) == 1:  # the last changes are being taken in
            with pytest.raises(BusyFault, match="another generation takes the place"):
                upsert(index, {"e": "late"})
            said.append("refused")
        return embed(texts)

    rebuild(index.address, tmp_path, encode)
    assert said == ["written", "refused"]
    with MilvusIndex.open(index.address, OTHER, ACCESS, writable=True) as after:
        assert found(after, "abcde") == {"a": "tinsel", "c": "stone", "d": "notes"}
        assert upsert(after, {"e": "late"}) == ["created"]


def test_a_write_that_is_overtaken_is_not_acknowledged(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = milvus_module.put

    def overtaken(*arguments) -> None:
        monkeypatch.setattr(milvus_module, "put", put)
        rebuild(index.address, tmp_path)
        put(*arguments)

    monkeypatch.setattr(milvus_module, "put", overtaken)
    with pytest.raises(BusyFault, match="was published anew while it was written; do it again"):
        upsert(index, {"d": "notes"})


def test_a_rebuild_that_fails_lets_writers_go_on(
    index: MilvusIndex, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_publish, "ROUNDS", 0)
    calls = 0

    def encode(texts: list[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 1:
            upsert(index, {"d": "notes"})
            return embed(texts)
        raise ArithmeticError("not finite")

    before = collection_at(server)
    with pytest.raises(ArithmeticError):
        rebuild(index.address, tmp_path, encode)
    assert calls == 2
    assert upsert(index, {"e": "google"}) == ["created"]
    assert found(index, "abcde") == WORDS | {"d": "notes", "e": "google"}
    listed = server.call("listing", lambda client: client.list_collections(**OPTIONS))
    assert [name for name in listed if name.startswith(f"{index.address.name}_")] == [before]


def test_of_two_rebuilds_at_once_one_is_refused_and_neither_loses_a_write(
    index: MilvusIndex, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_publish, "ROUNDS", 0)
    said: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        if not said:
            upsert(index, {"d": "notes"})
        elif len(said) == 1:  # the last changes are being taken in
            with pytest.raises(BusyFault, match="another generation takes the place"):
                rebuild(index.address, tmp_path / "other")
            with pytest.raises(BusyFault, match="another generation takes the place"):  # it still does
                upsert(index, {"e": "late"})
        said.append("embedded")
        return embed(texts)

    rebuild(index.address, tmp_path, encode)
    assert len(said) == 2
    with MilvusIndex.open(index.address, OTHER, ACCESS, writable=True) as after:
        assert found(after, "abcde") == WORDS | {"d": "notes"}
        assert upsert(after, {"e": "late"}) == ["created"]
    listed = server.call("listing", lambda client: client.list_collections(**OPTIONS))
    assert len([name for name in listed if name.startswith(f"{index.address.name}_")]) == 2


@pytest.mark.parametrize("moment", ["before the seal", "under the seal"])
def test_a_rebuild_does_not_replace_what_another_one_published_meanwhile(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    sealed = milvus_switch._sealed
    monkeypatch.setattr(milvus_publish, "_drop_others", lambda *arguments: None)  # who overtakes has not come so far

    def overtaken(*arguments) -> float:
        monkeypatch.setattr(milvus_switch, "_sealed", sealed)
        if moment == "before the seal":
            rebuild(index.address, tmp_path / "other")
            return sealed(*arguments)
        until = sealed(*arguments)
        build(index.address, WORDS | {"d": "notes"}, tmp_path / "other")  # which waits for nobody
        return until

    monkeypatch.setattr(milvus_switch, "_sealed", overtaken)
    with pytest.raises(BusyFault, match="was published anew meanwhile"):
        rebuild(index.address, tmp_path)
    with MilvusIndex.open(index.address, None, ACCESS) as after:
        assert after.view().manifest.encoder == (OTHER if moment == "before the seal" else ENCODER)
        assert found(after, "abcd") == WORDS | ({} if moment == "before the seal" else {"d": "notes"})


class SlowSwitch:
    """A Milvus that switches an alias so many seconds after it was asked to, and a clock that waiting for it moves.

    Whoever gives up before is told that the time is over, and the switch is still to come. Just before it comes,
    somebody tries to write.
    """

    monotonic = staticmethod(time.monotonic)

    def __init__(self, writer: MilvusIndex, seconds: float) -> None:
        self.acknowledged = self.came = False
        self._writer, self._seconds, self._alter = writer, seconds, MilvusClient.alter_alias
        self._now = time.time()
        self._asked: list[tuple[MilvusClient, str, str]] = []

    def time(self) -> float:
        return self._now

    def alter_alias(self, client: MilvusClient, collection: str, alias: str, timeout=LONG_SECONDS, **options) -> None:
        self._asked.append((client, collection, alias))
        self.wait(timeout)
        if not self.came:
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED)

    def wait(self, seconds: float) -> None:
        waited = min(seconds, self._seconds)
        self._now += waited
        self._seconds -= waited
        if not self._seconds and not self.came:
            self.came = True
            with suppress(BusyFault):
                self.acknowledged = upsert(self._writer, {"d": "notes"}) == ["created"]
            with suppress(MilvusException):  # what it was to name is gone
                self._alter(*self._asked[0], **OPTIONS)


@pytest.mark.parametrize(("seconds", "published"), [(1, True), (40, True), (70, True), (700, False)])
def test_a_slow_switch_of_the_alias_loses_no_write(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, published: bool
) -> None:
    slow = SlowSwitch(index, seconds)
    monkeypatch.setattr(
        MilvusClient, "alter_alias", lambda *arguments, **options: slow.alter_alias(*arguments, **options)
    )
    monkeypatch.setattr(milvus_switch, "time", slow)
    monkeypatch.setattr(milvus_collections, "time", slow)
    if published:
        rebuild(index.address, tmp_path)
    else:
        with pytest.raises(AwayFault, match="has not switched the alias in time"):
            rebuild(index.address, tmp_path)
        slow.wait(seconds)
    assert (slow.came, slow.acknowledged) == (True, not published)
    with MilvusIndex.open(index.address, None, ACCESS, writable=True) as after:
        assert after.view().manifest.encoder == (OTHER if published else ENCODER)
        assert found(after, "abcd") == WORDS | ({"d": "notes"} if slow.acknowledged else {})
        assert upsert(after, {"e": "google"}) == ["created"]


def test_a_switch_whose_answer_is_lost_is_a_switch(
    index: MilvusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter, asked = MilvusClient.alter_alias, list[str]()

    def unanswered(client: MilvusClient, collection: str, alias: str, **options) -> None:
        asked.append(collection)
        alter(client, collection, alias, **options)
        raise Refused(grpc.StatusCode.UNAVAILABLE)

    monkeypatch.setattr(MilvusClient, "alter_alias", unanswered)
    rebuild(index.address, tmp_path)
    with MilvusIndex.open(index.address, OTHER, ACCESS) as after:
        assert found(after, "abc") == WORDS
    assert len(asked) == 1
