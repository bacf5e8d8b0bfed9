"""dse index: build an index, change it and look at it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.console import BadInput, batches, print_json, print_table, progress_bar, read_lines, read_settings
from scripts.options import BundleOption, JsonOption

if TYPE_CHECKING:
    from index.view import View

DOCUMENTS_PER_TRANSACTION = 1024

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The index folder.")]
InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="INPUT...", help=".jsonl, .csv, .tsv, .parquet, .txt, or -")
]
IdColumnOption = Annotated[str, typer.Option(help="Column or field that holds the id.")]
TextColumnOption = Annotated[str, typer.Option(help="Column or field that holds the text.")]

app = typer.Typer(help="Build an index, change it, and look at it.", no_args_is_help=True)


@app.command()
def build(
    inputs: InputsArgument,
    output: Annotated[Path, typer.Option(help="The index folder, new or existing.")],
    bundle: BundleOption = None,
    recipe: Annotated[str, typer.Option(help="A FAISS index_factory string.")] = "Flat",
    id_column: IdColumnOption = "id",
    text_column: TextColumnOption = "text",
    json: JsonOption = False,
) -> None:
    """Embed documents with a bundle and publish them as the live generation of an index."""
    from app.loading import identity
    from index.build import build as build_index
    from index.generations import current_name
    from index.sources import Columns, read_documents
    from model.bundle import load_student

    settings = read_settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    with progress_bar() as bar:
        task = bar.add_task("embedding", total=None)
        manifest = build_index(
            read_documents(inputs, Columns(id_column, text_column)),
            student.encoder.encode,
            student.encoder.dims,
            identity(student),
            output,
            recipe,
            progress=lambda documents: bar.update(task, completed=documents),
        )
        bar.update(task, total=manifest.documents)
    if json:
        print_json({"index": str(output), "generation": current_name(output)} | manifest.model_dump())
    else:
        typer.echo(f"{manifest.documents:,} documents, {recipe} -> {output} ({current_name(output)})")


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
def compact(folder: FolderArgument, json: JsonOption = False) -> None:
    """Fold the changes of an index into its next generation, while it is searched and changed."""
    from index.live import LiveIndex

    with LiveIndex.open(folder, None, writable=True) as index:
        view = index.compact()
    _say(folder, view, json)


@app.command()
def rebuild(folder: FolderArgument, bundle: BundleOption = None, json: JsonOption = False) -> None:
    """Embed an index's own texts with another bundle, while the generation before is searched and changed."""
    from app.loading import identity
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
        "recipe": facts.recipe,
        "encoder": f"{facts.encoder.name} ({facts.encoder.digest[:12]})",
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


def _state(folder: Path, view: "View") -> dict[str, Any]:
    return {"index": str(folder), "generation": view.name, "documents": len(view), "changes_pending": view.pending}


def _told(folder: Path, view: "View") -> str:
    return f"{folder} ({view.name}, {len(view):,} documents, {view.pending:,} changes pending)"


def _say(folder: Path, view: "View", json: bool) -> None:
    if json:
        print_json(_state(folder, view))
    else:
        typer.echo(_told(folder, view))
