"""dse benchmark http, overload and soak: what does the service bear?"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.console import BadInput, print_table, progress_bar
from scripts.options import BundleOption
from scripts.speed_commands import DataOption, OutputOption, TextsOption, ThreadsOption, save, settings_of

if TYPE_CHECKING:
    from app.settings import Settings
    from scripts.benchmarks.client import Latency
    from scripts.benchmarks.load import Result, Target
    from scripts.benchmarks.within import Within

TEXTS = 2000
MEGABYTE = 2**20

UrlOption = Annotated[str | None, typer.Option(help="A running service.", show_default="one is started")]
IndexOption = Annotated[Path | None, typer.Option(help="What the started service searches; it is not changed.")]
WireOption = Annotated[str, typer.Option(help="The words that are asked in: native, infinity or tei.")]
KINDS_OF_REQUEST = "pair, pairs (32), embedding, embeddings (32), rerank (25) or search"
KindsOption = Annotated[list[str] | None, typer.Option("--kind", help=KINDS_OF_REQUEST, show_default="all there are")]


@dataclass(frozen=True)
class _Asking:
    """A service that can be asked, and what."""

    address: str
    requests: Mapping[str, Sequence[bytes]]
    texts: Sequence[str]
    settings: "Settings"
    on: dict[str, Any]  # what it is measured on
    stage: Callable[[str], None]


def http(
    url: UrlOption = None,
    index: IndexOption = None,
    bundle: BundleOption = None,
    peer_url: Annotated[
        str | None, typer.Option(help="Another service, asked the same in turns, in the words of --wire.")
    ] = None,
    wire: WireOption = "native",
    kind: KindsOption = None,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="At once.", show_default="1, 8 and 32")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="In each, all take turns, there and back.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.05, help="A turn.")] = 3.0,
    in_process: Annotated[bool, typer.Option("--in-process", help="Search within this process too.")] = False,
    texts: TextsOption = None,
    data: DataOption = None,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Requests a second, latency, and what an answer costs the service, beside a peer or this process in turns."""
    counts = clients or [1, 8, 32]
    if in_process and set(kind or ["search"]) != {"search"}:
        raise BadInput("--in-process compares searches alone: leave out --kind, or --in-process")
    if not in_process:
        _refuse_what_a_service_decides(url, index, bundle, threads)
    wanted = ["search"] if in_process else kind
    with _asking("http", url, index, bundle, wire, wanted, texts, data, threads, peer_url) as asking:
        from scripts.benchmarks.load import Served, measure

        first = next(iter(asking.requests.values()))
        alone = _alone(first, max(counts))
        targets: list[Target] = [Served("dse", asking.address, asking.requests)]
        if in_process:
            targets.append(_within(asking))
            asking.on["threads in process"] = asking.settings.threads
        if peer_url:
            targets.append(Served(peer_url, peer_url, asking.requests))
        paces = measure(targets, list(asking.requests), counts, rounds, seconds, asking.stage)
    on = asking.on | {"client alone, a second": alone}
    print_table(["measured on", ""], [[name, str(value)] for name, value in on.items()])
    print_table(
        ["asked", "clients", "", "a second", "p50 ms", "p95 ms", "p99 ms", "server CPU ms", "client CPU", "not 200",
         "dse is faster", "its CPU is less"],
        [_pace(pace) for pace in paces],
    )  # fmt: skip
    save(output, on | {"results": [pace.report() for pace in paces]})


