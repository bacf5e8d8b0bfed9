"""Options that the studies share."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from scripts.console import BadInput, errors, written

if TYPE_CHECKING:  # a command that is only looked up loads no numpy: its threads are set first
    from scripts.studies.cells import Cell

Kind = Literal["softmax", "elu", "relu", "hedgehog"]
KINDS: list[Kind] = ["softmax", "elu", "relu", "hedgehog"]

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


def write_page(page: Path | None, text: str, pictures: Mapping[str, str]) -> None:
    """Write a study's page where it is wanted, and its pictures beside it.

    Raises:
        BadInput: one of them cannot be written.
    """
    if page is None:
        return
    for path, content in [(page, text), *((page.with_name(name), picture) for name, picture in pictures.items())]:
        with written(path, "w") as file:
            file.write(content)
