"""dse evaluate: how good, and how fast, are these models?"""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from scripts.console import BadInput, print_json, print_table, progress_bar, read_settings, written
from scripts.options import JsonOption
from scripts.training_commands import needs_torch

if TYPE_CHECKING:
    from scripts.evaluation.results import Results
    from scripts.evaluation.scorers import Model
    from scripts.evaluation.sets import Collection, GoldPairs

Folders = list[Path] | None
Names = list[str] | None
Kind = Literal["sts", "classification", "retrieval"]
Opener = tuple[str, "Callable[[], Model]"]
"""Where a model is, and what opens it."""


def evaluate(
    pairs: Annotated[
        Path | None, typer.Argument(help="One file or folder of --kind to measure on, instead of the listed sets.")
    ] = None,
    folder: Annotated[
        Folders, typer.Option(help="A sentence-transformers or Hugging Face folder; repeats, as those below.")
    ] = None,
    bundle: Annotated[Folders, typer.Option(help="A student's bundle.")] = None,
    teacher: Annotated[Folders, typer.Option(help="A teacher's bundle.")] = None,
    signal: Annotated[Folders, typer.Option(help="A folder of dse teacher train.")] = None,
    url: Annotated[Names, typer.Option(help="A running service: what is served is measured (pairs only).")] = None,
    data: Annotated[Path | None, typer.Option(envvar="DSE_DATA", help="Folder that the sets are below.")] = None,
    only: Annotated[Names, typer.Option(help="A set (stsb/dev, stsb) or a kind of set (retrieval); repeats.")] = None,
    sets: Annotated[Path | None, typer.Option(help="A list of sets.", show_default="evaluation.toml")] = None,
    kind: Annotated[Kind | None, typer.Option(help="What the one file or folder is.", show_default="sts")] = None,
    with_results: Annotated[Path | None, typer.Option(help="An --output of before: its models take part.")] = None,
    guard: Annotated[str | None, typer.Option(help="A model that no other may fall behind; exit code 1 if so.")] = None,
    margin: Annotated[float, typer.Option(min=0, help="Points that the guard lets pass.")] = 1.0,
    prefixes: Annotated[
        bool, typer.Option("--prefixes", help="Measure bundles' embeddings cut to each width they allow, too.")
    ] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Time the models, too.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file with everything found.")] = None,
    plot: Annotated[Path | None, typer.Option(help="An SVG of quality against speed; implies --speed.")] = None,
    page: Annotated[Path | None, typer.Option(help="A page of Markdown with every table; --plot is its image.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure models: agreement with gold, pair classification, retrieval, agreement with a teacher, speed.

    The first model (in the order of the options below; one of --with-results before them) is what the others are
    compared with, unless --guard names another.
    """
    if find_spec("model.training") is None:
        raise BadInput(
            "this installation leaves out model/training, which reads the pairs: pip install . (in DSE's folder)"
        )
    from scripts.evaluation.page import markdown
    from scripts.evaluation.plot import svg
    from scripts.evaluation.results import Results

    if not (openers := _openers(folder or [], bundle or [], teacher or [], signal or [], url or [], prefixes)):
        raise BadInput("give a model: --folder, --bundle, --teacher, --signal or --url")
    chosen = _chosen(pairs, kind, data, only or [], sets)
    if (speed or plot) and chosen.to_time is None:
        raise BadInput("--speed and --plot need a set of pairs among the sets")
    if guard and not chosen.guarded:
        raise BadInput(f"--guard {guard}: it needs a guarded set, one of retrieval or of duplicates, among the sets")
    earlier = Results.read(with_results) if with_results else None
    # A place that cannot be written to is refused before the work, not after it.
    with _place(plot) as for_plot, _place(page) as for_page:
        with _place(output) as for_results:
            models = _opened(openers, earlier)
            if prefixes and not any(model.prefixes for model in models):
                raise BadInput("--prefixes: no --bundle here allows its embeddings to be cut; leave it out")
            results = _measured(chosen, models, earlier, guard, margin, speed or plot is not None)
            if for_results:
                for_results.write(results.dumped())
        if for_plot:
            for_plot.write(svg(results))
        if for_page:
            beside = os.path.relpath(plot, page.parent) if plot and page else None
            for_page.write(markdown(results, shlex.join(["dse", *sys.argv[1:]]), beside))
    _show(results, json)


def _place(path: Path | None) -> AbstractContextManager[IO[str] | None]:
    return written(path, "w") if path else nullcontext()


def _openers(
    folders: Sequence[Path],
    bundles: Sequence[Path],
    teachers: Sequence[Path],
    signals: Sequence[Path],
    urls: Sequence[str],
    prefixes: bool,
) -> list[Opener]:
    """What was named, each with how it is opened."""
    if folders or signals:
        needs_torch()
    from scripts.evaluation import scorers, service

    kinds: list[tuple[Sequence[Path], Callable[[Path], Model]]] = [
        (folders, scorers.of_folder),
        (bundles, partial(scorers.of_bundle, prefixes=prefixes)),
        (teachers, scorers.of_teacher),
        (signals, scorers.of_signal),
    ]
    found: list[Opener] = [(str(path), partial(open_, path)) for paths, open_ in kinds for path in paths]
    return found + [(url, partial(service.of_service, url)) for url in urls]


@dataclass(frozen=True)
class _Chosen:
    """What to measure on, read one at a time; the first set of pairs; and whether the guard looks at any of it."""

    sets: "Iterable[GoldPairs | Collection]"
    to_time: "GoldPairs | None"
    guarded: bool


def _chosen(one: Path | None, kind: Kind | None, data: Path | None, only: list[str], listed: Path | None) -> _Chosen:
    from scripts.evaluation.sets import REGISTRY, GoldPairs, Registry, RetrievalSet, check_present, one_set

    if one is not None:
        if only or listed:
            raise BadInput("--only and --sets are for the listed sets; leave them out, or the file")
        read = one_set(one, kind or "sts")
        return _Chosen([read], read if isinstance(read, GoldPairs) else None, read.facts.guarded)
    if kind:
        raise BadInput(
            f"--kind {kind}: it says what the one file is; give that, or choose listed sets with --only {kind}"
        )
    if data is None:
        raise BadInput("give one file of pairs, or --data (DSE_DATA): the folder that the listed sets are below")
    sets = Registry.read(listed or REGISTRY).chosen(only)
    check_present(sets, data)
    of_pairs = ((name, found) for name, found in sets.items() if not isinstance(found, RetrievalSet))
    first = next((found.read(data, name) for name, found in of_pairs), None)
    guarded = any(found.guarded for found in sets.values())
    return _Chosen((found.read(data, name) for name, found in sets.items()), first, guarded)


def _opened(openers: "Sequence[Opener]", earlier: "Results | None") -> "list[Model]":
    """The models, each under a name of its own: where two say the same, where they are is added, then a number."""
    models = [(where, open_()) for where, open_ in openers]
    names = Counter(model.facts.name for _, model in models)
    taken = {facts.name for facts in (earlier.models if earlier else [])}
    names.update(taken)
    found = []
    for where, model in models:
        if names[name := model.facts.name] > 1:
            longer = f"{name} ({where})"
            name = next(free for number in count(1) if (free := _numbered(longer, number)) not in taken)
        taken.add(name)
        found.append(model.named(name))
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} {number}"


def _measured(
    chosen: _Chosen,
    models: "Sequence[Model]",
    earlier: "Results | None",
    guard: str | None,
    margin: float,
    timed: bool,
) -> "Results":
    from scripts.evaluation import results
    from scripts.evaluation.speed import measure as measure_speed
    from scripts.evaluation.suite import measure

    settings = read_settings()
    facts = [*(earlier.models if earlier else []), *(model.facts for model in models)]
    baseline = guard or facts[0].name
    if baseline not in (names := [known.name for known in facts]):
        raise BadInput(f"--guard {baseline}: there is no such model (there are {', '.join(names)})")
    if guard and len(names) == 1:
        raise BadInput(f"--guard {guard}: it needs another model, to be held against this one")
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=None)

        def progress(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        found = measure(chosen.sets, models, baseline, settings.depth_for(None), progress, earlier)
        speed = None
        if timed and chosen.to_time is not None:
            bar.update(task, description="timing", completed=0, total=None)
            speed = measure_speed(models, chosen.to_time, settings.threads)
    held = results.guard(found.rows, found.sets, baseline, margin) if guard else None
    return results.Results.of(baseline, facts, found.sets, found.rows, found.agreement, speed, held)


def _show(results: "Results", json: bool) -> None:
    """The document, or tables; then what the guard says, and exit code 1 if it does not hold."""
    from scripts.evaluation.tables import notes, tables, verdict

    if json:
        print_json(results.as_json())
    else:
        for columns, rows in tables(results):
            print_table(columns, rows)
            typer.echo()
        for line in notes(results):
            typer.echo(line)
    for line in verdict(results):
        typer.echo(line, err=True)
    if results.guard and not results.guard.holds:
        raise typer.Exit(1)
