"""dse benchmark http, overload, soak and claim: what is asked, what is counted, and who is compared."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.loading import open_index
from model.bundle import Student, load_teacher
from scripts.benchmarks import claim, load
from scripts.benchmarks.client import (
    Answered,
    Exchange,
    Latency,
    closed_loop,
    length_of,
    open_loop,
    place_of,
    request_of,
)
from scripts.benchmarks.encode import Spread
from scripts.benchmarks.nobody import Nobody
from scripts.benchmarks.service import started
from scripts.benchmarks.workloads import KINDS, REQUESTS, workloads
from scripts.console import BadInput
from scripts.dse import app
from tests.conftest import WORDS


class Shop(asyncio.Protocol):
    """Serves one at a time, each for so long; refuses who would be more than the room holds."""

    seconds, room = 0.005, 4
    inside, memory, memory_step = 0, 1000.0, 0.0
    served = 0
    busy: asyncio.Lock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /metrics "):
            said = f"process_cpu_seconds_total {self.served / 1000}\nprocess_resident_memory_bytes {Shop.memory:.1e}\n"
            Shop.memory += Shop.memory_step
            self._answer(200, said)
        elif data.startswith(b"POST /break"):
            self._transport.close()
        elif Shop.inside >= Shop.room:
            self._answer(429, "{}")
        else:
            Shop.inside += 1
            self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        async with Shop.busy:
            await asyncio.sleep(Shop.seconds)
        Shop.inside -= 1
        Shop.served += 1
        self._answer(200, "{}")

    def _answer(self, status: int, body: str) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode())
        self._transport.write(body.encode())


@contextmanager
def listening(protocol: type[asyncio.Protocol]) -> Iterator[str]:
    """The address of a server in a thread of its own."""
    loop = asyncio.new_event_loop()

    async def listen() -> asyncio.Server:
        Shop.busy = asyncio.Lock()
        return await loop.create_server(protocol, "127.0.0.1", 0)

    server = loop.run_until_complete(listen())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(asyncio.sleep(0.1))  # clients have hung up; their connections close here too
    loop.close()


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in {"seconds": 0.005, "room": 4, "inside": 0, "memory": 1000.0, "memory_step": 0.0}.items():
        monkeypatch.setattr(Shop, name, value)
    monkeypatch.setattr(Shop, "served", 0)
    with listening(Shop) as address:
        yield address


REQUEST = request_of("/x", b"{}")


@given(body=st.binary(max_size=50), more=st.binary(max_size=20), cut=st.integers(0, 200))
def test_a_message_ends_where_its_head_says(body: bytes, more: bytes, cut: int) -> None:
    whole = request_of("/x", body)
    assert length_of(whole + more) == len(whole)
    part = whole[:cut]
    assert length_of(part) == (len(whole) if b"\r\n\r\n" in part else None)
    assert length_of(b"HTTP/1.1 204 X\r\n\r\n") == 18


def test_an_answer_of_undeclared_length_is_no_answer() -> None:
    async def scenario() -> None:
        exchange = Exchange()

        class Silent(asyncio.Transport):
            def write(self, data: Any) -> None:
                exchange.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

            def is_closing(self) -> bool:
                return False

        exchange.connection_made(Silent())
        with pytest.raises(ConnectionError, match="length is not declared"):
            await exchange.ask(REQUEST)

    asyncio.run(scenario())


def test_patient_clients_ask_again_when_they_were_answered(shop: str) -> None:
    answered = asyncio.run(closed_loop(shop, [REQUEST], 3, 0.2))
    assert {each.status for each in answered} == {200}
    assert len(answered) == Shop.served
    assert all(each.seconds >= Shop.seconds for each in answered)
    broken = asyncio.run(closed_loop(shop, [REQUEST, request_of("/break", b"{}")], 1, 0.2))
    assert [each.status for each in broken[:4]] == [200, 0, 200, 0]


def test_what_waits_for_its_turn_has_waited(shop: str) -> None:
    Shop.seconds, Shop.room = 0.05, 1000
    answered = asyncio.run(open_loop(shop, [REQUEST], 60.0, 0.5))
    dues = sorted(each.due for each in answered)
    assert len(answered) == 30
    assert dues[-1] - dues[0] == pytest.approx((len(dues) - 1) / 60)
    last = max(answered, key=lambda each: each.due)
    assert last.seconds >= 0.05 * len(answered) - 0.55  # it waited for all before it


def test_a_connection_that_was_closed_meanwhile_is_no_failure(shop: str) -> None:
    breaks = [request_of("/break", b"{}"), REQUEST]
    answered = asyncio.run(open_loop(shop, breaks, 20.0, 0.5))
    assert sorted(each.status for each in answered) == 5 * [0] + 5 * [200]


def test_overload_is_told_apart_from_failure(shop: str) -> None:
    Shop.room = 33
    found = load.overload(shop, "any", [REQUEST], 8.0, 1.0, lambda words: None)
    assert set(found.statuses) == {"200", "429"}
    assert found.asked == sum(found.statuses.values())
    assert 0 < found.refused < 1
    assert found.capacity > 0
    assert found.admitted_most is not None
    assert found.admitted_most >= found.calm
    assert found.memory_before == found.memory_most == found.memory_after == 1000.0
    assert found.recovered is not None
    assert found.report()["refused"] == round(found.statuses["429"] / found.asked, 4)


def test_a_service_that_refuses_everybody_has_no_capacity(shop: str) -> None:
    Shop.room = 0
    with pytest.raises(BadInput, match="answers no request of the kind any"):
        load.overload(shop, "any", [REQUEST], 2.0, 0.2, lambda words: None)


def test_no_more_is_answered_a_second_than_can_be_answered(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked in time and answered after it is no part of that time."""
    monkeypatch.setattr(Shop, "seconds", 0.02)
    monkeypatch.setattr(Shop, "room", 40)  # which take four times as long as they are asked for
    found = load.overload(shop, "any", [REQUEST], 4.0, 0.2, lambda words: None)
    assert max(found.capacity, found.answered_per_second) <= 1.1 / Shop.seconds


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8000", "localhost:8000", "https://127.0.0.1:8000", "http://127.0.0.1", "http://h:abc", "http://h:1/x"],
)
def test_an_address_that_would_be_misread_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="give the address of a running service, http://HOST:PORT"):
        place_of(address)
    assert place_of("http://[::1]:8000/") == ("::1", 8000)


