"""A server process, and clients so light that they can ask more than it answers."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """A running ``dse serve``."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def logged(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(folder: Path, *options: str, **settings: object) -> Iterator[Server]:
    """A server with the shipped models on a free port, its log in a folder."""
    variables = {f"DSE_{name.upper()}": str(value) for name, value in ({"log_format": "json"} | settings).items()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DSE_")} | variables
    log = folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.dse", "serve", "--port", "0", *options],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("open"):
                    break
            else:
                raise AssertionError(log.read_text())
            server = Server(process, int(line.rstrip("/\n").rpartition(":")[2]), log)
            asyncio.run(_up(server))
            yield server
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


async def _up(server: Server) -> None:
    while (await ask(server, "/readyz")).status != 200:
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 where nothing did."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


async def ask(server: Server, path: str, body: object = None, **headers: str) -> Answer:
    """Ask on a connection of its own: POST if there is a body."""
    content = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", *(f"{name}: {value}" for name, value in headers.items())]
    return await send(server, "\r\n".join(lines).encode() + b"\r\n\r\n" + content)


async def send(server: Server, request: bytes) -> Answer:
    """Send bytes, and read the answer to its end."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except ConnectionError:
        return Answer(0, {}, b"", time.monotonic() - began)
    try:
        writer.write(request)
        answer = await reader.read()
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(first.split()[1]) if first else 0, headers, content, time.monotonic() - began)
