"""dse data: public data sets, and text to try the service on."""

import json as json_lines
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scripts.console import BadInput, print_json, progress_bar, written
from scripts.options import JsonOption

app = typer.Typer(help="Public data sets, and text to try the service on.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Public data sets, and text to try the service on."""


@app.command()
def get(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Sets, as --list names them.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The data folder that recipes read.")] = None,
    copy: Annotated[Path | None, typer.Option("--from", help="A local copy, instead of the hub.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Say which sets there are.")] = False,
    force: Annotated[bool, typer.Option(help="Write again what is there, and download it again.")] = False,
    any_count: Annotated[bool, typer.Option("--any-count", help="Take other row counts than those published.")] = False,
    json: JsonOption = False,
) -> None:
    """Get public data sets by name, from the Hugging Face hub or a local copy, in the form that recipes read."""
    from scripts.datasets.catalogue import CATALOGUE
    from scripts.datasets.get import Got
    from scripts.datasets.get import get as get_set
    from scripts.datasets.hub import from_hub
    from scripts.datasets.local import from_copy, names_in

    if show:
        _list_sets(json)
        return
    if not names or output is None:
        raise BadInput("give the names of some sets and --output DIR; dse data get --list names them all")
    known = sorted(CATALOGUE.keys() | (names_in(copy) if copy else set()))
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"no set is called {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    got: dict[str, list[Got]] = {}
    for name in dict.fromkeys(names):
        with progress_bar() as bar:
            supplies = from_copy(copy, name) if copy else from_hub(name, bar, again=force)
            got[name] = get_set(supplies, output / name, bar, force, any_count)
        if not json:
            typer.echo("\n".join(f"{name}/{file}" for file in got[name]))
            if name in CATALOGUE:
                typer.echo(f"terms of {name}: {CATALOGUE[name].terms}")
    if json:
        print_json({name: [asdict(file) for file in files] for name, files in got.items()})


def _list_sets(json: bool) -> None:
    from scripts.datasets.catalogue import CATALOGUE

    if json:
        print_json(
            {
                name: {
                    "source": found.sources,
                    "terms": found.terms,
                    "rows": {part.file: part.rows for part in found.parts},
                }
                for name, found in CATALOGUE.items()
            }
        )
        return
    for name, found in CATALOGUE.items():
        typer.echo(f"{name}: {found.size}\n    from {found.sources}\n    terms: {found.terms}")


@app.command()
def stdlib(
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl file for dse index build.")],
) -> None:
    """Write the docstrings of Python's standard library as documents, one a function, class or method."""
    from scripts.stdlib_corpus import documents

    output.parent.mkdir(parents=True, exist_ok=True)
    lines = [json_lines.dumps(document, ensure_ascii=False) + "\n" for document in documents()]
    with written(output, "w") as file:
        file.writelines(lines)
    typer.echo(f"{len(lines):,} documents -> {output}")
