"""What was it measured on? A figure without its machine, threads and rows is worth nothing."""

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index.view import View

CPUS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Conditions:
    """What every benchmark says beside its figures."""

    benchmark: str
    command: str
    date: str
    processor: str
    cpus: int
    threads: int
    bundle: str
    encoder: str  # digest
    generation: str
    documents: int
    changes_pending: int
    dims: int
    recipe: str
    search: Mapping[str, int]
    refine: int
    proven_recall: float | None
    queries: int
    asked: str  # the file of queries, or "documents"

    def report(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """All that a benchmark says, for a JSON file."""
        return asdict(self) | {"results": results}

    def rows(self) -> list[list[str]]:
        """What a reader of the table must know, in two columns."""
        parameters = ", ".join(f"{name} {value}" for name, value in [*self.search.items(), ("refine", self.refine)])
        return [
            ["processor", f"{self.processor}, {self.cpus} CPUs, {self.threads} threads used"],
            ["bundle", self.bundle],
            ["documents", f"{self.documents:,} of {self.dims} dimensions, {self.changes_pending:,} changes pending"],
            ["recipe", f"{self.recipe}: {parameters}"],
            ["queries", f"{self.queries:,} from {self.asked}"],
            ["date", self.date],
            ["command", self.command],
        ]


def conditions(benchmark: str, view: View, bundle: str, threads: int, queries: int, asked: str) -> Conditions:
    """Those of this process, and of the index it looks at."""
    facts = view.manifest
    return Conditions(
        benchmark=benchmark,
        command=shlex.join(["dse", *sys.argv[1:]]),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor(),
        cpus=os.cpu_count() or 1,
        threads=threads,
        bundle=bundle,
        encoder=facts.encoder.digest,
        generation=view.name,
        documents=len(view),
        changes_pending=view.pending,
        dims=facts.dims,
        recipe=facts.recipe,
        search=facts.search,
        refine=facts.refine,
        proven_recall=None if facts.proof is None else facts.proof.recall,
        queries=queries,
        asked=asked,
    )


def run_facts(benchmark: str, threads: int | None) -> dict[str, Any]:
    """What a benchmark without an index says beside its figures; the load tells whether the machine was quiet.

    ``threads`` are None where a service was measured that somebody else started.
    """
    return {
        "benchmark": benchmark,
        "command": shlex.join(["dse", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cpus": os.cpu_count() or 1,
        "threads": threads,
        "load": round(os.getloadavg()[0], 2),
    }


def processor(cpus: Path = CPUS) -> str:
    """Its maker's name for it, where the system knows."""
    try:
        lines = cpus.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
