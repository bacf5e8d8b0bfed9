"""dse teacher, distill and export: the training path, each step from files to files."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from scripts.console import BadInput, print_json, print_table, progress_bar
from scripts.options import DataOption, JsonOption

if TYPE_CHECKING:  # a command that is only looked up loads no numpy: its threads are set first
    from model.bundle import BundleManifest

teacher = typer.Typer(help="Train a teacher, and write down what it says of pairs.", no_args_is_help=True)

StageProgress = Callable[[str, int, int], None]
RecipeArgument = Annotated[Path, typer.Argument(help="A recipe: scripts/recipes/*.toml")]
InitOption = Annotated[
    str | None,
    typer.Option(help="Folder with the pretrained weights, instead of a hub id in the recipe."),
]

SilverOption = Annotated[
    Path | None,
    typer.Option(help="Pairs made by dse silver, where a stage of the recipe trains on them."),
]

OutputBundle = Annotated[Path, typer.Option(help="The bundle's folder; must not exist.")]
KeepOption = Annotated[bool, typer.Option(help="Keep the fp32 graphs beside the int8 ones.")]


def needs_torch() -> None:
    """Refuse to go on without the training extra, and have its libraries keep quiet.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import torch  # noqa: F401, TID251
        from transformers.utils import logging as transformers_logging  # noqa: TID251
    except ImportError as error:
        raise BadInput("training needs the extra: pip install '.[train]' (in DSE's folder)") from error
    # What these say is about themselves, and would tear our progress bars.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)


@teacher.command("train")
def teacher_train(
    recipe: RecipeArgument,
    data: DataOption,
    output: Annotated[Path, typer.Option(help="The teacher's folder; an unfinished one is taken up again.")],
    init: InitOption = None,
    logits: Annotated[Path | None, typer.Option(help="An earlier signal's logits, where the recipe is taught.")] = None,
    silver: SilverOption = None,
) -> None:
    """Train the members of a teacher and calibrate their common signal."""
    needs_torch()
    from model.training.logits import TeacherLogits
    from model.training.pairs import TrainingData
    from model.training.recipes import TeacherRecipe, read_recipe
    from model.training.teacher import train_teacher

    wanted = read_recipe(recipe, TeacherRecipe)
    taught_by = None if logits is None else TeacherLogits.load(logits)
    with progress_bar() as bar:
        training_data = TrainingData(data, wanted.data, silver)
        signal = train_teacher(wanted, training_data, taught_by, init, output, stages_on(bar))
    rows = [[m.name, m.kind, f"{m.dev.pearson:.2f}", f"{m.dev.spearman:.2f}"] for m in signal.members]
    rows.append(["signal", "mean", f"{signal.dev.pearson:.2f}", f"{signal.dev.spearman:.2f}"])
    print_table(["STS-B dev", "kind", "P", "S"], rows)


@teacher.command("label")
def teacher_label(
    recipe: RecipeArgument,
    data: DataOption,
    signal: Annotated[Path, typer.Option(help="Who labels: a folder of dse teacher train, or a teacher's bundle.")],
    output: Annotated[Path, typer.Option(help="The logits file; an unfinished one is taken up again.")],
    silver: SilverOption = None,
) -> None:
    """Write the teacher's logit of every pair that a recipe trains on."""
    needs_torch()
    from model.training.logits import label
    from model.training.material import pairs_to_train
    from model.training.pairs import TrainingData
    from model.training.recipes import read_stages
    from model.training.served import teacher_at

    data_recipe, stages = read_stages(recipe)
    sets = pairs_to_train(stages, TrainingData(data, data_recipe, silver))
    with progress_bar() as bar:
        task = bar.add_task("labelling", total=None)
        label(
            teacher_at(signal),
            [pair for pairs in sets.values() for pair in pairs],
            output,
            lambda done, total: bar.update(task, completed=done, total=total),
        )


