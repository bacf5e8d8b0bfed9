"""Who asks a service faster than it answers? A client of few instructions: connections kept open, requests ready made.

Closed loop: each of some clients asks again when it was answered. Open loop: requests are due at a rate, whether the
last ones were answered or not, and what one waits for its turn counts, as it does for somebody in front of a screen.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from scripts.console import BadInput

MOST_CONNECTIONS = 512
SECONDS_TO_CONNECT = 10.0


@dataclass(frozen=True)
class Answered:
    """One request: when it was due, by ``time.perf_counter()``, and how long until its answer was there."""

    due: float
    seconds: float
    status: int  # 0 where the connection broke


class Exchange(asyncio.Protocol):
    """A connection on which one request after the other is asked."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            ConnectionError: it broke.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._buffer = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._buffer += data
        if self._answer is None or self._answer.done():
            return
        if b"\r\ntransfer-encoding: chunked" in self._buffer[:1024].lower():
            self._answer.set_exception(ConnectionError("the answer's length is not declared, which is not read here"))
        elif (end := length_of(self._buffer)) is not None and len(self._buffer) >= end:
            body = self._buffer[self._buffer.index(b"\r\n\r\n") + 4 :]
            self._answer.set_result((int(self._buffer[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, whatever was asked."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed before the answer was there"))
        self._transport = None

    @property
    def usable(self) -> bool:
        """Whether something can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def length_of(message: bytes) -> int | None:
    """Bytes of an HTTP message that has begun, head and body; None until its head is whole."""
    end = message.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = message[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return end + 4
    return end + 4 + int(head[at + 17 :].partition(b"\r\n")[0])


def request_of(path: str, body: bytes | None) -> bytes:
    """The bytes of a request: POST if there is a body."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: benchmark"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def place_of(address: str) -> tuple[str, int]:
    """Host and port of a service.

    Raises:
        BadInput: not http://HOST:PORT, which is all that this client asks.
    """
    with suppress(ValueError):  # its port is none
        parts = urlsplit(address)
        if parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/"):
            return parts.hostname, parts.port
    raise BadInput(f"{address}: give the address of a running service, http://HOST:PORT")


async def connect(address: str) -> Exchange:
    """A connection to a service.

    Raises:
        OSError: nobody listens there.
    """
    host, port = place_of(address)
    coming = asyncio.get_running_loop().create_connection(Exchange, host, port)
    _, exchange = await asyncio.wait_for(coming, SECONDS_TO_CONNECT)
    return exchange


async def closed_loop(address: str, requests: Sequence[bytes], clients: int, seconds: float) -> list[Answered]:
    """What some clients asked, each again as soon as it was answered, for so long."""
    answered: list[Answered] = []

    async def client(number: int, exchange: Exchange) -> None:
        place = number * len(requests) // clients
        while (began := time.perf_counter()) < end:
            try:
                status, _ = await exchange.ask(requests[place % len(requests)])
            except ConnectionError:
                status, exchange = 0, await connect(address)
            answered.append(Answered(began, time.perf_counter() - began, status))
            place += 1
        exchange.close()

    exchanges = await asyncio.gather(*(connect(address) for _ in range(clients)))
    end = time.perf_counter() + seconds  # all are connected: with many clients that alone takes a while
    await asyncio.gather(*(client(number, exchange) for number, exchange in enumerate(exchanges)))
    return answered


async def open_loop(address: str, requests: Sequence[bytes], rate: float, seconds: float) -> list[Answered]:
    """What was asked at a rate, for so long, and how long each took from when it was due."""
    answered: list[Answered] = []
    free: list[Exchange] = []
    places = asyncio.Semaphore(MOST_CONNECTIONS)

    async def ask(request: bytes) -> tuple[int, Exchange]:
        while free:
            if (exchange := free.pop()).usable:
                with suppress(ConnectionError):  # closed this moment, as nobody used it: that is no failure
                    return (await exchange.ask(request))[0], exchange
        exchange = await connect(address)
        return (await exchange.ask(request))[0], exchange

    async def one(request: bytes, due: float) -> None:
        async with places:
            status, exchange = 0, None
            with suppress(OSError, TimeoutError):  # status 0 says so
                status, exchange = await ask(request)
            answered.append(Answered(due, time.perf_counter() - due, status))
            if exchange is not None and exchange.usable:
                free.append(exchange)

    began = time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()
    sent, total = 0, int(seconds * rate)
    while sent < total:
        due = min(total, 1 + int((time.perf_counter() - began) * rate))
        for number in range(sent, due):
            task = asyncio.create_task(one(requests[number % len(requests)], began + number / rate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        sent = due
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    for exchange in free:
        exchange.close()
    return answered


@dataclass(frozen=True)
class Latency:
    """Milliseconds of some requests."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, answered: Sequence[Answered]) -> "Latency | None":
        """Of those that were answered as asked; None if none was."""
        seconds = [each.seconds for each in answered if each.status == 200]
        if not seconds:
            return None
        return cls(*(round(1000 * float(value), 2) for value in np.percentile(seconds, [50, 95, 99])))
