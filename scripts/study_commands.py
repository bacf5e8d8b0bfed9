"""dse study: what the documentation claims of linear attention and of many shards, found again by anyone."""

from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import typer

from scripts.console import BadInput, check_place, print_json, print_table, progress_bar, read_settings
from scripts.options import DataOption, JsonOption
from scripts.study_length_command import length
from scripts.study_options import (
    KINDS,
    AttentionOption,
    EstimateOption,
    Kind,
    MinutesOption,
    OutputOption,
    PageOption,
    ParentOption,
    announce,
    conclude,
    known,
)
from scripts.training_commands import needs_torch, stages_on

app = typer.Typer(
    help="Measure attention of different kinds, cell by cell; simulate many shards.", no_args_is_help=True
)

Style = Literal["dse", "tinybert", "minilm", "distilbert"]
STYLES: list[Style] = ["dse", "tinybert", "minilm", "distilbert"]
LAYERS = [1, 2, 3, 4, 6]
SEEDS = [1, 2, 3]
DEPTH = Path(__file__).parent / "recipes" / "studies" / "depth.toml"
SHARDS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
LENGTHS = [16, 64, 128, 256, 512, 1024, 2048, 4096]


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
    page: PageOption = None,
    json: JsonOption = False,
) -> None:
    """Time one pass over a text of so many tokens, in onnxruntime, fp32: each kind of attention in every layer."""
    needs_torch()
    if page:
        check_place(page)
    import onnx

    from model.training.attention_recipe import PositionRecipe
    from model.training.graphs import to_onnx
    from model.training.network_recipe import HeadRecipe, NetworkRecipe
    from model.training.networks import make_network
    from model.training.runs import weights_digest
    from scripts.studies import cost as study
    from scripts.studies.cells import Cell, Found, run_cells

    kinds, lengths = known(attention, KINDS), sorted(tokens or LENGTHS)
    used, weights = threads or read_settings().threads, weights_digest(init)

    def graph_of(kind: Kind) -> Path:
        """The exported graph of these weights, for any length of the study; written once."""
        path = output / f"{kind}-{lengths[-1]}-{sha256(weights.encode()).hexdigest()[:8]}.onnx"
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

        cells = study.cells(kinds, lengths, used, weights)
        found = run_cells(cells, output, measure, minutes, progress)
    told = study.summary(found, kinds, lengths)
    report = {"study": "cost", "threads": used, "cells": found, "summary": told}
    text_of = partial(study.markdown, found, kinds, lengths, used)
    conclude(output, report, page, text_of, study.pictures(found, kinds, lengths))
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
    init: ParentOption = None,
    attention: AttentionOption = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            help="Of softmax students besides dse: tinybert, minilm or distilbert; repeats.", show_default="all"
        ),
    ] = None,
    layers: Annotated[list[int] | None, typer.Option(min=1, help="Repeats.", show_default="1, 2, 3, 4, 6")] = None,
    mixed: Annotated[
        list[str] | None,
        typer.Option(help="Attention that only the top layers of the deepest have; repeats.", show_default="hedgehog"),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeats.", show_default="1, 2, 3")] = None,
    recipe: Annotated[Path, typer.Option(help="What every student is trained by.", show_default="shipped")] = DEPTH,
    minutes: MinutesOption = None,
    estimate: EstimateOption = False,
    page: PageOption = None,
) -> None:
    """Train students of every depth, attention and style on the same budget, and judge them on STS-B."""
    needs_torch()
    if page:
        check_place(page)
    from model.training.networks import weights_of
    from model.training.pairs import TrainingData
    from model.training.recipes import DistillationRecipe, read_recipe
    from model.training.runs import weights_digest
    from scripts.studies import depth as study
    from scripts.studies import depth_report
    from scripts.studies.cells import Cell, Found, run_cells
    from scripts.studies.depth_price import price

    base = read_recipe(recipe, DistillationRecipe)
    network = base.network if init is None else base.network.model_copy(update={"init": init})
    training_data = TrainingData(data, base.data)
    mixed_kinds = known(["hedgehog"] if mixed is None else mixed, KINDS[1:])
    depths = list(dict.fromkeys(layers or LAYERS))
    wanted = study.students(known(attention, KINDS), known(style, STYLES), depths, mixed_kinds)
    weights, read = weights_digest(weights_of(network.init, init)), study.data_of(network, base.data, data)
    whole = study.parent_layers(network, init)
    cells = [
        student.cell(study.recipe_of(network, student, number, whole), weights, read)
        for number in dict.fromkeys(seed or SEEDS)
        for student in wanted
    ]
    with progress_bar() as bar:
        stages = stages_on(bar)
        announce(cells, output, lambda left: price(network, training_data, init, left, output / "parent", stages))
        if estimate:
            return

        def measure(cell: Cell, folder: Path) -> Found:
            trained = study.recipe_of(network, study.Student.of(cell), cell.facts["seed"], whole)

            def progress(stage: str, done: int, total: int) -> None:
                stages(f"{cell.name}: {stage}", done, total)

            return study.train_and_judge(trained, training_data, init, folder, output / "parent", progress)

        found = run_cells(cells, output, measure, minutes, lambda *_: None)
    judged = depth_report.judged(cells, found, output)
    rows, correlations = depth_report.rows(judged), depth_report.depth_correlations(cells, found, output)
    spent = sum(cell["train_cpu_seconds"] for cell in found.values())
    budget = f"{len(found)} of {len(cells)} runs, {spent / 3600:.1f} CPU hours of training."
    told = {name: vars(correlated) for name, correlated in correlations.items()}
    report = {"study": "depth", "cells": found, "correlations": told}
    text_of = partial(depth_report.markdown, rows, depth_report.beside(judged), correlations, budget)
    typer.echo(conclude(output, report, page, text_of, depth_report.pictures(rows)))


