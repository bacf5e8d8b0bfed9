"""dse data: text to try the service on."""

import json
from pathlib import Path
from typing import Annotated

import typer

from scripts.console import written

app = typer.Typer(help="Text to try the service on.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Text to try the service on."""


@app.command()
def stdlib(
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl file for dse index build.")],
) -> None:
    """Write the docstrings of Python's standard library as documents, one a function, class or method."""
    from scripts.stdlib_corpus import documents

    output.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(document, ensure_ascii=False) + "\n" for document in documents()]
    with written(output, "w") as file:
        file.writelines(lines)
    typer.echo(f"{len(lines):,} documents -> {output}")
