"""Requests that are hardly requests: each gets an answer or a closed connection, never a failure inside."""

import json
import os
import random
import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.settings import Settings
from tests.live import served

REQUESTS = int(os.environ.get("DSE_FUZZ", "400"))
CLIENTS = 8
SECONDS_TO_ANSWER = 30
SECONDS_FOR_MORE = 0.5

BODIES = {
    "/v1/embeddings": {"input": ["listen", "stone"], "model": "default", "encoding_format": "base64"},
    "/embed": {"inputs": "listen", "truncate": True, "dimensions": 16},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}},
    "/predict": {"inputs": [["a", "b"], ["c", "d"]], "raw_scores": True},
    "/rerank": {"query": "a", "texts": ["b", "c"], "return_text": True},
    "/": {"inputs": ["a", "b"]},
    "/v1/rerank": {"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1},
    "/v2/rerank": {"query": "a", "documents": ["b"], "model": "teacher"},
    "/v1/similarity": {"pairs": [["a", "b"]], "raw_scores": True},
    "/v1/search": {"query": "a", "k": 3, "filter": {"length": {"$gte": 5}}},
    "/v1/search/batch": {"queries": ["a", "b"], "rerank": "none"},
    "/v1/compare": {"query": "a", "k": 2},
    "/v1/documents": {"documents": [{"id": "x", "text": "y", "metadata": {"n": 1}}]},
}
"""Requests that are in order, by path: what goes wrong starts from them."""

ODDITIES = [
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b'"' * 3,
    b"[" * 3000, b'{"":' * 500, b"\r\n\r\n", b"\r\n", b"null", b"true", b"-1", b"0", b"{}", b"[]", b"a" * 70_000,
    b"\xf0\x9f\x92\xa9", b"Content-Length: -5\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Content-Type: multipart/form-data\r\n",
    b"Content-Encoding: gzip\r\n", b" HTTP/9.9", b"%00%ff%c3", b"../../etc/passwd", b"Host:\r\n",
    b"GET / HTTP/1.1\r\n\r\n", b"Upgrade: websocket\r\n", b"Content-Type: text/plain; charset=utf-7\r\n",
]  # fmt: skip


def request(random_: random.Random) -> bytes:
    """A request in order."""
    path = random_.choice(list(BODIES))
    method = "PUT" if path == "/v1/documents" else "POST"
    body = json.dumps(BODIES[path]).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def spoilt_body(random_: random.Random, whole: bytes) -> bytes:
    """The same with a few faults in its body, whose length is told rightly: this has to be answered."""
    head, _, body = whole.partition(b"\r\n\r\n")
    body = _with_faults(random_, body)
    return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + b"\r\n\r\n" + body


def _with_faults(random_: random.Random, content: bytes) -> bytes:
    for _ in range(random_.randint(1, 4)):
        at, end = sorted(random_.randint(0, len(content)) for _ in range(2))
        match random_.randrange(6):
            case 0:  # a byte becomes another
                content = content[:at] + bytes([random_.randrange(256)]) + content[at + 1 :]
            case 1:  # the end is missing
                content = content[:at]
            case 2:  # a part is missing
                content = content[:at] + content[end:]
            case 3:  # a part is there twice
                content = content[:end] + content[at:]
            case 4:  # something odd stands between
                content = content[:at] + random_.choice(ODDITIES) + content[at:]
            case _:  # something odd stands in the place of a value
                content = content[:at] + random_.choice(ODDITIES) + content[end:]
    return content


def answer(address: str, content: bytes, patience: float = SECONDS_TO_ANSWER) -> bytes:
    """All that is answered until the connection is closed, or nothing more came for a while.

    Raises:
        TimeoutError: the service did not close a connection that its client had given up.
    """
    host, port = address.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER) as connection:
        try:
            connection.sendall(content)
            connection.settimeout(patience)
            try:
                while chunk := connection.recv(65536):
                    received += chunk
            except TimeoutError:  # it may be waiting for the rest of a request that has none
                connection.settimeout(SECONDS_TO_ANSWER)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
        except (ConnectionResetError, BrokenPipeError):  # of what it had not read when it refused
            pass
    return received


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "log"


@pytest.fixture(scope="module")
def address(settings: Settings, log: Path) -> Iterator[str]:
    options = ("--bundle", settings.bundle, "--teacher", settings.teacher, "--index", settings.index)
    with served(log, *options, DSE_READ_ONLY="true") as url:
        yield url


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


def test_the_requests_that_are_spoilt_were_in_order(address: str) -> None:
    for seed in range(50):
        (status,) = statuses(answer(address, request(random.Random(seed))))
        assert status in (200, 409)  # 409: documents of an index that is served read-only


def check(content: bytes, received: bytes, seen: Counter[int]) -> None:
    for status in statuses(received):
        seen[status] += 1
        assert status < 500, f"{content[:500]!r} was answered {received[:500]!r}"
    assert b"Traceback" not in received, content[:500]


def test_no_body_makes_the_service_fail_and_each_is_answered(address: str, log: Path) -> None:
    seen: Counter[int] = Counter()

    def send(seed: int) -> None:
        random_ = random.Random(seed)
        content = spoilt_body(random_, request(random_))
        received = answer(address, content)
        check(content, received, seen)
        assert len(statuses(received)) == 1, f"{content[:500]!r} was not answered"

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, range(REQUESTS // 2)))
    assert {200, 422} <= seen.keys(), seen
    still_well(address, log)


def test_no_bytes_make_the_service_fail(address: str, log: Path) -> None:
    seen: Counter[int] = Counter()

    def send(seed: int) -> None:
        random_ = random.Random(seed)
        content = _with_faults(random_, request(random_))
        check(content, answer(address, content, SECONDS_FOR_MORE), seen)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, range(REQUESTS // 2)))
    assert {200, 400, 422} <= seen.keys(), seen
    still_well(address, log)


def still_well(address: str, log: Path) -> None:
    assert statuses(answer(address, b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == [200]
    assert "Traceback" not in log.read_text()