app.command()(length)


@app.command()
def fanout(
    p50: Annotated[float, typer.Option(help="Milliseconds that half of the searches of one shard take at most.")],
    p99: Annotated[float, typer.Option(help="Milliseconds that 99 % of them take at most.")],
    shards: Annotated[list[int] | None, typer.Option(min=1, help="Repeats.", show_default="1 to 256")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Of each shard.")] = 1,
    load: Annotated[float, typer.Option(min=0, help="Share of the time that a replica is busy.")] = 0.5,
    pause: Annotated[float, typer.Option(min=0, help="Milliseconds that a search may take on top.")] = 0.0,
    pauses: Annotated[float, typer.Option(min=0, max=1, help="Share of the searches that do.")] = 0.0,
    queries: Annotated[int, typer.Option(min=1000, help="To simulate.")] = 50_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 1,
    json: JsonOption = False,
) -> None:
    """Simulate queries that wait for the slowest of many shards."""
    from scripts.studies.fanout import Shard, tails

    if not 0 < p50 <= p99:
        raise BadInput(f"--p99 ({p99}) must not be below --p50 ({p50}), nor that be 0")
    if load >= 1:
        raise BadInput(f"--load {load}: below 1, or queues grow for ever")
    counts = sorted(shards or SHARDS)
    with progress_bar() as bar:
        task = bar.add_task("simulating", total=len(counts))
        found = tails(
            Shard(p50, p99, pause, pauses),
            counts,
            replicas,
            load,
            queries,
            seed,
            lambda done: bar.update(task, completed=done),
        )
    if json:
        facts = {"p50": p50, "p99": p99, "replicas": replicas, "load": load, "pause": pause, "pauses": pauses}
        print_json(facts | {"queries": queries, "seed": seed, "tails": [asdict(tail) for tail in found]})
        return
    rows = [
        [f"{tail.shards}", f"{tail.p50:.1f}", f"{tail.p99:.1f}", f"{tail.p999:.1f}", f"{tail.slow:.1%}"]
        for tail in found
    ]
    print_table(["shards", "p50, ms", "p99, ms", "p99.9, ms", "beyond one shard's p99"], rows)
