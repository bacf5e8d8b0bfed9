"""dse index: build an index, change it and look at it."""

import re
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from index.location import read_location
from scripts.console import (
    BadInput,
    batches,
    print_json,
    print_table,
    progress_bar,
    read_lines,
    read_settings,
    settings_with,
    student_of,
)
from scripts.options import BundleOption, InputsArgument, JsonOption, LongTextOption
from scripts.use_commands import read_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.settings import Settings
    from index.build import EncodeBatches
    from index.contract import Index, IndexView
    from index.location import Location
    from index.manifest import GenerationManifest
    from index.recall import Scores
    from model.bundle import Student

DOCUMENTS_PER_TRANSACTION = 1024

PlaceArgument = Annotated[str, typer.Argument(metavar="INDEX", help="A folder, or milvus://HOST:PORT/NAME.")]
WorkOption = Annotated[
    Path | None,
    typer.Option(help="Where what is on its way to Milvus is kept.", show_default="./NAME.build"),
]
IdColumnOption = Annotated[str, typer.Option(help="Column or field that holds the id.")]
TextColumnOption = Annotated[str, typer.Option(help="Column or field that holds the text.")]

app = typer.Typer(help="Build an index, change it, and look at it.", no_args_is_help=True)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class RankBy(StrEnum):
    """What FAISS may rank by."""

    SIMILARITY = "similarity"
    HEAD = "head"


class Engine(StrEnum):
    """Where texts may be embedded."""

    LOCAL = "local"
    RAY = "ray"


class OnError(StrEnum):
    """What to do about a line that is not a document."""

    STOP = "stop"
    SKIP = "skip"


@app.command()
def build(
    inputs: InputsArgument,
    output: Annotated[str, typer.Option(help="The index, new or existing: a folder, or milvus://HOST:PORT/NAME.")],
    bundle: BundleOption = None,
    long_text: LongTextOption = None,
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
    id_column: IdColumnOption = "id",
    text_column: TextColumnOption = "text",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from an unfinished build, or give it up and begin again.")
    ] = True,
    on_error: Annotated[OnError, typer.Option(help="At a line that is not a document.")] = OnError.STOP,
    rejects: Annotated[Path | None, typer.Option(help="With skip: write such lines here, as JSON lines.")] = None,
    work: WorkOption = None,
    engine: Annotated[Engine, typer.Option(help="Where texts are embedded: here, or by a Ray cluster.")] = Engine.LOCAL,
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT or auto.", show_default="one for this build, on this machine")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="How many, each with a model.", show_default="by the cluster's CPUs")
    ] = None,
    ray_cpus: Annotated[int, typer.Option(min=1, help="CPUs, and threads, of each worker.")] = 1,
    json: JsonOption = False,
) -> None:
    """Embed documents with a bundle and publish them as the live generation of an index."""
    from app.loading import head_vectors, identity
    from index.finish import SearchWanted
    from index.places import build_at
    from index.recall import Aim
    from index.sources import Columns, Inputs, Rejects
    from scripts.build_progress import BuildProgress

    if rejects is not None:
        if on_error is OnError.STOP:
            raise BadInput("--rejects needs --on-error skip")
        if any(rejects.resolve().is_relative_to(Path(given).resolve()) for given in inputs):
            raise BadInput(f"{rejects} is an input, or in one; give --rejects another file")
    if engine is Engine.LOCAL and (ray_address, ray_workers, ray_cpus) != (None, None, 1):
        raise BadInput("--ray-address, --ray-workers and --ray-cpus need --engine ray")
    place, settings = read_location(output), settings_with(bundle=bundle, long_text=long_text)
    student = student_of(settings)
    head = head_vectors(student) if rank_by == RankBy.HEAD else None
    if rank_by == RankBy.HEAD and head is None:
        raise BadInput(f"FAISS cannot rank by the head of {student.name}: it is no quadratic one; leave --rank-by out")
    texts = () if queries is None else tuple(read_queries(queries))
    embedded = None if queries is None else student.encoder.encode(texts)
    aim = Aim(target_recall, queries=embedded, texts=texts, scores=_scores_of(student))
    search = SearchWanted(None if memory is None else _bytes(memory), aim, head)
    embedding: AbstractContextManager[tuple[EncodeBatches, int]] = nullcontext((student.encoder.encode_batches, 1))
    if engine is Engine.RAY:
        embedding = _on_ray(student, settings, ray_address, ray_cpus, ray_workers)
    with Rejects(rejects) as rejected, embedding as (encode_batches, workers), progress_bar() as bar:
        passed_over = rejected if on_error is OnError.SKIP else None
        source = Inputs(inputs, Columns(id_column, text_column), passed_over)
        name, manifest = build_at(
            place,
            settings.milvus_access(),
            work,
            documents=source,
            encode=student.encoder.encode,
            dims=student.encoder.dims,
            encoder=identity(student),
            recipe=recipe,
            resume=resume,
            rejects=passed_over,
            share_read=source.share_read,
            watcher=BuildProgress(bar),
            encode_batches=encode_batches,
            workers=workers,
            search=search,
        )
    if json:
        answer = {"index": str(place), "generation": name, "rejected": rejected.count}
        print_json(answer | manifest.model_dump())
    else:
        typer.echo(f"{manifest.documents:,} documents, {manifest.recipe} -> {place} ({name})")
        typer.echo(f"recall {_recall(manifest)}")
        if rejected.count:
            where = f", written to {rejects}" if rejects else "; --rejects FILE writes them down"
            typer.echo(f"{rejected.count:,} lines passed over{where}")


