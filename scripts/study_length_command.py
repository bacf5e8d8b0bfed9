"""dse study length: softmax beside linear attention, as texts get longer."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scripts.console import check_place, progress_bar
from scripts.options import DataOption
from scripts.study_options import (
    KINDS,
    EstimateOption,
    MinutesOption,
    OutputOption,
    PageOption,
    ParentOption,
    announce,
    conclude,
    known,
)
from scripts.training_commands import needs_torch, stages_on

RECIPES = Path(__file__).parent / "recipes" / "studies"
LENGTHS = [128, 256, 512, 1024, 2048, 4096]
MOST = 3_000_000


def length(
    data: DataOption,
    output: OutputOption,
    init: ParentOption = None,
    linear: Annotated[
        Path | None,
        typer.Option(help="Weights that linear attention starts from: a linear student.", show_default="as softmax"),
    ] = None,
    static: Annotated[Path | None, typer.Option(help="A static student's bundle, to compare with.")] = None,
    attention: Annotated[
        list[str] | None,
        typer.Option(help="softmax, elu, relu or hedgehog; repeats.", show_default="softmax, hedgehog"),
    ] = None,
    tokens: Annotated[list[int] | None, typer.Option(min=16, help="Repeats.", show_default="128 to 4096")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Of students on texts of up to 1,024 tokens.")] = 3,
    seeds_of_long: Annotated[int, typer.Option(min=0, help="Of students on longer texts.")] = 1,
    budget: Annotated[int, typer.Option(min=1, max=MOST, help="Tokens that each student is trained on.")] = 250_000,
    train: Annotated[
        int, typer.Option(min=2, help="Pairs to train on, again and again until the budget is spent.")
    ] = 512,
    dev: Annotated[int, typer.Option(min=3, help="Pairs that learning curves are drawn by.")] = 100,
    test: Annotated[int, typer.Option(min=3, help="Pairs that students are judged by.")] = 150,
    looks: Annotated[int, typer.Option(min=1, help="At the learning curve, besides the first.")] = 3,
    long_pairs: Annotated[int, typer.Option(min=2, help="Of a set of long pairs.")] = 100,
    sets: Annotated[Path, typer.Option(help="Sets of long texts.", show_default="shipped")] = RECIPES
    / "long_sets.toml",
    recipe: Annotated[Path, typer.Option(help="What every student is trained by.", show_default="shipped")] = RECIPES
    / "length.toml",
    minutes: MinutesOption = None,
    estimate: EstimateOption = False,
    page: PageOption = None,
) -> None:
    """Train students on ever longer texts, as many tokens each; judge them on pairs in context and on long texts."""
    needs_torch()
    if page:
        check_place(page)
    from model.training.pairs import TrainingData
    from model.training.recipes import DistillationRecipe, read_recipe
    from scripts.evaluation.sets import Registry, check_present
    from scripts.studies.cells import Cell, Found, run_cells
    from scripts.studies.length import price, report, run
    from scripts.studies.length.ground import Ground, ground_digest
    from scripts.studies.length.plan import Plan, Sizes

    base = read_recipe(recipe, DistillationRecipe)
    sizes = Sizes(budget, train, dev, test, looks, long_pairs)
    listed = Registry.read(sets).chosen([])
    check_present(listed, data)
    long_sets = [one.read(data, name) for name, one in listed.items()]
    plan = Plan.of(base, init, linear, static, sizes, ground_digest(base, data, long_sets))
    kinds, lengths = known(attention or ["softmax", "hedgehog"], KINDS), sorted(set(tokens or LENGTHS))
    for asked in lengths:
        plan.steps(asked)
    ground = Ground(plan, TrainingData(data, base.data), long_sets)
    cells = plan.cells(kinds, lengths, seeds, seeds_of_long)
    with progress_bar() as bar:
        stages = stages_on(bar)
        announce(cells, output, lambda left: price.of(plan, ground, left, stages))
        if estimate:
            return

        def measure(cell: Cell, folder: Path) -> Found:
            def progress(stage: str, done: int, total: int) -> None:
                stages(f"{cell.name}: {stage}", done, total)

            if "seed" in cell.facts:
                return run.run_student(plan, cell, ground, folder, output / "parent", progress)
            return run.run_control(plan, cell, ground, folder)

        found = run_cells(cells, output, measure, minutes, lambda *_: None)
    rows = report.rows(cells, found, output)
    controls = {
        cell.facts["what"]: report.long_figures([found[cell.name]])
        for cell in cells
        if cell.facts["tokens"] is None and cell.name in found
    }
    spent = sum(cell["step"]["cpu_seconds"] * cell["steps"] for cell in found.values() if "step" in cell)
    told = (
        f"{len(found)} of {len(cells)} cells; {budget:,} tokens and {train:,} pairs to train on, {dev} pairs of dev, "
        f"{test} of test; {spent / 3600:.1f} CPU hours of training."
    )
    pictures = report.pictures(rows, report.learning_curves(cells, found))
    document = {"study": "length", "cells": found}
    text_of = partial(report.markdown, rows, controls, told)
    typer.echo(conclude(output, document, page, text_of, pictures))
