"""dse index: build an index and look at it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scripts.console import BadInput, print_json, print_table, progress_bar, read_settings
from scripts.options import BundleOption, JsonOption

app = typer.Typer(help="Build an index, and look at it.", no_args_is_help=True)


class OnError(StrEnum):
    """What to do about a line that is not a document."""

    STOP = "stop"
    SKIP = "skip"


@app.command()
def build(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help=".jsonl, .csv, .tsv, .txt (also .gz), .parquet, or -")
    ],
    output: Annotated[Path, typer.Option(help="The index folder, new or existing.")],
    bundle: BundleOption = None,
    recipe: Annotated[str, typer.Option(help="A FAISS index_factory string.")] = "Flat",
    id_column: Annotated[str, typer.Option(help="Column or field that holds the id.")] = "id",
    text_column: Annotated[str, typer.Option(help="Column or field that holds the text.")] = "text",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from an unfinished build, or give it up and begin again.")
    ] = True,
    on_error: Annotated[OnError, typer.Option(help="At a line that is not a document.")] = OnError.STOP,
    rejects: Annotated[Path | None, typer.Option(help="With skip: write such lines here, as JSON lines.")] = None,
    json: JsonOption = False,
) -> None:
    """Embed documents with a bundle and publish them as the live generation of an index."""
    from app.loading import identity
    from index.build import build as build_index
    from index.generations import current_name
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
        )
    if json:
        answer = {"index": str(output), "generation": current_name(output), "rejected": rejected.count}
        print_json(answer | manifest.model_dump())
    else:
        typer.echo(f"{manifest.documents:,} documents, {recipe} -> {output} ({current_name(output)})")
        if rejected.count:
            where = f", written to {rejects}" if rejects else "; --rejects FILE writes them down"
            typer.echo(f"{rejected.count:,} lines passed over{where}")


@app.command()
def info(folder: Path, json: JsonOption = False) -> None:
    """Say what the live generation of an index holds."""
    from index.generations import GENERATIONS, current_name
    from index.manifest import GenerationManifest

    name = current_name(folder)
    facts = GenerationManifest.read(folder / GENERATIONS / name)
    if json:
        print_json({"generation": name} | facts.model_dump())
        return
    rows = {
        "generation": name,
        "documents": f"{facts.documents:,}",
        "dimensions": str(facts.dims),
        "recipe": facts.recipe,
        "encoder": f"{facts.encoder.name} ({facts.encoder.digest[:12]})",
        "created": str(facts.measured.get("created")),
    }
    print_table(["", ""], [[name, value] for name, value in rows.items()])


@app.command()
def verify(folder: Path) -> None:
    """Compare every file of the live generation with its digest, and the files with each other."""
    from index.generations import Generation

    generation = Generation.open(folder)
    typer.echo(f"{folder}: generation {generation.name} is whole ({len(generation):,} documents)")
