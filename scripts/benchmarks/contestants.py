"""Who encodes? This project's encoder within the process, and peers, each in a process of another environment."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scripts.console import BadInput

MOST_SAID = 300
"""Characters of a peer's last word that are passed on."""
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Timed:
    """How long something took: each part by the clock, and all of it in seconds of computing, of every thread."""

    seconds: list[float]
    cpu: float


class Contestant(Protocol):
    """Something that embeds the texts it was given."""

    name: str
    facts: dict[str, Any]  # what it runs, for a report

    def all_at_once(self) -> Timed:
        """Embed all texts, in one call."""
        ...

    def one_by_one(self, places: Sequence[int]) -> Timed:
        """Embed some texts, a call each."""
        ...

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Ours:
    """An encoder of this project."""

    def __init__(
        self, name: str, encode: Encode, texts: Sequence[str], facts: dict[str, Any], per_call: int | None = None
    ) -> None:
        self.name, self.facts = name, facts
        self._encode, self._texts, self._per_call = encode, texts, per_call or len(texts)

    def all_at_once(self) -> Timed:
        """Embed all texts, in one call, or so many a call."""
        began, computed = time.perf_counter(), time.process_time()
        for start in range(0, len(self._texts), self._per_call):
            self._encode(self._texts[start : start + self._per_call])
        return Timed([time.perf_counter() - began], time.process_time() - computed)

    def one_by_one(self, places: Sequence[int]) -> Timed:
        """Embed some texts, a call each."""
        seconds, computed = [], time.process_time()
        for place in places:
            began = time.perf_counter()
            self._encode([self._texts[place]])
            seconds.append(time.perf_counter() - began)
        return Timed(seconds, time.process_time() - computed)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings."""
        return self._encode(texts)

    def close(self) -> None:
        """Nothing is to end."""


class Peer:
    """Another program that embeds: a process that answers JSON lines, as ``scripts/benchmarks/peers`` do."""

    def __init__(
        self, name: str, python: Path, script: Path, wish: dict[str, Any], texts: Sequence[str], scratch: Path
    ) -> None:
        self.name = name
        self._scratch = scratch
        self._said = scratch / f"{name.replace(' ', '-')}.log"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        with self._said.open("wb") as said:
            try:
                self._process = subprocess.Popen(
                    [python, script],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=environment | offline,
                    cwd=scratch,
                    text=True,
                    encoding="utf-8",
                )
            except OSError as error:
                raise BadInput(f"{python} cannot be run: {error.strerror}; give a Python that has the peer") from error
        self.facts = self._ask(wish)
        self._ask({"do": "take", "texts": list(texts)})

    def all_at_once(self) -> Timed:
        """Embed all texts, in one call."""
        found = self._ask({"do": "all"})
        return Timed([found["seconds"]], found["cpu"])

    def one_by_one(self, places: Sequence[int]) -> Timed:
        """Embed some texts, a call each."""
        found = self._ask({"do": "singles", "places": list(places)})
        return Timed(found["seconds"], found["cpu"])

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim) unit embeddings."""
        to = self._scratch / "vectors.npy"
        self._ask({"do": "vectors", "texts": list(texts), "to": str(to)})
        found: NDArray[np.float32] = np.load(to)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended by itself
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            lines = self._said.read_text("utf-8", "replace").splitlines() or ["it said nothing"]
            raise BadInput(f"the peer {self.name} ended with {self._process.returncode}: {lines[-1][:MOST_SAID]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