def _scores_of(student: "Student") -> "Scores":
    return lambda query, embeddings: student.head.logits(query[None], embeddings)


@contextmanager
def _on_ray(
    student: "Student", settings: "Settings", address: str | None, cpus: int, workers: int | None
) -> "Iterator[tuple[EncodeBatches, int]]":
    """What embeds batches on a Ray cluster, and how many at a time."""
    try:
        from index.ray_workers import Cluster, RayWorkers
    except ImportError as error:
        raise BadInput("--engine ray needs the extra: pip install '.[ray]' (in DSE's folder)") from error
    from scripts.bundle_freight import BundleFreight

    cluster = Cluster(address, cpus, workers)
    freight = BundleFreight.of(settings.bundle, settings.long_text)
    with RayWorkers(freight, student.encoder.encode, cluster, settings.threads) as pool:
        yield pool.encode_batches, pool.count


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
def add(
    folder: PlaceArgument,
    inputs: InputsArgument,
    bundle: BundleOption = None,
    long_text: LongTextOption = None,
    id_column: IdColumnOption = "id",
    text_column: TextColumnOption = "text",
    json: JsonOption = False,
) -> None:
    """Add documents to an index, or replace them by id; whoever serves it finds them with the next search."""
    from app.loading import open_index
    from index.sources import Columns, read_documents

    place, settings = read_location(folder), settings_with(bundle=bundle, long_text=long_text)
    student = student_of(settings)
    counts = {"created": 0, "updated": 0}
    with open_index(place, student, True, access=settings.milvus_access()) as index, progress_bar() as bar:
        task = bar.add_task("adding", total=None)
        for batch in batches(read_documents(inputs, Columns(id_column, text_column)), DOCUMENTS_PER_TRANSACTION):
            documents = [sourced.document for sourced in batch]
            embeddings = student.encoder.encode([document.text for document in documents])
            for status in index.upsert(documents, embeddings):
                counts[status] += 1
            bar.advance(task, len(batch))
        state = _state(place, index.view())
    if json:
        print_json(state | counts)
    else:
        typer.echo(f"{counts['created']:,} documents created, {counts['updated']:,} updated -> {_told(state)}")