def overload(
    url: UrlOption = None,
    index: IndexOption = None,
    bundle: BundleOption = None,
    kind: Annotated[str, typer.Option(help=KINDS_OF_REQUEST)] = "pairs",
    factor: Annotated[float, typer.Option(min=1, help="Ask so many times what is answered.")] = 4.0,
    seconds: Annotated[float, typer.Option(min=0.5, help="For so long.")] = 60.0,
    texts: TextsOption = None,
    data: DataOption = None,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Ask more than can be answered: what is refused, how long the others wait, and how soon all is as before."""
    _refuse_what_a_service_decides(url, index, bundle, threads)
    with _asking("overload", url, index, bundle, "native", [kind], texts, data, threads) as asking:
        from scripts.benchmarks.load import overload

        found = overload(asking.address, kind, asking.requests[kind], factor, seconds, asking.stage)
    print_table(["measured on", ""], [[name, str(value)] for name, value in asking.on.items()])
    rows = [
        ["capacity", f"{found.capacity:,.1f} answers a second; one alone takes {found.calm:.1f} ms"],
        ["asked", f"{found.asked:,}: {found.rate:,.1f} a second for {found.seconds:g} s"],
        ["answers", ", ".join(f"{count:,} x {status}" for status, count in found.statuses.items())],
        ["refused", f"{100 * found.refused:.1f} %"],
        ["200s a second", f"{found.answered_per_second:,.1f}"],
        ["their p50, p95, p99", _latency(found.admitted)],
        ["the slowest", "" if found.admitted_most is None else f"{found.admitted_most:,.0f} ms"],
        ["memory before, most, after", _memory(found.memory_before, found.memory_most, found.memory_after)],
        ["as before after", "not within a minute" if found.recovered is None else f"{found.recovered:.2f} s"],
    ]
    print_table(["overload", kind], rows)
    save(output, asking.on | {"results": found.report()})


def soak(
    url: UrlOption = None,
    index: IndexOption = None,
    bundle: BundleOption = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="For so long.")] = 10.0,
    clients: Annotated[int, typer.Option(min=1, help="At once.")] = 16,
    texts: TextsOption = None,
    data: DataOption = None,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Ask everything in turn for long: how does memory grow after the first minute?"""
    _refuse_what_a_service_decides(url, index, bundle, threads)
    with _asking("soak", url, index, bundle, "native", None, texts, data, threads) as asking:
        from scripts.benchmarks.load import soak

        found = soak(asking.address, asking.requests, clients, minutes, asking.stage)
    print_table(["measured on", ""], [[name, str(value)] for name, value in asking.on.items()])
    growth = "unknown: there is no /metrics" if found.growth is None else f"{100 * found.growth:+.2f} %"
    rows = [
        ["answers", ", ".join(f"{count:,} x {status}" for status, count in found.statuses.items())],
        ["p50, p95, p99", _latency(found.latency)],
        ["memory early, most, late", _memory(found.memory_early, found.memory_most, found.memory_late)],
        ["grown after the first minute", growth],
    ]
    print_table([f"{clients} clients", f"{minutes:g} minutes"], rows)
    save(output, asking.on | {"results": found.report()})


def _refuse_what_a_service_decides(url: str | None, *decided: object) -> None:
    if url is not None and any(given is not None for given in decided):
        raise BadInput(
            "--index, --bundle and --threads, and DSE_BUNDLE, are for a service that is started: leave them out, or "
            f"--url {url}"
        )


@contextmanager
def _asking(
    benchmark: str,
    url: str | None,
    index: Path | None,
    bundle: Path | None,
    wire: str,
    wanted: list[str] | None,
    texts: Path | None,
    data: Path | None,
    threads: int | None,
    peer_url: str | None = None,
) -> Iterator[_Asking]:
    """A service at its address, or one that is started for as long as it is asked."""
    if wire not in ("native", "infinity", "tei"):
        raise BadInput(f"--wire {wire}: give native, infinity or tei")
    settings = settings_of(bundle, threads, index=index)

    from scripts.benchmarks.client import place_of
    from scripts.benchmarks.conditions import run_facts
    from scripts.benchmarks.service import started
    from scripts.benchmarks.texts import texts_of
    from scripts.benchmarks.workloads import KINDS, workloads

    for given in (url, peer_url):
        if given is not None:
            place_of(given)
    asked, source = texts_of(texts, data, "sentences", TEXTS)
    known = KINDS[wire] if url or settings.index else [kind for kind in KINDS[wire] if kind != "search"]
    if "search" in (wanted or known) and not (url or settings.index):
        raise BadInput("--kind search: give --index DIR, or the --url of a service that has one")
    requests = workloads(asked, wire, wanted or known)
    on = run_facts(benchmark, None if url else settings.threads)
    on |= {
        "texts": len(asked),
        "source": source,
        "wire": wire,
        "service": url or f"started with {settings.bundle.name}",
    }
    with ExitStack() as stack, progress_bar() as bar:
        task = bar.add_task("starting the service", total=None)
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dse-benchmark-")))
            serve = ["--bundle", str(settings.bundle), "--no-teacher", "--threads", str(settings.threads)]
            serve += ["--index", str(settings.index)] if settings.index else []
            module = ["scripts.dse", "serve", "--port", "0", *serve]
            url = stack.enter_context(started(module, folder / "log", {"DSE_READ_ONLY": "true"}))
        yield _Asking(url, requests, asked, settings, on, lambda words: bar.update(task, description=words))


def _alone(requests: Sequence[bytes], clients: int) -> float:
    """Requests a second that the client manages of a service that does nothing: far above what is measured, or else
    it is the client that was measured.
    """
    from scripts.benchmarks.load import Served
    from scripts.benchmarks.service import started

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dse-benchmark-")))
        address = stack.enter_context(started(["scripts.benchmarks.nobody"], folder / "log", {}))
        return round(Served("nobody", address, {"any": requests}).turn("any", clients, 1.0).per_second, 1)


def _within(asking: _Asking) -> "Within":
    from app.loading import load
    from scripts.benchmarks.within import Within

    service = load(asking.settings.model_copy(update={"teacher": None, "read_only": True}))
    measured = None if service.index is None else service.index.view().manifest.depth
    return Within(service, asking.texts, asking.settings.depth_for(measured))


def _pace(pace: "Result") -> list[str]:
    latency = pace.latency
    return [
        pace.kind,
        str(pace.clients),
        pace.target,
        f"{pace.per_second:,.1f}",
        *(["", "", ""] if latency is None else [f"{each:.2f}" for each in (latency.p50, latency.p95, latency.p99)]),
        "" if pace.server_cpu is None else f"{pace.server_cpu:.2f}",
        "" if pace.client_share is None else f"{100 * pace.client_share:.0f} %",
        ", ".join(f"{count} x {status}" for status, count in pace.failed.items()),
        "" if pace.ahead is None else str(pace.ahead),
        "" if pace.cpu_ahead is None else str(pace.cpu_ahead),
    ]


def _latency(latency: "Latency | None") -> str:
    return "" if latency is None else f"{latency.p50:.1f}, {latency.p95:.1f}, {latency.p99:.1f} ms"


def _memory(*held: float | None) -> str:
    return ", ".join("unknown" if each is None else f"{each / MEGABYTE:,.0f} MB" for each in held)
