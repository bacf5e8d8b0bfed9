"""What does a text cost, as it gets longer? Time and memory of one pass in onnxruntime, a process a cell.

What a token costs is computing time, of all threads together: other programs on the machine change it little.
"""

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from scripts.markdown import table as markdown_table
from scripts.studies.cells import Cell, Found
from scripts.studies.memory import beside, forget_peak, peak_mib
from scripts.studies.plot import Axes, Dot, Series, lines

PASSES = 3
"""At least so many are timed, after one that is not."""


def cells(kinds: Sequence[str], lengths: Sequence[int], threads: int, weights: str) -> list[Cell]:
    """A cell for each kind of attention at each length, the lengths of a kind one after the other."""
    return [
        Cell(f"{kind}-{length}", {"attention": kind, "tokens": length, "threads": threads, "weights": weights})
        for kind in kinds
        for length in lengths
    ]


def measured(graph: Path, tokens: int, threads: int, seconds: float) -> Found:
    """One text of so many tokens, again and again for about so long, in a process of its own."""
    context = multiprocessing.get_context("spawn")  # a forked process would hold its parent's memory
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_passes, graph, tokens, threads, seconds).result()


def _passes(graph: Path, tokens: int, threads: int, seconds: float) -> Found:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    forget_peak()  # loading a graph takes more than it leaves
    before = peak_mib()
    ids = np.random.default_rng(0).integers(5, 50, (1, tokens))  # words of any vocabulary
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    session.run(["sentence_embedding"], inputs)
    taken: list[float] = []
    computed: list[float] = []
    while len(taken) < PASSES or sum(taken) < seconds:
        started, computing = time.perf_counter(), time.process_time()
        session.run(["sentence_embedding"], inputs)
        taken.append(time.perf_counter() - started)
        computed.append(time.process_time() - computing)
    return {
        "milliseconds": round(1000 * float(np.median(taken)), 3),
        "microseconds_per_token": round(1e6 * float(np.median(computed)) / tokens, 2),
        "passes": len(taken),
        "mib_beside_weights": beside(before),
    }


def table(
    found: Mapping[str, Found], kinds: Sequence[str], lengths: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a length a row; microseconds of computing a token, and peak memory, of every kind."""
    columns = ["tokens", *(f"{kind}, {unit}" for kind in kinds for unit in ("CPU µs/token", "MiB"))]
    rows = []
    for length in lengths:
        row = [str(length)]
        for kind in kinds:
            cell = found.get(f"{kind}-{length}")
            row += ["", ""] if cell is None else [f"{cell['microseconds_per_token']:.1f}", _mib(cell)]
        rows.append(row)
    return columns, rows


def _mib(cell: Found) -> str:
    return "" if cell["mib_beside_weights"] is None else f"{cell['mib_beside_weights']:.0f}"


def summary(found: Mapping[str, Found], kinds: Sequence[str], lengths: Sequence[int]) -> dict[str, Any]:
    """For each linear kind: from which length on it is faster than softmax, and how much a token's cost varies.

    ``spread`` is over lengths from 512: the largest departure from the mean cost of a token, in percent.
    """
    told: dict[str, Any] = {}
    for kind in kinds:
        costs = {n: found[f"{kind}-{n}"]["microseconds_per_token"] for n in lengths if f"{kind}-{n}" in found}
        long = [cost for n, cost in costs.items() if n >= 512]
        spread = None
        if len(long) > 1:
            mean = sum(long) / len(long)
            spread = round(100 * max(abs(cost - mean) for cost in long) / mean, 1)
        softmax = {n: found[f"softmax-{n}"]["microseconds_per_token"] for n in costs if f"softmax-{n}" in found}
        slower = [n for n in softmax if softmax[n] <= costs[n]]
        faster = [n for n in softmax if n > max(slower, default=0)]
        told[kind] = {"spread": spread} | ({} if kind == "softmax" else {"faster_from": min(faster, default=None)})
    return told


def pictures(found: Mapping[str, Found], kinds: Sequence[str], lengths: Sequence[int]) -> dict[str, tuple[str, str]]:
    """By file name, what a picture shows, and the picture; those for which there is nothing to draw are left out."""
    every = [
        ("cost-time.svg", "Computing time of a token, as texts get longer", "CPU µs/token", "microseconds_per_token"),
        ("cost-memory.svg", "Memory of one pass beside the weights", "MiB", "mib_beside_weights"),
    ]
    drawn = {}
    for file, title, upwards, figure in every:
        shown = [
            Series(kind, [Dot(n, y) for n in lengths if (y := found.get(f"{kind}-{n}", {}).get(figure))])
            for kind in kinds
        ]
        if any(series.dots for series in shown):
            axes = Axes(title, "tokens of a text", upwards, doubling=True, powers=True)
            drawn[file] = title, lines(axes, shown)
    return drawn


def markdown(
    found: Mapping[str, Found], kinds: Sequence[str], lengths: Sequence[int], threads: int, drawn: Mapping[str, str]
) -> str:
    """The page of the study: its table, and its pictures by file name."""
    columns, rows = table(found, kinds, lengths)

    def page() -> Iterator[str]:
        yield "# What a token costs\n"
        yield HOW.format(threads=threads)
        yield from markdown_table(columns, rows)
        yield ""
        for kind, facts in summary(found, kinds, lengths).items():
            yield f"- {kind}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
        for file, title in drawn.items():
            yield f"\n![{title}]({file})"

    return "\n".join(page()) + "\n"


HOW = """\
One text at a time, all layers with one kind of attention, fp32, onnxruntime on {threads} threads. Computing is the time
of all threads together; memory is what a pass takes beside the weights. *Spread*: how far the cost of a token departs
from its mean over lengths from 512, in percent; *faster from*: the length from which on a linear kind costs less than
softmax.
"""
