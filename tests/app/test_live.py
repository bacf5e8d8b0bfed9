"""What only a server process shows: overload and recovery, memory, hanging up, SIGTERM, and what is said at start."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from app.loading import identity
from index.live import LiveIndex
from model.bundle import Student
from tests.app.live import Answer, Server, ask, send, serving
from tests.conftest import WORDS, build_index

SECONDS = 60.0 if os.environ.get("DSE_SOAK") else 4.0
SENTENCE = "A man in a blue shirt plays a slow melody on a wooden flute"
NUMBERS = count()


def question(pairs: int = 8) -> dict[str, object]:
    """Pairs of which no two are alike."""
    return {"pairs": [[f"{SENTENCE} {next(NUMBERS)}", f"{next(NUMBERS)} {SENTENCE}"] for _ in range(pairs)]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("live"), max_requests=16, timeout=300) as server:
        yield server


async def metric(server: Server, name: str) -> float:
    """The sum over a metric's labels."""
    lines = (await ask(server, "/metrics")).body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def capacity(server: Server, clients: int = 8, each: int = 12) -> float:
    """Requests a second that some patient clients have answered."""

    async def client() -> None:
        for _ in range(each):
            assert (await ask(server, "/v1/similarity", question())).status == 200

    await client()  # the first ones warm up
    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return clients * each / (time.monotonic() - began)


async def storm(server: Server, rate: float, seconds: float) -> list[Answer]:
    """Requests at a rate, whether the last ones are answered or not."""
    began = time.monotonic()
    asked: list[asyncio.Task[Answer]] = []
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * rate) - len(asked)
        asked += [asyncio.create_task(ask(server, "/v1/similarity", question())) for _ in range(due)]
        await asyncio.sleep(0.005)
    return list(await asyncio.gather(*asked))


def test_overload_is_refused_memory_stays_and_all_is_well_afterwards(server: Server) -> None:
    async def scenario() -> None:
        rate = await capacity(server)
        before = server.memory
        answers = await storm(server, 4 * rate, max(SECONDS, 60 / rate))
        ended = time.monotonic()
        statuses = Counter(answer.status for answer in answers)
        assert set(statuses) == {200, 429}, statuses
        assert statuses[429] > statuses[200], statuses
        assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in answers if answer.status == 429)
        accepted = sorted(answer.seconds for answer in answers if answer.status == 200)
        # 16 are in progress at most; who was let in waits for those before, and for the machine's other work.
        assert accepted[int(0.99 * len(accepted))] < 40 * 16 / rate
        assert server.memory < before + 30 * 2**20
        recovered = await ask(server, "/v1/similarity", question())
        assert (recovered.status, time.monotonic() - ended < 2) == (200, True)
        assert await metric(server, "dse_queue_tokens") == 0

    asyncio.run(scenario())


def test_what_a_client_left_behind_is_not_computed(server: Server) -> None:
    async def scenario() -> None:
        dropped = await metric(server, "dse_dropped_texts_total")
        body = json.dumps({"pairs": question(256)["pairs"]}).encode()
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            head = "POST /v1/teacher/similarity HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.close()
        end = time.monotonic() + 10
        while await metric(server, "dse_queue_tokens") or not await metric(server, "dse_dropped_texts_total"):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert await metric(server, "dse_dropped_texts_total") - dropped > 256

    asyncio.run(scenario())


def test_a_body_of_unknown_length_is_measured_as_it_comes(server: Server) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = (
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = asyncio.run(send(server, head + 17 * chunk))
    assert answer.status == 413
    assert b"larger than 1048576 bytes (DSE_MAX_BODY_BYTES)" in answer.body


def test_sigterm_answers_what_is_in_progress_takes_nothing_new_and_ends(tmp_path: Path) -> None:
    async def scenario(server: Server) -> list[Answer]:
        long = [asyncio.create_task(ask(server, "/v1/teacher/similarity", question(64))) for _ in range(2)]
        while not await metric(server, "dse_queue_tokens"):
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        late = await ask(server, "/livez")
        return [late, *await asyncio.gather(*long)]

    with serving(tmp_path, drain=300) as server:
        late, *answers = asyncio.run(scenario(server))
        assert late.status == 0
        assert [answer.status for answer in answers] == [200, 200]
        assert server.process.wait(10) == 0
        routes = [line["route"] for line in server.logged() if line["logger"] == "dse.access"]
        assert routes.count("/v1/teacher/similarity") == 2


def test_what_does_not_end_is_cut_off(tmp_path: Path) -> None:
    async def scenario(server: Server) -> float:
        asked = [asyncio.create_task(ask(server, "/v1/teacher/similarity", question(256))) for _ in range(6)]
        while not await metric(server, "dse_queue_tokens"):
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} <= {200, 503}
        assert any(b"the service is stopping" in answer.body for answer in answers)
        return began

    with serving(tmp_path, drain=0, timeout=300) as server:
        began = asyncio.run(scenario(server))
        server.process.wait(10)
        assert time.monotonic() - began < 10


def test_a_compaction_that_was_asked_for_is_cut_off_too(tmp_path: Path, student: Student, student_bundle: Path) -> None:
    """It waits ten seconds for another writer; a large one would take minutes."""
    folder = build_index(tmp_path / "index", student, WORDS)

    async def scenario(server: Server) -> Answer:
        asked = asyncio.create_task(ask(server, "/v1/index/compact", {}))
        while not list(folder.glob("generations/*.partial")):
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        return await asked

    with LiveIndex.open(folder, identity(student), writable=True) as other:
        other.delete(["d0"])
        with (
            serving(tmp_path, bundle=student_bundle, teacher="", index=folder, drain=0) as server,
            other._writer().transaction(),
        ):
            answer = asyncio.run(scenario(server))
            assert server.process.wait(5) == 0
    assert (answer.status, b"the service is stopping" in answer.body) == (503, True)


@pytest.mark.parametrize(
    ("settings", "options", "warned"),
    [
        ({}, ["--host", "0.0.0.0"], "ANYBODY WHO REACHES 0.0.0.0 MAY SEARCH"),
        ({}, [], None),
        ({"api_keys": "a-key-of-sixteen-characters"}, ["--host", "0.0.0.0"], None),
    ],
)
def test_an_open_door_is_warned_of(tmp_path: Path, settings: dict[str, str], options: list[str], warned: str) -> None:
    with serving(tmp_path, *options, teacher="", **settings) as server:
        warnings = [line["message"] for line in server.logged() if line["level"] == "warning"]
        assert len(warnings) == (warned is not None), warnings
        assert not warned or warnings[0].startswith(warned)
        # uvicorn's own lines are in the same format, or they would not have been read
        assert any(line["logger"].startswith("uvicorn") for line in server.logged())
