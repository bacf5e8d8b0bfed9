"""dse index: build an index and look at it."""

from pathlib import Path
from typing import Annotated

import typer

from scripts.console import print_json, print_table, progress_bar, read_settings
from scripts.options import BundleOption, JsonOption

app = typer.Typer(help="Build an index, and look at it.", no_args_is_help=True)


@app.command()
def build(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=".jsonl, .csv, .tsv, .parquet, .txt, or -")],
    output: Annotated[Path, typer.Option(help="The index folder, new or existing.")],
    bundle: BundleOption = None,
    recipe: Annotated[str, typer.Option(help="A FAISS index_factory string.")] = "Flat",
    id_column: Annotated[str, typer.Option(help="Column or field that holds the id.")] = "id",
    text_column: Annotated[str, typer.Option(help="Column or field that holds the text.")] = "text",
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
