"""dse study: what the documentation claims of linear attention, measured again by anyone, cell by cell."""

import json as json_documents
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from scripts.console import BadInput, print_json, print_table, progress_bar, read_settings, written
from scripts.options import DataOption, JsonOption
from scripts.training_commands import InitOption, needs_torch, stages_on

app = typer.Typer(help="Measure attention of different kinds, cell by cell.", no_args_is_help=True)

Kind = Literal["softmax", "elu", "relu", "hedgehog"]
Style = Literal["dse", "tinybert", "minilm", "distilbert"]
KINDS: list[Kind] = ["softmax", "elu", "relu", "hedgehog"]
STYLES: list[Style] = ["dse", "tinybert", "minilm", "distilbert"]
LAYERS = [1, 2, 3, 4, 6]
SEEDS = [1, 2, 3]
DEPTH = Path(__file__).parent / "recipes" / "studies" / "depth.toml"
LENGTHS = [16, 64, 128, 256, 512, 1024, 2048, 4096]

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The study's folder; one that was stopped is taken up again.")
]
AttentionOption = Annotated[
    list[str] | None, typer.Option(help="softmax, elu, relu or hedgehog; repeats.", show_default="all")
]
MinutesOption = Annotated[
    float | None, typer.Option(min=0, help="Begin no cell after this long; run again for the rest.")
]


_T = TypeVar("_T", bound=str)


def _known(given: list[str] | None, known: list[_T]) -> list[_T]:
    """Those that were given, in their own order; all, if none was."""
    if unknown := sorted(set(given or []) - set(known)):
        raise BadInput(f"{', '.join(unknown)}: not one of {', '.join(known)}")
    return [name for name in known if given is None or name in given]


@app.callback()
def studies() -> None:
    """Measure attention of different kinds, cell by cell."""


@app.command()
def cost(
    init: Annotated[str, typer.Option(help="Folder or hub id of the weights: a BERT body.")],
    output: OutputOption,
    attention: AttentionOption = None,
    tokens: Annotated[list[int] | None, typer.Option(min=8, help="Repeats.", show_default="16 to 4096")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="DSE_THREADS")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Of timing, a cell.")] = 3.0,
    minutes: MinutesOption = None,
    json: JsonOption = False,
) -> None:
    """Time one pass over a text of so many tokens, in onnxruntime, fp32: each kind of attention in every layer."""
    needs_torch()
    import onnx

    from model.training.attention_recipe import PositionRecipe
    from model.training.graphs import to_onnx
    from model.training.networks import make_network
    from model.training.recipes import HeadRecipe, NetworkRecipe
    from scripts.studies import cost as study
    from scripts.studies.cells import Cell, Found, run_cells

    kinds, lengths = _known(attention, KINDS), sorted(tokens or LENGTHS)
    used = threads or read_settings().threads

    def graph_of(kind: Kind) -> Path:
        """The exported graph, for any length of the study; written once."""
        path = output / f"{kind}-{lengths[-1]}.onnx"
        if not path.exists():
            longest = max(lengths[-1], 512)
            recipe = NetworkRecipe(
                name=kind,
                kind="bi-encoder",
                init=init,
                attention=kind,
                positions=PositionRecipe(tokens=longest),
                max_tokens=longest,
                head=HeadRecipe(kind="cosine"),
                stages=[],
            )
            output.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            onnx.save(to_onnx(make_network(recipe, init).eval(), longest), partial)
            partial.replace(path)
        return path

    def measure(cell: Cell, _: Path) -> Found:
        return study.measured(graph_of(cell.facts["attention"]), cell.facts["tokens"], used, seconds)

    with progress_bar() as bar:
        task = bar.add_task("measuring", total=None)

        def progress(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        cells = study.cells(kinds, lengths, used, init)
        found = run_cells(cells, output, measure, minutes, progress)
    told = study.summary(found, kinds, lengths)
    report = {"study": "cost", "threads": used, "cells": found, "summary": told}
    (output / "cost.json").write_text(json_documents.dumps(report, indent=2) + "\n", "utf-8")
    if json:
        print_json(report)
        return
    print_table(*study.table(found, kinds, lengths))
    for kind, facts in told.items():
        typer.echo(f"{kind}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    if len(found) < len(cells):
        typer.echo(f"{len(cells) - len(found)} of {len(cells)} cells are left; run the same command again")


@app.command()
def depth(
    data: DataOption,
    output: OutputOption,
    init: InitOption = None,
    attention: AttentionOption = None,
    style: Annotated[
        list[str] | None, typer.Option(help="dse, tinybert, minilm or distilbert; repeats.", show_default="all")
    ] = None,
    layers: Annotated[list[int] | None, typer.Option(min=1, help="Repeats.", show_default="1, 2, 3, 4, 6")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeats.", show_default="1, 2, 3")] = None,
    recipe: Annotated[Path, typer.Option(help="What every student is trained by.", show_default="shipped")] = DEPTH,
    minutes: MinutesOption = None,
    page: Annotated[Path | None, typer.Option(help="Write the table here, as Markdown.")] = None,
) -> None:
    """Train students of every depth, attention and style on the same budget, and judge them on STS-B."""
    needs_torch()
    from model.training.pairs import TrainingData
    from model.training.recipes import DistillationRecipe, read_recipe
    from scripts.studies import depth as study
    from scripts.studies.cells import Cell, Found, run_cells

    base = read_recipe(recipe, DistillationRecipe)
    network = base.network if init is None else base.network.model_copy(update={"init": init})
    training_data = TrainingData(data, base.data)
    wanted = study.students(_known(attention, KINDS), _known(style, STYLES), layers or LAYERS)
    cells = [student.cell(number, network.init) for number in seed or SEEDS for student in wanted]
    whole = study.parent_layers(network, init)
    with progress_bar() as bar:
        stages = stages_on(bar)

        def measure(cell: Cell, folder: Path) -> Found:
            trained = study.recipe_of(network, study.Student.of(cell), cell.facts["seed"], whole)

            def progress(stage: str, done: int, total: int) -> None:
                stages(f"{cell.name}: {stage}", done, total)

            return study.train_and_judge(trained, training_data, init, folder, output / "parent", progress)

        found = run_cells(cells, output, measure, minutes, lambda *_: None)
    rows, correlations = study.rows(cells, found, output), study.depth_correlations(cells, found)
    spent = sum(cell["train_cpu_seconds"] for cell in found.values())
    budget = f"{len(found)} of {len(cells)} runs, {spent / 3600:.1f} CPU hours of training."
    text = study.markdown(rows, correlations, budget)
    (output / "depth.json").write_text(
        json_documents.dumps({"study": "depth", "cells": found, "correlations": correlations}, indent=2) + "\n", "utf-8"
    )
    if page is not None:
        with written(page, "w") as file:
            file.write(text)
    typer.echo(text)
