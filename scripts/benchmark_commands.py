"""dse benchmark: every timing that the documentation quotes, as JSON and as a table."""

import gzip
import json as json_lines
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts import load_commands, speed_commands
from scripts.console import errors, print_table, progress_bar, student_of, written
from scripts.options import BundleOption, DataOption
from scripts.speed_commands import OutputOption, save, settings_of

if TYPE_CHECKING:
    from scripts.benchmarks.conditions import Conditions
    from scripts.benchmarks.timing import Pace

IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="The index folder; it is not changed.")]
QueriesOption = Annotated[
    Path | None, typer.Option(help="What to ask, a query a line.", show_default="texts of documents")
]
DepthOption = Annotated[int | None, typer.Option(min=1, help="Candidates a query.", show_default="as served")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="DSE_THREADS")]
ScratchOption = Annotated[
    Path | None, typer.Option(help="A folder for a copy of the index.", show_default="the system's temporary one")
]

app = typer.Typer(help="Measure an index, the models and the service.", no_args_is_help=True)
app.command()(speed_commands.bundle)
app.command()(speed_commands.encode)
app.command()(speed_commands.claim)
app.command()(load_commands.http)
app.command()(load_commands.overload)
app.command()(load_commands.soak)


@app.command()
def corpus(
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl or .jsonl.gz file for dse index build.")],
    count: Annotated[int, typer.Option(min=1, help="Documents to write.")] = 1_000_000,
) -> None:
    """Write the sentences of a data folder as documents, each once, with a number to filter by in their metadata."""
    from scripts.benchmarks.corpus import documents

    with written(output, "wb") as file, progress_bar() as bar:
        task = bar.add_task("collecting", total=count)
        packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) if output.suffix == ".gz" else file
        for document in documents(data, count):
            packed.write(json_lines.dumps(document, ensure_ascii=False).encode() + b"\n")
            bar.advance(task)
        if packed is not file:
            packed.close()
    typer.echo(f"{count:,} documents -> {output}")


@app.command()
def search(
    index: IndexArgument,
    queries: QueriesOption = None,
    bundle: BundleOption = None,
    depth: DepthOption = None,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="At once.", show_default="1 and 8")] = None,
    searches: Annotated[int, typer.Option(min=1, help="Of each kind, at least.")] = 1000,
    changes: Annotated[int, typer.Option(min=0, help="Make so many changes first, to a copy.")] = 0,
    scratch: ScratchOption = None,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Time searches within this process beside bare calls of FAISS, in turns: what does the rest of a search cost?"""
    settings = settings_of(bundle, threads)

    from app.loading import open_index
    from scripts.benchmarks.conditions import conditions
    from scripts.benchmarks.scratch import change, queries_of, scratch_copy
    from scripts.benchmarks.search import EMBEDDING, FAISS, SEARCH, WITH_HEAD, Cost, measure

    student = student_of(settings)

    def measured(folder: Path) -> "tuple[list[Cost], Conditions, int]":
        with open_index(folder, student, writable=changes > 0) as live:
            if changes:
                change(live, changes)
            view = live.view()
            texts, asked = queries_of(queries, view)
            reach = depth or settings.depth_for(view.manifest.depth)
            on = conditions("search", view, student.name, settings.threads, len(texts), asked)
            return measure(live, student, texts, reach, clients or [1, 8], searches), on, reach

    if changes:
        with scratch_copy(index, scratch) as copy:
            costs, on, reach = measured(copy)
    else:
        costs, on, reach = measured(index)
    print_table(["measured on", ""], [*on.rows(), ["depth", str(reach)]])
    rows = [
        [str(cost.clients), name, *_paced(cost.paces[name]), f"{cost.paces[name].cpu_p50:.3f}"]
        for cost in costs
        for name in (EMBEDDING, FAISS, SEARCH, WITH_HEAD)
    ]
    print_table(["clients", "what", "p50 ms", "p99 ms", "a second", "cpu p50 ms"], rows)
    for cost in costs:
        for what, added in (("a search adds to the bare call", cost.wrapper), ("its head adds", cost.head)):
            typer.echo(
                f"clients {cost.clients}: {what} {added['milliseconds']} ms ({added['percent']} %), "
                f"computing {added['cpu_milliseconds']} ms ({added['cpu_percent']} %)"
            )
    save(output, on.report({"depth": reach, "costs": [cost.report() for cost in costs]}))


@app.command()
def filters(
    index: IndexArgument,
    queries: QueriesOption = None,
    bundle: BundleOption = None,
    field: Annotated[str, typer.Option(help="Of the metadata, a number of 0 to 9999.")] = "bucket",
    most: Annotated[int, typer.Option(min=1, help="Queries to ask, of those there are.")] = 200,
    depth: DepthOption = None,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Search among 50, 10, 1, 0.1 and 0.01 % of the documents: recall@10 against the exact answer, and time."""
    settings = settings_of(bundle, threads)

    from dataclasses import asdict

    from app.loading import open_index
    from scripts.benchmarks.conditions import conditions
    from scripts.benchmarks.filters import measure
    from scripts.benchmarks.scratch import queries_of

    student = student_of(settings)
    with open_index(index, student) as live:
        view = live.view()
        texts, asked = queries_of(queries, view)
        texts = texts[:most]
        reach = depth or settings.depth_for(view.manifest.depth)
        on = conditions("filters", view, student.name, settings.threads, len(texts), asked)
        sweeps = measure(view, student, texts, field, reach)
    print_table(["measured on", ""], [*on.rows(), ["depth", str(reach)]])
    rows = [
        [f"{100 * sweep.share:g} %", f"{sweep.documents:,}", f"{sweep.recall:.4f}",
         *_paced(sweep.search), f"{sweep.first_milliseconds:.1f}"]
        for sweep in sweeps
    ]  # fmt: skip
    print_table(["let through", "documents", "recall@10", "p50 ms", "p99 ms", "a second", "first ms"], rows)
    save(output, on.report({"depth": reach, "sweeps": [asdict(sweep) for sweep in sweeps]}))


