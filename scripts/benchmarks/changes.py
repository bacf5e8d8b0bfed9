"""What do searches notice of changes? Clients search through HTTP while documents are written, then compacted."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from index.documents import Document
from index.view import View
from scripts.benchmarks.scratch import sampled
from scripts.benchmarks.service import Asked, Client, Searchers, served
from scripts.benchmarks.timing import Pace
from scripts.console import BadInput, batches

K = 10
SECONDS_TO_COMPACT = 4 * 3600.0
LOOKED_FOR = 200
"""So many of the documents that were written are read again, after the writes and after the compaction."""

Phases = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Phase:
    """What the searches that began in a part of the run were like."""

    name: str
    seconds: float
    failed: int
    fault: str | None  # of the first that failed
    searches: Pace | None  # None: no search ended well

    @classmethod
    def of(cls, name: str, span: tuple[float, float], asked: Sequence[Asked]) -> "Phase":
        """From the searches of the whole run."""
        began, ended = span
        here = [each for each in asked if began <= each.began < ended]
        well = [each.seconds for each in here if each.fault is None]
        faults = [each.fault for each in here if each.fault is not None]
        pace = Pace.of(well, ended - began) if well else None
        return cls(name, round(ended - began, 3), len(faults), faults[0] if faults else None, pace)


@dataclass(frozen=True)
class Changed:
    """The phases, and how the changes themselves went."""

    phases: list[Phase]
    upserts: int
    batch: int
    puts: Pace  # each with a batch
    failed_puts: int
    upserts_per_second: float
    lost: int  # of those looked for
    looked_for: int
    compaction_fault: str | None
    documents: int
    generation: str

    def report(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def documents_to_write(view: View, count: int) -> list[Document]:
    """Every other one is new, the others replace one of the index; texts are those of other documents."""
    sources, targets = sampled(view, count, seed=2), sampled(view, count, seed=3)
    if not sources:
        raise BadInput("the index holds no document whose text could be written")
    return [
        Document(
            f"benchmark/{number}" if number % 2 or number >= len(targets) else targets[number].id,
            sources[number % len(sources)].text,
            sources[number % len(sources)].metadata,
        )
        for number in range(count)
    ]


def measure(
    copy: Path,
    bundle: Path,
    threads: int,
    queries: Sequence[str],
    documents: Sequence[Document],
    *,
    batch: int,
    clients: int,
    seconds: float,
    stage: Callable[[str], None] = lambda words: None,
) -> Changed:
    """Serve an index, search it without a pause, write documents to it, compact it.

    Args:
        copy: an index that may be changed.
        bundle: the student's.
        threads: of the service.
        queries: to search for.
        documents: to write, each id once.
        batch: documents a request.
        clients: that search at once.
        seconds: how long they search before anything is written, and after the last.
        stage: told what is being done.

    Raises:
        BadInput: the service does not start, or no write succeeds.
    """
    phases: Phases = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        stage(name)
        began = time.perf_counter()
        yield
        phases[name] = began, time.perf_counter()

    with served(copy, bundle, threads, copy.parent / "serve.log") as address:
        with Searchers(address, queries, clients, K) as searchers:
            time.sleep(min(1.0, seconds))  # does not count
            with phase("before"):
                time.sleep(seconds)
            puts: list[float] = []
            written: list[Document] = []
            failed = 0
            with phase("upserts"), closing(Client(address)) as writer:
                for some in batches(documents, batch):
                    began = time.perf_counter()
                    _, fault = writer.ask("PUT", "/v1/documents", {"documents": [asdict(each) for each in some]})
                    if fault is None:
                        puts.append(time.perf_counter() - began)
                        written += some
                    else:
                        failed += 1
            if not puts:
                raise BadInput(f"no write succeeded: {fault}")
            wanted = written[:: max(1, len(written) // LOOKED_FOR)]
            missing = lost(address, wanted)
            with phase("compaction"), closing(Client(address, SECONDS_TO_COMPACT)) as writer:
                _, compaction_fault = writer.ask("POST", "/v1/index/compact")
            with phase("after"):
                time.sleep(seconds)
            missing += lost(address, wanted)
            with closing(Client(address)) as reader:
                facts, fault = reader.ask("GET", "/v1/index")
            if facts is None:
                raise BadInput(f"the service no longer says what it holds: {fault}")
        asked = searchers.asked()
    began, ended = phases["upserts"]
    return Changed(
        phases=[Phase.of(name, span, asked) for name, span in phases.items()],
        upserts=len(written),
        batch=batch,
        puts=Pace.of(puts, ended - began),
        failed_puts=failed,
        upserts_per_second=round(len(written) / (ended - began), 1),
        lost=missing,
        looked_for=2 * len(wanted),
        compaction_fault=compaction_fault,
        documents=facts["documents"],
        generation=facts["generation"],
    )


def lost(address: str, documents: Sequence[Document]) -> int:
    """How many documents that were acknowledged are not there as they were written.

    Raises:
        BadInput: the service does not say.
    """
    with closing(Client(address)) as reader:  # a new connection: a service hangs up where nothing was asked for a while
        return sum(_text_of(reader, document.id) != document.text for document in documents)


def _text_of(reader: Client, id_: str) -> str | None:
    """What the document of an id says; None: there is none."""
    answer, fault = reader.ask("GET", f"/v1/documents/{quote(id_)}")
    if fault is None:
        return str(answer["text"])
    if fault.startswith("404"):
        return None
    raise BadInput(f"the service does not say whether it holds {id_!r}: {fault}")
