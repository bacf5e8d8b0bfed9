"""dse tasks: the pair tasks of the DSE paper, teacher against student, each from one recipe."""

from pathlib import Path
from typing import Annotated

import typer

from scripts.console import BadInput, print_table, progress_bar, written
from scripts.options import DataOption
from scripts.training_commands import InitOption, needs_torch, stages_on

app = typer.Typer(help="The pair tasks of the DSE paper: teacher against student.", no_args_is_help=True)

RECIPES = Path(__file__).parent / "recipes" / "tasks"


@app.command()
def run(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="A folder of runs, one a task; what is unfinished is taken up again.")],
    names: Annotated[list[str] | None, typer.Argument(help="Tasks, by their recipes; all, if none is named.")] = None,
    init: InitOption = None,
    recipes: Annotated[Path, typer.Option(help="Folder of task recipes.", show_default="shipped")] = RECIPES,
) -> None:
    """Train a teacher and a student for each task, and judge both."""
    needs_torch()
    from model.training.recipes import TaskRecipe, read_recipe
    from model.training.tasks import run_task

    known = {path.stem: path for path in sorted(recipes.glob("*.toml"))}
    if unknown := [name for name in names or [] if name not in known]:
        raise BadInput(f"{recipes} has no recipe for {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    wanted = {name: read_recipe(known[name], TaskRecipe) for name in names or known}
    rows = []
    with progress_bar() as bar:
        for name, recipe in wanted.items():
            found = run_task(recipe, data, init, output / name, stages_on(bar))
            values = [found[part]["dev"][recipe.figure] for part in ("teacher", "student")]
            rows.append([recipe.name, recipe.figure, *(f"{value:.2f}" for value in values)])
    print_table(["dev", "figure", "teacher", "student"], rows)
    typer.echo(f"next: dse tasks table {output}")


@app.command()
def table(
    runs: Annotated[Path, typer.Argument(help="Folder written by dse tasks run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The Markdown file to write.")] = Path("docs/tasks.md"),
) -> None:
    """Write what the runs found as one table."""
    from scripts.task_table import markdown, read_results

    text = markdown(read_results(runs))
    with written(output, "w") as file:
        file.write(text)
    typer.echo(f"{output} written")
