"""dse benchmark bundle, encode and claim: how fast are the models, beside others?"""

import json as json_lines
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.threads import limit_native_threads
from scripts.console import BadInput, check_place, print_table, progress_bar, settings_with, student_of, written
from scripts.options import BundleOption
from scripts.training_commands import OutputBundle, needs_torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.settings import Settings
    from scripts.benchmarks.contestants import Contestant
    from scripts.benchmarks.encode import Standing

PEERS = Path(__file__).parent / "benchmarks" / "peers"
SENTENCE_TRANSFORMERS = {
    "sentence-transformers torch fp32": "torch",
    "sentence-transformers ONNX fp32": "onnx",
    "sentence-transformers ONNX int8": "onnx-int8",
}
SCRIPT = "sentence_transformers_lines.py"
PER_CALL = 32
MOST_TOKENS = 512
CALIBRATION_TEXTS = 300

ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="DSE_THREADS")]


def _writable(path: Path | None) -> Path | None:
    """Said before the work, not after it."""
    if path is not None:
        check_place(path)
    return path


OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", callback=_writable, help="Write the figures here, as JSON."),
]
TextsOption = Annotated[Path | None, typer.Option(help="What to embed, a text a line.", show_default="of --data")]
DataOption = Annotated[
    Path | None, typer.Option(envvar="DSE_DATA", help="Folder of data sets, where no texts are given.")
]
KindOption = Annotated[
    str, typer.Option(help="Of the data folder's texts: queries, sentences, paragraphs, or a mix of them.")
]


