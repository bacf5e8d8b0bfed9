"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

BundleOption = Annotated[
    Path | None, typer.Option(envvar="DSE_BUNDLE", help="The student's bundle.", show_default="shipped")
]
LongTextOption = Annotated[
    str | None,
    typer.Option(
        envvar="DSE_LONG_TEXT",
        help="Of texts that are longer than the student reads: truncate, or chunk (the mean of their pieces).",
        show_default="truncate",
    ),
]
InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...", help="Files, folders or URLs of .jsonl, .csv, .tsv, .txt (also .gz), .parquet; or -"
    ),
]
DataOption = Annotated[Path, typer.Option(envvar="DSE_DATA", help="Folder that the recipe's paths are below.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer as JSON, for a program.")]