@app.command()
def delete(
    folder: PlaceArgument,
    ids: Annotated[list[str] | None, typer.Argument(metavar="IDS...", help="Ids of documents.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--ids", help="A file of ids, one a line as it stands; give ids with line breaks as arguments."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Remove documents from an index; the next search does not find them."""
    from index.opening import open_any
    from index.sources import unusable

    if bool(ids) == (file is not None):
        raise BadInput("give either ids or --ids FILE: dse index delete DIR a/1 a/2")
    wanted = [line for _, line in read_lines(file, "ids")] if file is not None else ids or []
    if problems := [problem for id_ in wanted if (problem := unusable(id_))]:
        raise BadInput(f"an id holds {problems[0]}; no document has it")
    place = read_location(folder)
    with open_any(place, None, writable=True, access=read_settings().milvus_access()) as index:
        deleted = index.delete(wanted)
        state = _state(place, index.view())
    unknown = len(set(wanted)) - deleted
    if json:
        print_json(state | {"deleted": deleted, "unknown": unknown})
    else:
        typer.echo(f"{deleted:,} documents deleted, {unknown:,} ids unknown -> {_told(state)}")


@app.command()
def compact(
    folder: PlaceArgument, bundle: BundleOption = None, long_text: LongTextOption = None, json: JsonOption = False
) -> None:
    """Fold the changes of an index into its next generation, while it is searched and changed.

    The bundle is read only where FAISS ranks by its head.
    """
    from app.loading import open_index
    from index.opening import open_any
    from index.places import facts_at

    place, settings = read_location(folder), settings_with(bundle=bundle, long_text=long_text)
    access = settings.milvus_access()

    def opened() -> "Index":
        if facts_at(place, access)[1].head is None:
            return open_any(place, None, writable=True, access=access)
        return open_index(place, student_of(settings), True, access=access)

    with opened() as index:
        state = _state(place, index.compact())
    _say(state, json)


@app.command()
def rebuild(
    folder: PlaceArgument,
    bundle: BundleOption = None,
    long_text: LongTextOption = None,
    work: WorkOption = None,
    json: JsonOption = False,
) -> None:
    """Embed an index's own texts anew, by another bundle or read otherwise, while it is searched and changed."""
    from app.loading import head_vectors, identity
    from index.places import rebuild_at

    place, settings = read_location(folder), settings_with(bundle=bundle, long_text=long_text)
    student = student_of(settings)
    with progress_bar() as bar:
        task = bar.add_task("embedding", total=None)
        view = rebuild_at(
            place,
            settings.milvus_access(),
            work,
            student.encoder.encode,
            student.encoder.dims,
            identity(student),
            head_vectors(student),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            scores=_scores_of(student),
        )
    _say(_state(place, view), json)


@app.command()
def snapshot(
    folder: PlaceArgument,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Where to: a folder that must not exist, or an address.")],
    work: WorkOption = None,
    json: JsonOption = False,
) -> None:
    """Copy an index as it is at one moment, while it is searched and changed; also into Milvus, and out of it."""
    from index.places import copy_between

    place, target = read_location(folder), read_location(out)
    with progress_bar() as bar:
        task = bar.add_task("copying", total=None)
        access = read_settings().milvus_access()
        view = copy_between(place, target, access, work, lambda step: bar.update(task, description=step))
    _say(_state(target, view), json)


@app.command()
def info(folder: PlaceArgument, json: JsonOption = False) -> None:
    """Say what the live generation of an index holds."""
    from index.places import facts_at

    name, facts, pending = facts_at(read_location(folder), read_settings().milvus_access())
    if json:
        print_json({"generation": name, "changes_pending": pending} | facts.model_dump())
        return
    digest, _, long_text = facts.encoder.digest.partition("+")
    rows = {
        "generation": name,
        "documents": f"{facts.documents:,}",
        "changes since": f"{pending:,}",
        "dimensions": str(facts.dims),
        "recipe": facts.recipe + (f" ({facts.named} does not suit them now)" if _left(facts) else ""),
        "encoder": f"{facts.encoder.name} ({digest[:12]})",
        "long texts": long_text or "truncate",
        **_search_facts(facts),
        "created": str(facts.measured.get("created")),
    }
    print_table(["", ""], [[name, value] for name, value in rows.items()])


@app.command()
def verify(folder: PlaceArgument) -> None:
    """Compare every file of the live generation, and every change since, with its digest, and all with each other.

    In Milvus, every document.
    """
    from index.places import verify_at

    place = read_location(folder)
    name, documents, pending = verify_at(place, read_settings().milvus_access())
    changes = f", and so are the {pending:,} changes since" if isinstance(place, Path) else ""
    typer.echo(f"{place}: generation {name} is whole ({documents:,} documents){changes}")


def _left(facts: "GenerationManifest") -> bool:
    """Is the recipe another than the one that was named?"""
    return facts.named not in (None, facts.recipe)


def _state(place: "Location", view: "IndexView") -> dict[str, Any]:
    return {"index": str(place), "generation": view.name, "documents": len(view), "changes_pending": view.pending}


def _told(state: dict[str, Any]) -> str:
    return "{index} ({generation}, {documents:,} documents, {changes_pending:,} changes pending)".format_map(state)


def _say(state: dict[str, Any], json: bool) -> None:
    if json:
        print_json(state)
    else:
        typer.echo(_told(state))
