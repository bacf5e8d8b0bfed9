"""A service to measure: ``dse serve`` as a process of its own, and clients that speak HTTP to it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from scripts.console import BadInput

SECONDS_TO_START, SECONDS_TO_END = 600.0, 30.0
SECONDS_TO_ANSWER = 60.0
SECONDS_BETWEEN_LOOKS = 0.05


@contextmanager
def served(index: Path, bundle: Path, threads: int, log: Path) -> Iterator[str]:
    """The address of a service of an index, on a free port. It does not compact by itself.

    Raises:
        BadInput: it ended before it could be asked; the message is its last word.
    """
    serve = ["--index", str(index), "--bundle", str(bundle), "--no-teacher", "--port", "0", "--threads", str(threads)]
    settings = {"DSE_COMPACT_AFTER": "0", "DSE_READ_ONLY": "false"}
    with started(["scripts.dse", "serve", *serve], log, settings) as address:
        yield address


@contextmanager
def started(module: Sequence[str], log: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """The address that a module says it is open at, run as a process of its own; it is ended afterwards.

    Raises:
        BadInput: it ended before it could be asked; the message is its last word.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1", **settings}
    with log.open("wb") as said:
        command = [sys.executable, "-m", *module]
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    last = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < last:
        lines = log.read_text("utf-8", "replace").splitlines()
        for line in lines:
            if line.startswith("open "):
                return line.split()[1]
        if process.poll() is not None:
            raise BadInput(f"dse serve ended with {process.returncode}: {lines[-1] if lines else 'it said nothing'}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise BadInput(f"dse serve did not start within {SECONDS_TO_START:.0f} s")


class Client:
    """One connection to a service, kept open."""

    def __init__(self, address: str, patience: float = SECONDS_TO_ANSWER) -> None:
        parts = urlsplit(address)
        self._connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=patience)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[Any, str | None]:
        """The JSON that is answered, and what was wrong, if anything was."""
        content = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, content, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            text = response.read()
            if response.status != 200:
                return None, f"{response.status}: {text.decode(errors='replace')}"
            return json.loads(text), None
        except (OSError, HTTPException, ValueError) as error:
            self._connection.close()  # the next request opens another
            return None, f"{type(error).__name__}: {error}"

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@dataclass(frozen=True)
class Asked:
    """One search: when it began, by ``time.perf_counter()``, how long it took, and what was wrong, if anything was."""

    began: float
    seconds: float
    fault: str | None


class Searchers:
    """Clients that search without a pause until this is left."""

    def __init__(self, address: str, queries: Sequence[str], clients: int, k: int) -> None:
        self._address, self._queries, self._k = address, queries, k
        self._stop = threading.Event()
        self._asked: list[list[Asked]] = [[] for _ in range(clients)]
        self._threads = [threading.Thread(target=self._search, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def asked(self) -> list[Asked]:
        """Every search that has been answered, or was not."""
        return [asked for each in self._asked for asked in list(each)]

    def _search(self, number: int) -> None:
        client, clients = Client(self._address), len(self._threads)
        place = number
        while not self._stop.is_set():
            query = self._queries[place % len(self._queries)]
            began = time.perf_counter()
            answer, fault = client.ask("POST", "/v1/search", {"query": query, "k": self._k})
            if fault is None and not answer.get("hits"):
                fault = f"no hits in {answer}"
            self._asked[number].append(Asked(began, time.perf_counter() - began, fault))
            place += clients
        client.close()
