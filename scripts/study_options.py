"""Options that the studies share."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from scripts.console import BadInput, errors, written

if TYPE_CHECKING:  # a command that is only looked up loads no numpy: its threads are set first
    from scripts.studies.cells import Cell

Kind = Literal["softmax", "elu", "relu", "hedgehog"]
KINDS: list[Kind] = ["softmax", "elu", "relu", "hedgehog"]

ParentOption = Annotated[
    str | None, typer.Option("--init", help="Folder or hub id of the weights to start from, instead of the recipe's.")
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The study's folder; one that was stopped is taken up again.")
]
AttentionOption = Annotated[
    list[str] | None, typer.Option(help="softmax, elu, relu or hedgehog; repeats.", show_default="all")
]
MinutesOption = Annotated[
    float | None, typer.Option(min=0, help="Begin no cell after this long; run again for the rest.")
]
PageOption = Annotated[
    Path | None, typer.Option(help="Write the tables here, as Markdown, and the pictures beside it.")
]
EstimateOption = Annotated[
    bool, typer.Option("--estimate", help="Only say how long the cells that are left would take.")
]

_T = TypeVar("_T", bound=str)


def known(given: list[str] | None, names: list[_T]) -> list[_T]:
    """Those that were given, in their own order; all, if none was.

    Raises:
        BadInput: one of them is not among the names.
    """
    if unknown := sorted(set(given or []) - set(names)):
        raise BadInput(f"{', '.join(unknown)}: not one of {', '.join(names)}")
    return [name for name in names if given is None or name in given]


def announce(cells: Sequence["Cell"], output: Path, price: Callable[[list["Cell"]], float]) -> None:
    """Say how much computing the cells that are not done yet will take: before any of it is spent."""
    from scripts.studies.cells import RESULT

    left = [cell for cell in cells if not (output / cell.name / RESULT).exists()]
    if left:
        errors.print(
            f"{len(left)} of {len(cells)} cells are left: about {price(left) / 3600:.1f} CPU hours", markup=False
        )


def conclude(
    output: Path,
    report: Mapping[str, Any],
    page: Path | None,
    text_of: Callable[[Mapping[str, str]], str],
    pictures: Mapping[str, tuple[str, str]],
) -> str:
    """Write what a study found into its folder, and its page and pictures where they are wanted.

    Args:
        output: the study's folder.
        report: everything that was found; ``study`` names the file.
        page: where the page goes; its pictures lie beside it.
        text_of: the page, of what each picture shows by its file name.
        pictures: by file name, what each shows, and the picture.

    Returns:
        The page.

    Raises:
        BadInput: one of them cannot be written.
    """
    text = text_of({file: title for file, (title, _) in pictures.items()})
    output.mkdir(parents=True, exist_ok=True)  # no cell may have begun
    (output / f"{report['study']}.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if page is not None:
        beside = [(page.with_name(file), picture) for file, (_, picture) in pictures.items()]
        for path, content in [(page, text), *beside]:
            with written(path, "w") as file:
                file.write(content)
    return text