@app.command()
def changes(
    index: IndexArgument,
    queries: QueriesOption = None,
    bundle: BundleOption = None,
    upserts: Annotated[int, typer.Option(min=1, help="Documents to write.")] = 10_000,
    batch: Annotated[int, typer.Option(min=1, help="Documents a request.")] = 100,
    clients: Annotated[int, typer.Option(min=1, help="That search at once.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of searching before and after.")] = 20.0,
    scratch: ScratchOption = None,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Write documents through HTTP while clients search, then compact: to a service of a copy, which it starts."""
    settings = settings_of(bundle, threads)

    from app.loading import open_index
    from scripts.benchmarks.changes import documents_to_write, measure
    from scripts.benchmarks.conditions import conditions
    from scripts.benchmarks.scratch import queries_of, scratch_copy

    student = student_of(settings)
    with scratch_copy(index, scratch) as copy:
        with open_index(copy, student) as live:
            view = live.view()
            texts, asked = queries_of(queries, view)
            documents = documents_to_write(view, upserts)
            on = conditions("changes", view, student.name, settings.threads, len(texts), asked)
        with progress_bar() as bar:
            task = bar.add_task("starting the service", total=None)
            found = measure(
                copy,
                settings.bundle,
                settings.threads,
                texts,
                documents,
                batch=batch,
                clients=clients,
                seconds=seconds,
                stage=lambda words: bar.update(task, description=words),
            )
    print_table(["measured on", ""], on.rows())
    rows = [
        [phase.name, f"{phase.seconds:.1f}", str(phase.failed), *(_paced(phase.searches) if phase.searches else [])]
        for phase in found.phases
    ]
    print_table([f"{clients} clients", "seconds", "failed", "p50 ms", "p99 ms", "a second"], rows)
    typer.echo(
        f"{found.upserts:,} upserts, {found.upserts_per_second:,.0f} a second in requests of {found.batch} "
        f"(p99 {found.puts.p99:.0f} ms, {found.failed_puts} failed); {found.lost} of {found.looked_for} looked for lost"
    )
    if found.compaction_fault:
        errors.print(f"not compacted: {found.compaction_fault}", markup=False)
    save(output, on.report({"clients": clients} | found.report()))


@app.command()
def places(
    index: IndexArgument,
    milvus: Annotated[str, typer.Argument(metavar="MILVUS", help="milvus://HOST:PORT/NAME, with the same documents.")],
    queries: QueriesOption = None,
    bundle: BundleOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Candidates a query.")] = 10,
    most: Annotated[int, typer.Option(min=1, help="Queries to ask, of those there are.")] = 1000,
    clients: Annotated[int, typer.Option(min=1, help="At once.")] = 1,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Ask a folder and a Milvus the same: how often both find the same documents, each one's recall, and the time."""
    settings = settings_of(bundle, threads)

    from app.loading import open_index
    from index.location import read_location
    from scripts.benchmarks.conditions import conditions
    from scripts.benchmarks.places import compare
    from scripts.benchmarks.scratch import queries_of

    student = student_of(settings)
    place = read_location(milvus)
    with (
        open_index(index, student) as live,
        open_index(place, student, access=settings.milvus_access()) as other,
    ):
        view = live.view()
        texts, asked = queries_of(queries, view)
        texts = texts[:most]
        on = conditions("places", view, student.name, settings.threads, len(texts), asked)
        found = compare(view, other.view(), student.encoder.encode(texts), k, clients)
        recipe = other.view().manifest.recipe
    print_table(["measured on", ""], [*on.rows(), ["Milvus", f"{place}, {recipe}"]])
    rows = [[name, f"{found.recall[name]:.4f}", *_paced(pace)] for name, pace in found.paces.items()]
    print_table([f"{clients} clients", f"recall@{k}", "p50 ms", "p99 ms", "a second"], rows)
    typer.echo(f"the same {k} for {100 * found.same:.2f} % of {found.queries:,} queries")
    facts = {"milvus": str(place), "milvus_recipe": recipe, "clients": clients}
    save(output, on.report(found.report() | facts))


def _paced(pace: "Pace") -> list[str]:
    return [f"{pace.p50:.3f}", f"{pace.p99:.3f}", f"{pace.per_second:,.1f}"]