def bundle(
    weights: Annotated[Path, typer.Argument(help="A folder of a sentence encoder: mean pooling, unit length.")],
    output: OutputBundle,
    texts: TextsOption = None,
    data: DataOption = None,
) -> None:
    """Export a pretrained encoder as it is, to measure it beside peers with the same weights."""
    needs_torch()
    from model.training.export import export_untouched
    from scripts.benchmarks.texts import sentences, texts_of

    if texts is None and data is not None:
        seen = sentences(data, "train")[:: max(1, len(sentences(data, "train")) // CALIBRATION_TEXTS)]
    else:
        seen, _ = texts_of(texts, data, "sentences", CALIBRATION_TEXTS)
    export_untouched(weights, seen, output, lambda words: typer.echo(words, err=True))
    typer.echo(f"{weights} -> {output}")


def encode(
    bundle: BundleOption = None,
    weights: Annotated[
        Path | None, typer.Option(help="The bundle's weights as a sentence-transformers folder, for the peers.")
    ] = None,
    peer_python: Annotated[
        Path | None, typer.Option(help="A Python that has sentence-transformers[onnx]; without one, no peers.")
    ] = None,
    texts: TextsOption = None,
    data: DataOption = None,
    kind: KindOption = "mix",
    count: Annotated[int, typer.Option(min=2, help="Texts, at most.")] = 3000,
    rounds: Annotated[int, typer.Option(min=1, help="In each, all take turns, there and back.")] = 5,
    singles: Annotated[int, typer.Option(min=1, help="Texts embedded alone, a turn.")] = 100,
    batch: Annotated[int, typer.Option(min=1, help="Texts of a peer's batch.")] = 32,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """Time embedding, many texts and one at a time, beside peers with the same weights in the same run."""
    if peer_python is not None and weights is None:
        raise BadInput("the peers need --weights FOLDER: the bundle's weights as sentence-transformers reads them")
    settings = settings_of(bundle, threads)

    import numpy as np

    from model.bundle import TOKENIZER
    from model.tokens import SentenceTokenizer
    from scripts.benchmarks.conditions import run_facts
    from scripts.benchmarks.contestants import Contestant, Peer
    from scripts.benchmarks.encode import measure
    from scripts.benchmarks.texts import gold_pairs, texts_of

    asked, source = texts_of(texts, data, kind, count)
    on = run_facts("encode", settings.threads)
    with ExitStack() as stack, progress_bar() as bar:
        task = bar.add_task("loading", total=None)
        ours = _ours(settings, asked)
        peers: list[Contestant] = []
        if peer_python is not None and weights is not None:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dse-benchmark-")))
            wish = {"weights": str(weights.resolve()), "threads": settings.threads, "batch": batch}
            wish |= {"scratch": str(scratch)}
            for name, backend in SENTENCE_TRANSFORMERS.items():
                bar.update(task, description=f"loading {name}")
                peer = Peer(name, peer_python, PEERS / SCRIPT, wish | {"backend": backend}, asked, scratch)
                stack.callback(peer.close)
                peers.append(peer)
        gold = None if data is None else gold_pairs(data)
        found = measure(
            [*ours, *peers],
            asked,
            rounds,
            singles,
            peers[0] if peers else None,
            gold,
            lambda words: bar.update(task, description=words),
        )
    tokens = SentenceTokenizer.load(settings.bundle / TOKENIZER, MOST_TOKENS).tokenize(asked).lengths
    about = {
        "texts": len(asked),
        "source": source,
        "tokens": " / ".join(f"{value:.0f}" for value in np.percentile(tokens, [5, 50, 95])) + " (p5 / p50 / p95)",
        "rounds": rounds,
        "batch": batch,
    }
    _show_encode(found, on | about)
    save(output, on | about | {"results": [standing.report() for standing in found]})


def _ours(settings: "Settings", texts: "Sequence[str]") -> "list[Contestant]":
    """The graphs that a bundle has, int8 first; that one also as it answers requests of a few texts."""
    from model.bundle import GRAPH_FILES, BundleManifest, Graph
    from scripts.benchmarks.contestants import Ours

    graphs: tuple[Graph, ...] = ("int8", "fp32")
    found: list[Contestant] = []
    for graph in [graph for graph in graphs if GRAPH_FILES[graph] in BundleManifest.read(settings.bundle).files]:
        student = student_of(settings, graph)
        facts = {"runs": GRAPH_FILES[graph], "bundle": student.name, "encoder": student.encoder_digest}
        found.append(Ours(f"dse {graph}", student.encoder.encode, texts, facts))
        if graph == "int8":
            name = f"dse int8, {PER_CALL} texts a call"
            found.append(Ours(name, student.encoder.encode, texts, facts, PER_CALL))
    return found


def _show_encode(found: "list[Standing]", on: dict[str, Any]) -> None:
    print_table(["measured on", ""], [[name, str(value)] for name, value in on.items()])
    rows = [
        [
            standing.name,
            f"{standing.per_second:,.0f}",
            f"{standing.per_cpu_second:,.0f}",
            f"{standing.p50:.2f}",
            f"{standing.p99:.2f}",
            *("" if ratio is None else str(ratio) for ratio in (standing.behind, standing.behind_single)),
            "" if standing.agreement is None else f"{standing.agreement:.4f}",
            "" if standing.quality is None else f"{standing.quality:.2f}",
        ]
        for standing in found
    ]
    columns = ["", "a second", "a CPU second", "one: p50 ms", "p99 ms"]
    first = found[0].name
    print_table([*columns, f"{first} is faster", "at one text", "cosine to peer", "STS-B S"], rows)


def claim(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A large index of the bundle's; it is not changed.")],
    bundle: BundleOption = None,
    teacher: Annotated[
        Path | None, typer.Option(envvar="DSE_TEACHER", help="The teacher's bundle.", show_default="shipped")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="That the teacher scores, a round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="In each, all take turns, there and back.")] = 3,
    threads: ThreadsOption = None,
    output: OutputOption = None,
) -> None:
    """One query against every document: the index and the head, the head alone over all, and the teacher."""
    settings = settings_of(bundle, threads, teacher=teacher)
    if settings.teacher is None:
        raise BadInput("there is no teacher to compare with: give --teacher DIR")

    from app.loading import open_index
    from model.bundle import load_teacher
    from scripts.benchmarks.claim import QUERIES, measure
    from scripts.benchmarks.conditions import conditions

    student = student_of(settings)
    scorer = load_teacher(settings.teacher, settings.threads)
    with open_index(index, student) as live, progress_bar() as bar:
        task = bar.add_task("reading the index", total=None)
        view = live.view()
        depth = settings.depth_for(view.manifest.depth)
        on = conditions("claim", view, student.name, settings.threads, QUERIES, "documents")
        found = measure(view, student, scorer, depth, pairs, rounds, lambda words: bar.update(task, description=words))
    print_table(["measured on", ""], [*on.rows(), ["teacher", scorer.name], ["depth", str(depth)]])
    rows = [
        [way.name, f"{way.milliseconds:,.1f}", "" if way.faster is None else f"{way.faster.median:,.0f}",
         "" if way.faster is None else f"{way.faster.least:,.0f} to {way.faster.most:,.0f}"]
        for way in found
    ]  # fmt: skip
    print_table([f"one query, {on.documents:,} documents", "ms", "faster than the teacher", "rounds"], rows)
    save(
        output, on.report({"teacher": scorer.name, "depth": depth, "pairs": pairs, "ways": [w.report() for w in found]})
    )


def settings_of(bundle: Path | None, threads: int | None, **more: Any) -> "Settings":
    """The settings, from options and variables; libraries that are loaded from here on use so many threads."""
    settings = settings_with(bundle=bundle, threads=threads, **more)
    limit_native_threads(settings.threads)  # before numpy and FAISS are loaded
    return settings


def save(output: Path | None, report: dict[str, Any]) -> None:
    """Write a report, if there is a place for it."""
    if output is not None:
        with written(output, "w") as file:
            file.write(json_lines.dumps(report, indent=2, ensure_ascii=False) + "\n")