@teacher.command("export")
def teacher_export(
    recipe: RecipeArgument,
    run: Annotated[Path, typer.Argument(help="Folder written by dse teacher train.")],
    data: DataOption,
    output: OutputBundle,
    keep_fp32: KeepOption = False,
    silver: SilverOption = None,
    json: JsonOption = False,
) -> None:
    """Export a signal of one or two members to the bundle that serves it."""
    needs_torch()
    from model.training.export import export_teacher
    from model.training.pairs import TrainingData
    from model.training.recipes import TeacherRecipe, read_recipe

    wanted = read_recipe(recipe, TeacherRecipe)
    training_data = TrainingData(data, wanted.data, silver)
    _show(export_teacher(wanted, run, training_data, output, keep_fp32, _say), json)


def silver(
    recipe: RecipeArgument,
    data: DataOption,
    signal: Annotated[
        Path,
        typer.Option(help="A folder of dse teacher train, or a teacher's bundle: its bi-encoder finds and scores."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The pair file to write, .tsv.gz.")],
) -> None:
    """Make silver pairs: neighbours among training sentences and plain texts, for a teacher to score."""
    needs_torch()
    if output.suffix != ".gz":
        raise BadInput(f"{output} will be gzipped: let its name end in .tsv.gz, which is how it is read")
    from model.training.pairs import TrainingData
    from model.training.recipes import SilverRecipe, read_recipe
    from model.training.served import teacher_at
    from model.training.silver import make_silver

    wanted = read_recipe(recipe, SilverRecipe)
    with progress_bar() as bar:
        scorer = teacher_at(signal).sentence_member()
        count = make_silver(wanted, TrainingData(data, wanted.data), scorer, output, stages_on(bar))
    typer.echo(f"{count:,} pairs -> {output}; next: dse teacher label RECIPE --silver {output}")


def distill(
    recipe: RecipeArgument,
    data: DataOption,
    logits: Annotated[Path, typer.Option(help="File written by dse teacher label.")],
    output: Annotated[Path, typer.Option(help="The run's folder; an unfinished one is taken up again.")],
    init: InitOption = None,
    silver: SilverOption = None,
) -> None:
    """Train a recipe's network on gold scores and the teacher's logits."""
    needs_torch()
    from model.training.distil import distil
    from model.training.logits import TeacherLogits
    from model.training.pairs import TrainingData
    from model.training.recipes import DistillationRecipe, read_recipe

    wanted = read_recipe(recipe, DistillationRecipe)
    taught_by = TeacherLogits.load(logits)
    with progress_bar() as bar:
        distil(wanted, TrainingData(data, wanted.data, silver), taught_by, init, output, stages_on(bar))
    typer.echo(f"trained -> {output}; next: dse export {recipe} {output} --output BUNDLE")


def export(
    recipe: RecipeArgument,
    run: Annotated[Path, typer.Argument(help="Folder written by dse distill.")],
    data: DataOption,
    output: OutputBundle,
    keep_fp32: KeepOption = False,
    silver: SilverOption = None,
    json: JsonOption = False,
) -> None:
    """Export a trained network to a bundle; nothing is published that fails a gate."""
    needs_torch()
    from model.training.export import export_network
    from model.training.pairs import TrainingData
    from model.training.recipes import DistillationRecipe, read_recipe

    wanted = read_recipe(recipe, DistillationRecipe)
    training_data = TrainingData(data, wanted.data, silver)
    _show(export_network(wanted, run, training_data, output, keep_fp32, _say), json)


def _say(step: str) -> None:
    typer.echo(step, err=True)


def _show(manifest: "BundleManifest", json: bool) -> None:
    """A bundle's figures."""
    if json:
        print_json(manifest.quality)
        return
    rows = [
        [split, graph, of, f"{found['pearson']:.2f}", f"{found['spearman']:.2f}", f"{found['calibration_error']:.3f}"]
        for split in ("dev", "test")
        for graph, by_name in manifest.quality[split].items()
        for of, found in by_name.items()
    ]  # fmt: skip
    print_table(["STS-B", "graph", "of", "P", "S", "error"], rows)


def stages_on(bar: Progress) -> StageProgress:
    """Show every stage of a training run as a bar of its own."""
    tasks: dict[str, TaskID] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    return progress