def test_what_does_not_recover_is_said(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SECONDS_TO_RECOVER", 0.3)
    now = load.time.perf_counter()
    Shop.room = 0
    assert asyncio.run(load._recovery(shop, 100 * [REQUEST], 1.0, now)) is None
    Shop.room = 1
    assert asyncio.run(load._recovery(shop, 100 * [REQUEST], 0.001, now + 0.5)) is None  # answered, but slowly
    assert asyncio.run(load._recovery(shop, 100 * [REQUEST], 60.0, now + 60)) == 0.0


def test_growing_memory_shows(shop: str) -> None:
    Shop.memory_step = 100.0
    found = load.soak(shop, {"a": [REQUEST], "b": [REQUEST]}, 2, 0.02, lambda words: None)
    assert found.statuses == {"200": found.asked}
    assert found.growth is not None
    assert found.growth > 0
    assert found.memory_most == Shop.memory - Shop.memory_step  # what was said last
    assert found.samples == [1000.0 * tens for tens in range(1, len(found.samples) + 1)]
    assert load.Soak(1, 1, 1, {}, None, 200.0, 210.0, 210.0, []).report()["growth"] == 0.05


def test_a_service_that_says_nothing_of_itself_is_measured_all_the_same() -> None:
    with listening(Nobody) as address:
        assert asyncio.run(load.usage(address)) == load.Usage(None, None)
        turn = load.Served("nobody", address, {"any": [REQUEST]}).turn("any", 2, 0.1)
    assert turn.server_cpu is None
    assert turn.per_second > 0


class Scripted:
    """Answers so many requests in each turn of a second, and computes 10 ms for each."""

    def __init__(self, name: str, answers: Sequence[int], cpu: float, seen: list[str]) -> None:
        self.name, self._answers, self._cpu, self._seen = name, iter([0, *answers]), cpu, seen

    def turn(self, kind: str, clients: int, seconds: float) -> load.Turn:
        self._seen.append(self.name)
        count = next(self._answers)
        good = [Answered(0.0, 0.01 * (place + 1), 200) for place in range(count)]
        return load.Turn([*good, Answered(0.0, 9.0, 503)], 1.0, self._cpu * count, 0.25)


def test_targets_take_turns_and_ratios_are_taken_round_by_round() -> None:
    seen: list[str] = []
    targets = [Scripted("a", [4, 4, 6, 6], 0.01, seen), Scripted("b", [2, 2, 6, 6], 0.03, seen)]
    first, second = load.measure(targets, ["pair"], [3], 2, 1.0, lambda words: None)
    assert seen == ["a", "b"] + 2 * ["a", "b", "b", "a"]
    assert (first.per_second, second.per_second, first.clients, first.kind) == (5.0, 4.0, 3, "pair")
    assert second.ahead == Spread(1.5, 1.0, 2.0)
    assert second.cpu_ahead == Spread(3.0, 3.0, 3.0)
    assert (first.ahead, first.server_cpu, first.client_share) == (None, 10.0, 0.25)
    assert first.failed == {"503": 4}
    assert (first.latency, second.latency) == (Latency(30.0, 60.0, 60.0), Latency(25.0, 60.0, 60.0))


def test_the_latency_is_of_what_was_answered() -> None:
    answered = [Answered(0.0, 0.001 * number, 200) for number in range(1, 102)] + [Answered(0.0, 9.0, 429)]
    assert Latency.of(answered) == Latency(51.0, 96.0, 100.0)
    assert Latency.of(answered[-1:]) is None


def test_no_two_requests_are_alike() -> None:
    texts = [f"text {number}" for number in range(100)]
    for wire, kinds in KINDS.items():
        made = workloads(texts, wire, kinds)
        for kind, requests in made.items():
            assert len(requests) == REQUESTS
            if kind not in ("embedding", "search"):  # those have one text each
                assert len(set(requests)) > 0.9 * REQUESTS
            body = json.loads(requests[0].partition(b"\r\n\r\n")[2])
            assert length_of(requests[0]) == len(requests[0])
            assert body.keys() & {"pairs", "input", "inputs", "query"}
    with pytest.raises(BadInput, match="--kind search: on this wire there are embedding, embeddings, rerank"):
        workloads(texts, "tei", ["search"])


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that what a command sets is taken back
    monkeypatch.delenv("DSE_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "texts").write_text("\n".join(WORDS))
    return tmp_path / "texts"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, student_bundle: Path, words_index: Path
) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("load")
    options = ["--bundle", str(student_bundle), "--no-teacher", "--threads", "1", "--index", str(words_index)]
    with started(["scripts.dse", "serve", "--port", "0", *options], folder / "log", {}) as address:
        yield address, folder


@pytest.mark.parametrize("wire", ["native", "infinity", "tei"])
def test_every_kind_of_request_is_answered_on_every_wire(
    tmp_path: Path, asked: Path, service: tuple[str, Path], wire: str
) -> None:
    address, _ = service
    output = tmp_path / "http.json"
    peer = ["--peer-url", address] if wire == "tei" else []
    run("http", "--url", address, "--wire", wire, "--texts", asked, "--clients", 2,
        "--rounds", 1, "--seconds", 0.1, "-o", output, *peer)  # fmt: skip
    found = json.loads(output.read_text())
    paces = {(pace["target"], pace["kind"]): pace for pace in found["results"]}
    names = ["dse", address] if wire == "tei" else ["dse"]
    assert set(paces) == {(name, kind) for kind in KINDS[wire] for name in names}
    for pace in paces.values():
        assert pace["failed"] == {}
        assert pace["per_second"] > 0
        assert pace["server_cpu"] >= 0
    assert found["client alone, a second"] > 0
    assert (found["wire"], found["service"], found["benchmark"]) == (wire, address, "http")
    assert found["threads"] is None  # nobody here knows how many the service has


def test_a_service_is_started_and_searched_beside_this_process(
    tmp_path: Path, asked: Path, student_bundle: Path, words_index: Path
) -> None:
    output = tmp_path / "http.json"
    shown = run(
        "http", "--index", words_index, "--bundle", student_bundle, "--in-process", "--texts", asked, "--clients", 2,
        "--rounds", 1, "--seconds", 0.1, "--threads", 1, "-o", output,
    )  # fmt: skip
    found = json.loads(output.read_text())
    assert found["threads"] == found["threads in process"] == 1
    service, within = found["results"]
    assert [(each["target"], each["kind"]) for each in (service, within)] == [
        ("dse", "search"),
        ("in process", "search"),
    ]
    assert within["server_cpu"] > 0
    assert service["failed"] == within["failed"] == {}
    assert "in process" in shown


def test_overload_and_soak_of_the_service(tmp_path: Path, asked: Path, service: tuple[str, Path]) -> None:
    address, _ = service
    run(
        "overload",
        "--url",
        address,
        "--texts",
        asked,
        "--seconds",
        0.5,
        "--factor",
        2,
        "-o",
        tmp_path / "overload.json",
    )
    found = json.loads((tmp_path / "overload.json").read_text())["results"]
    assert set(found["statuses"]) <= {"200", "429"}
    assert found["memory_most"] > 2**20
    run("soak", "--url", address, "--texts", asked, "--minutes", 0.02, "--clients", 2, "-o", tmp_path / "soak.json")
    found = json.loads((tmp_path / "soak.json").read_text())["results"]
    assert set(found["statuses"]) == {"200"}
    assert found["growth"] is not None


def test_the_teacher_is_extrapolated_to_every_document(
    words_index: Path, student: Student, teacher_bundle: Path
) -> None:
    teacher = load_teacher(teacher_bundle, threads=1)
    ticks = iter(range(1000))
    with open_index(words_index, student) as live:
        ways = claim.measure(live.view(), student, teacher, 5, 5, 2, lambda words: None, lambda: float(next(ticks)))
    by_name = {way.name: way for way in ways}
    # a turn lasts a tick: that of eight queries, or of 5 of 10 documents
    assert by_name[claim.INDEX].milliseconds == by_name[claim.HEAD].milliseconds == 125.0
    assert by_name[claim.TEACHER].milliseconds == 2000.0
    assert by_name[claim.HEAD].faster == Spread(16.0, 16.0, 16.0)
    assert by_name[claim.TEACHER].faster is None
    assert by_name[claim.INDEX].pairs_per_second == 80.0


def test_the_claim_is_measured(
    tmp_path: Path, asked: Path, words_index: Path, student_bundle: Path, teacher_bundle: Path
) -> None:
    run("claim", words_index, "--bundle", student_bundle, "--teacher", teacher_bundle, "--pairs", 5, "--rounds", 1,
        "--threads", 1, "-o", tmp_path / "claim.json")  # fmt: skip
    found = json.loads((tmp_path / "claim.json").read_text())
    assert found["documents"] == len(WORDS)
    assert [way["name"] for way in found["results"]["ways"]] == [claim.INDEX, claim.HEAD, claim.TEACHER]


@pytest.mark.parametrize("option", [("--threads", 1), ("--index", "words")])
def test_what_a_running_service_has_decided_cannot_be_asked_for(asked: Path, option: tuple[str, object]) -> None:
    with pytest.raises(BadInput, match="and --threads, and DSE_BUNDLE, are for a service that is started"):
        run("soak", "--url", "http://127.0.0.1:9", "--texts", asked, *option)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http", "--wire", "soap"], "--wire soap: give native, infinity or tei"),
        (["http", "--kind", "poem"], "--kind poem: on this wire there are"),
        (["http", "--url", "http://127.0.0.1:9", "--in-process"], "there is nothing to search: give --index"),
        (["overload", "--kind", "search"], "--kind search: give --index DIR"),
        (["http", "--kind", "pair", "--in-process"], "--in-process compares searches alone: leave out --kind"),
        (["http", "--url", "http://127.0.0.1:9"], "for a service that is started: leave them out, or --url http://127"),
        (["overload", "--url", "http://127.0.0.1:9"], "for a service that is started"),
        (["soak", "--url", "http://127.0.0.1:9"], "for a service that is started"),
    ],
)
def test_what_the_caller_can_mend_is_said(
    asked: Path, student_bundle: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DSE_INDEX", raising=False)
    with pytest.raises(BadInput, match=message):
        run(*arguments, "--bundle", student_bundle, "--texts", asked)
