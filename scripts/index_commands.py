"""dse index: build an index, change it and look at it."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.console import BadInput, batches, print_json, print_table, progress_bar, read_lines, read_settings
from scripts.options import BundleOption, JsonOption
from scripts.use_commands import read_queries

if TYPE_CHECKING:
    from index.manifest import GenerationManifest
    from index.view import View

DOCUMENTS_PER_TRANSACTION = 1024

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The index folder.")]
InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="INPUT...", help=".jsonl, .csv, .tsv, .txt (also .gz), .parquet, or -")
]
IdColumnOption = Annotated[str, typer.Option(help="Column or field that holds the id.")]
TextColumnOption = Annotated[str, typer.Option(help="Column or field that holds the text.")]

app = typer.Typer(help="Build an index, change it, and look at it.", no_args_is_help=True)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class RankBy(StrEnum):
    """What FAISS may rank by."""

    SIMILARITY = "similarity"
    HEAD = "head"


class OnError(StrEnum):
    """What to do about a line that is not a document."""

    STOP = "stop"
    SKIP = "skip"


@app.command()
def build(
    inputs: InputsArgument,
    output: Annotated[Path, typer.Option(help="The index folder, new or existing.")],
    bundle: BundleOption = None,
    recipe: Annotated[
        str | None, typer.Option(help="A FAISS index_factory string.", show_default="by rows and memory")
    ] = None,
    target_recall: Annotated[
        float, typer.Option(help="Recall@10 that must be proven, or nothing is published.")
    ] = 0.95,
    queries: Annotated[
        Path | None, typer.Option(help="What will be asked, a query a line: 1,000 or more.", show_default="documents")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What making the FAISS index may take: 500MB, 4GiB.", show_default="no bound")
    ] = None,
    rank_by: Annotated[RankBy, typer.Option(help="What FAISS ranks by; head: a quadratic one.")] = RankBy.SIMILARITY,
    id_column: IdColumnOption = "id",
    text_column: TextColumnOption = "text",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from an unfinished build, or give it up and begin again.")
    ] = True,
    on_error: Annotated[OnError, typer.Option(help="At a line that is not a document.")] = OnError.STOP,
    rejects: Annotated[Path | None, typer.Option(help="With skip: write such lines here, as JSON lines.")] = None,
    json: JsonOption = False,
) -> None:
    """Embed documents with a bundle and publish them as the live generation of an index."""
    from app.loading import head_vectors, identity
    from index.build import build as build_index
    from index.finish import SearchWanted
    from index.generations import current_name
    from index.recall import Aim
    from index.sources import Columns, Inputs, Rejects
    from model.bundle import load_student
    from scripts.build_progress import BuildProgress

    if rejects is not None:
        if on_error is OnError.STOP:
            raise BadInput("--rejects needs --on-error skip")
        if any(rejects.resolve() == path.resolve() for path in inputs):
            raise BadInput(f"{rejects} is an input; give --rejects another file")
    settings = read_settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    head = head_vectors(student) if rank_by == RankBy.HEAD else None
    if rank_by == RankBy.HEAD and head is None:
        raise BadInput(f"FAISS cannot rank by the head of {student.name}: it is no quadratic one; leave --rank-by out")
    aim = Aim(
        target_recall,
        queries=None if queries is None else student.encoder.encode(read_queries(queries)),
        scores=lambda query, embeddings: student.head.logits(query[None], embeddings),
    )
    search = SearchWanted(None if memory is None else _bytes(memory), aim, head)
    with Rejects(rejects) as rejected, progress_bar() as bar:
        passed_over = rejected if on_error is OnError.SKIP else None
        source = Inputs(inputs, Columns(id_column, text_column), passed_over)
        manifest = build_index(
            source,
            student.encoder.encode,
            student.encoder.dims,
            identity(student),
            output,
            recipe,
            resume=resume,
            rejects=passed_over,
            share_read=source.share_read,
            watcher=BuildProgress(bar),
            encode_batches=student.encoder.encode_batches,
            search=search,
        )
    if json:
        answer = {"index": str(output), "generation": current_name(output), "rejected": rejected.count}
        print_json(answer | manifest.model_dump())
    else:
        typer.echo(f"{manifest.documents:,} documents, {manifest.recipe} -> {output} ({current_name(output)})")
        typer.echo(f"recall {_recall(manifest)}")
        if rejected.count:
            where = f", written to {rejects}" if rejects else "; --rejects FILE writes them down"
            typer.echo(f"{rejected.count:,} lines passed over{where}")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Z]*)", text.strip().upper())
    if found is None or found[2] not in _UNITS:
        raise BadInput(f"--memory {text!r} is no number of bytes; write 500MB, 4GiB or 2000000000")
    return int(float(found[1]) * _UNITS[found[2]])


def _recall(facts: "GenerationManifest") -> str:
    """What was proven of the search, in a line."""
    proof = facts.proof
    if proof is None:
        return "not proven"
    if proof.method == "exhaustive":
        return "exact: every document is compared"
    return (
        f"{proof.recall:.4f} @{proof.k}, at least {proof.lower_bound:.4f} (target {proof.target}; "
        f"{proof.queries:,} {proof.asked}, {proof.method})"
    )


def _search_facts(facts: "GenerationManifest") -> dict[str, str]:
    """How a generation is searched and what that was shown to find, for people."""
    rows = {"recall": _recall(facts)}
    tuned = facts.search | ({"refine": facts.refine} if facts.refine > 1 else {})
    if tuned:
        rows["search"] = ", ".join(f"{name} {value}" for name, value in tuned.items())
    if facts.head is not None:
        rows["ranked by"] = f"the head of {facts.head.name} ({facts.head.digest[:12]})"
    if facts.proof is not None:
        rows["index size"] = f"{facts.proof.index_bytes:,} bytes"
        if facts.proof.curve:
            rows["curve"] = ", ".join(f"{value}: {recall:.3f}" for value, recall in sorted(facts.proof.curve.items()))
        if facts.proof.end_to_end is not None:
            reached = sorted(facts.proof.end_to_end.recall.items())
            rows["end to end"] = ", ".join(f"depth {depth}: {recall:.3f}" for depth, recall in reached)
    if facts.depth is not None:
        rows["depth"] = f"{facts.depth:,}"
    if took := facts.measured.get("search_milliseconds"):
        rows["search time"] = f"p50 {took['p50']} ms, p99 {took['p99']} ms for {took['depth']} candidates"
    return rows


@app.command()
def add(
    folder: FolderArgument,
    inputs: InputsArgument,
    bundle: BundleOption = None,
    id_column: IdColumnOption = "id",
    text_column: TextColumnOption = "text",
    json: JsonOption = False,
) -> None:
    """Add documents to an index, or replace them by id; whoever serves it finds them with the next search."""
    from app.loading import open_index
    from index.sources import Columns, read_documents
    from model.bundle import load_student

    settings = read_settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    counts = {"created": 0, "updated": 0}
    with open_index(folder, student, writable=True) as index, progress_bar() as bar:
        task = bar.add_task("adding", total=None)
        for batch in batches(read_documents(inputs, Columns(id_column, text_column)), DOCUMENTS_PER_TRANSACTION):
            documents = [sourced.document for sourced in batch]
            embeddings = student.encoder.encode([document.text for document in documents])
            for status in index.upsert(documents, embeddings):
                counts[status] += 1
            bar.advance(task, len(batch))
        view = index.view()
    if json:
        print_json(_state(folder, view) | counts)
    else:
        typer.echo(f"{counts['created']:,} documents created, {counts['updated']:,} updated -> {_told(folder, view)}")


@app.command()
def delete(
    folder: FolderArgument,
    ids: Annotated[list[str] | None, typer.Argument(metavar="IDS...", help="Ids of documents.")] = None,
    file: Annotated[Path | None, typer.Option("--ids", help="A file of ids, one a line.")] = None,
    json: JsonOption = False,
) -> None:
    """Remove documents from an index; the next search does not find them."""
    from index.live import LiveIndex

    if bool(ids) == (file is not None):
        raise BadInput("give either ids or --ids FILE: dse index delete DIR a/1 a/2")
    wanted = [line for _, line in read_lines(file, "ids")] if file is not None else ids or []
    with LiveIndex.open(folder, None, writable=True) as index:
        deleted = index.delete(wanted)
        view = index.view()
    unknown = len(set(wanted)) - deleted
    if json:
        print_json(_state(folder, view) | {"deleted": deleted, "unknown": unknown})
    else:
        typer.echo(f"{deleted:,} documents deleted, {unknown:,} ids unknown -> {_told(folder, view)}")


@app.command()
def compact(folder: FolderArgument, bundle: BundleOption = None, json: JsonOption = False) -> None:
    """Fold the changes of an index into its next generation, while it is searched and changed.

    The bundle is read only where FAISS ranks by its head.
    """
    from app.loading import open_index
    from index.generations import live_home
    from index.live import LiveIndex
    from index.manifest import GenerationManifest
    from model.bundle import load_student

    def opened() -> LiveIndex:
        if GenerationManifest.read(live_home(folder)).head is None:
            return LiveIndex.open(folder, None, writable=True)
        settings = read_settings()
        return open_index(folder, load_student(bundle or settings.bundle, settings.threads), writable=True)

    with opened() as index:
        view = index.compact()
    _say(folder, view, json)


@app.command()
def rebuild(folder: FolderArgument, bundle: BundleOption = None, json: JsonOption = False) -> None:
    """Embed an index's own texts with another bundle, while the generation before is searched and changed."""
    from app.loading import head_vectors, identity
    from index.rebuild import rebuild as rebuild_index
    from model.bundle import load_student

    settings = read_settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    with progress_bar() as bar:
        task = bar.add_task("embedding", total=None)
        view = rebuild_index(
            folder,
            student.encoder.encode,
            student.encoder.dims,
            identity(student),
            head_vectors(student),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _say(folder, view, json)


@app.command()
def snapshot(
    folder: FolderArgument,
    out: Annotated[Path, typer.Argument(help="Where to; must not exist.")],
    json: JsonOption = False,
) -> None:
    """Copy an index as it is at one moment, while it is searched and changed."""
    from index.snapshot import snapshot as copy

    _say(out, copy(folder, out), json)


@app.command()
def info(folder: Path, json: JsonOption = False) -> None:
    """Say what the live generation of an index holds."""
    from index.generations import GENERATIONS, current_name, last_change
    from index.manifest import GenerationManifest

    name = current_name(folder)
    facts = GenerationManifest.read(folder / GENERATIONS / name)
    pending = last_change(folder) - facts.changes_through
    if json:
        print_json({"generation": name, "changes_pending": pending} | facts.model_dump())
        return
    rows = {
        "generation": name,
        "documents": f"{facts.documents:,}",
        "changes since": f"{pending:,}",
        "dimensions": str(facts.dims),
        "recipe": facts.recipe + (f" ({facts.named} does not suit them now)" if _left(facts) else ""),
        "encoder": f"{facts.encoder.name} ({facts.encoder.digest[:12]})",
        **_search_facts(facts),
        "created": str(facts.measured.get("created")),
    }
    print_table(["", ""], [[name, value] for name, value in rows.items()])


@app.command()
def verify(folder: Path) -> None:
    """Compare every file of the live generation, and every change since, with its digest, and all with each other."""
    from index.live import LiveIndex

    with LiveIndex.open(folder, None) as index:
        view = index.view()
    typer.echo(
        f"{folder}: generation {view.name} is whole ({len(view.generation):,} documents), and so are the "
        f"{view.pending:,} changes since"
    )


def _left(facts: "GenerationManifest") -> bool:
    """Is the recipe another than the one that was named?"""
    return facts.named not in (None, facts.recipe)


def _state(folder: Path, view: "View") -> dict[str, Any]:
    return {"index": str(folder), "generation": view.name, "documents": len(view), "changes_pending": view.pending}


def _told(folder: Path, view: "View") -> str:
    return f"{folder} ({view.name}, {len(view):,} documents, {view.pending:,} changes pending)"


def _say(folder: Path, view: "View", json: bool) -> None:
    if json:
        print_json(_state(folder, view))
    else:
        typer.echo(_told(folder, view))
