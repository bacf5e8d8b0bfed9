"""dse index: build an index and look at it."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.console import BadInput, print_json, print_table, progress_bar, read_settings
from scripts.options import BundleOption, JsonOption
from scripts.use_commands import read_queries

if TYPE_CHECKING:
    from index.manifest import GenerationManifest

app = typer.Typer(help="Build an index, and look at it.", no_args_is_help=True)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class RankBy(StrEnum):
    """What FAISS may rank by."""

    SIMILARITY = "similarity"
    HEAD = "head"


class OnError(StrEnum):
    """What to do about a line that is not a document."""

    STOP = "stop"
    SKIP = "skip"


@app.command()
def build(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help=".jsonl, .csv, .tsv, .txt (also .gz), .parquet, or -")
    ],
    output: Annotated[Path, typer.Option(help="The index folder, new or existing.")],
    bundle: BundleOption = None,
    recipe: Annotated[
        str | None, typer.Option(help="A FAISS index_factory string.", show_default="by rows and memory")
    ] = None,
    target_recall: Annotated[
        float, typer.Option(help="Recall@10 that must be proven, or nothing is published.")
    ] = 0.95,
    queries: Annotated[
        Path | None, typer.Option(help="What will be asked, a query a line: 1,000 or more.", show_default="documents")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What making the FAISS index may take: 500MB, 4GiB.", show_default="no bound")
    ] = None,
    rank_by: Annotated[RankBy, typer.Option(help="What FAISS ranks by; head: a quadratic one.")] = RankBy.SIMILARITY,
    id_column: Annotated[str, typer.Option(help="Column or field that holds the id.")] = "id",
    text_column: Annotated[str, typer.Option(help="Column or field that holds the text.")] = "text",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from an unfinished build, or give it up and begin again.")
    ] = True,
    on_error: Annotated[OnError, typer.Option(help="At a line that is not a document.")] = OnError.STOP,
    rejects: Annotated[Path | None, typer.Option(help="With skip: write such lines here, as JSON lines.")] = None,
    json: JsonOption = False,
) -> None:
    """Embed documents with a bundle and publish them as the live generation of an index."""
    from app.loading import head_vectors, identity
    from index.build import build as build_index
    from index.finish import SearchWanted
    from index.generations import current_name
    from index.recall import Aim
    from index.sources import Columns, Inputs, Rejects
    from model.bundle import load_student
    from scripts.build_progress import BuildProgress

    if rejects is not None:
        if on_error is OnError.STOP:
            raise BadInput("--rejects needs --on-error skip")
        if any(rejects.resolve() == path.resolve() for path in inputs):
            raise BadInput(f"{rejects} is an input; give --rejects another file")
    settings = read_settings()
    student = load_student(bundle or settings.bundle, settings.threads)
    head = head_vectors(student) if rank_by == RankBy.HEAD else None
    if rank_by == RankBy.HEAD and head is None:
        raise BadInput(f"FAISS cannot rank by the head of {student.name}: it is no quadratic one; leave --rank-by out")
    aim = Aim(
        target_recall,
        queries=None if queries is None else student.encoder.encode(read_queries(queries)),
        scores=lambda query, embeddings: student.head.logits(query[None], embeddings),
    )
    search = SearchWanted(None if memory is None else _bytes(memory), aim, head)
    with Rejects(rejects) as rejected, progress_bar() as bar:
        passed_over = rejected if on_error is OnError.SKIP else None
        source = Inputs(inputs, Columns(id_column, text_column), passed_over)
        manifest = build_index(
            source,
            student.encoder.encode,
            student.encoder.dims,
            identity(student),
            output,
            recipe,
            resume=resume,
            rejects=passed_over,
            share_read=source.share_read,
            watcher=BuildProgress(bar),
            encode_batches=student.encoder.encode_batches,
            search=search,
        )
    if json:
        answer = {"index": str(output), "generation": current_name(output), "rejected": rejected.count}
        print_json(answer | manifest.model_dump())
    else:
        typer.echo(f"{manifest.documents:,} documents, {manifest.recipe} -> {output} ({current_name(output)})")
        typer.echo(f"recall {_recall(manifest)}")
        if rejected.count:
            where = f", written to {rejects}" if rejects else "; --rejects FILE writes them down"
            typer.echo(f"{rejected.count:,} lines passed over{where}")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Z]*)", text.strip().upper())
    if found is None or found[2] not in _UNITS:
        raise BadInput(f"--memory {text!r} is no number of bytes; write 500MB, 4GiB or 2000000000")
    return int(float(found[1]) * _UNITS[found[2]])


def _recall(facts: "GenerationManifest") -> str:
    """What was proven of the search, in a line."""
    proof = facts.proof
    if proof is None:
        return "not proven"
    if proof.method == "exhaustive":
        return "exact: every document is compared"
    return (
        f"{proof.recall:.4f} @{proof.k}, at least {proof.lower_bound:.4f} (target {proof.target}; "
        f"{proof.queries:,} {proof.asked}, {proof.method})"
    )


def _search_facts(facts: "GenerationManifest") -> dict[str, str]:
    """How a generation is searched and what that was shown to find, for people."""
    rows = {"recall": _recall(facts)}
    tuned = facts.search | ({"refine": facts.refine} if facts.refine > 1 else {})
    if tuned:
        rows["search"] = ", ".join(f"{name} {value}" for name, value in tuned.items())
    if facts.head is not None:
        rows["ranked by"] = f"the head of {facts.head.name} ({facts.head.digest[:12]})"
    if facts.proof is not None:
        rows["index size"] = f"{facts.proof.index_bytes:,} bytes"
        if facts.proof.curve:
            rows["curve"] = ", ".join(f"{value}: {recall:.3f}" for value, recall in sorted(facts.proof.curve.items()))
        if facts.proof.end_to_end is not None:
            reached = sorted(facts.proof.end_to_end.recall.items())
            rows["end to end"] = ", ".join(f"depth {depth}: {recall:.3f}" for depth, recall in reached)
    if facts.depth is not None:
        rows["depth"] = f"{facts.depth:,}"
    if took := facts.measured.get("search_milliseconds"):
        rows["search time"] = f"p50 {took['p50']} ms, p99 {took['p99']} ms for {took['depth']} candidates"
    return rows


@app.command()
def info(folder: Path, json: JsonOption = False) -> None:
    """Say what the live generation of an index holds."""
    from index.generations import GENERATIONS, current_name
    from index.manifest import GenerationManifest

    name = current_name(folder)
    facts = GenerationManifest.read(folder / GENERATIONS / name)
    if json:
        print_json({"generation": name} | facts.model_dump())
        return
    rows = {
        "generation": name,
        "documents": f"{facts.documents:,}",
        "dimensions": str(facts.dims),
        "recipe": facts.recipe,
        "encoder": f"{facts.encoder.name} ({facts.encoder.digest[:12]})",
        **_search_facts(facts),
        "created": str(facts.measured.get("created")),
    }
    print_table(["", ""], [[name, value] for name, value in rows.items()])


@app.command()
def verify(folder: Path) -> None:
    """Compare every file of the live generation with its digest, and the files with each other."""
    from index.generations import Generation

    generation = Generation.open(folder)
    typer.echo(f"{folder}: generation {generation.name} is whole ({len(generation):,} documents)")
