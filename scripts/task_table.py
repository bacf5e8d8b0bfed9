"""What does a student lose against its teacher, over all tasks? The results of their runs, as a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from model.training.recipes import TASK_RESULT
from scripts.console import BadInput
from scripts.markdown import table

Result = dict[str, Any]
"""What ``dse tasks run`` wrote of one task."""

PAPER = -4.6
"""Percent that the students of the DSE paper lose on average (arXiv 1908.05161, abstract)."""

NAMES = {"f1": "F1", "accuracy": "accuracy", "pearson": "Pearson", "spearman": "Spearman"}


COLUMNS = (
    "task",
    "figure",
    "teacher",
    "student",
    "student against teacher",
    "also, teacher / student",
    "rows with gold, teacher / student",
    "rows with the teacher's logits alone",
    "rows judged",
    "seed",
)


def read_results(runs: Path) -> list[Result]:
    """The results of every task below a folder, by name.

    Raises:
        BadInput: there are none, or one is not what ``dse tasks run`` writes.
    """
    results = []
    for path in sorted(runs.glob(f"*/{TASK_RESULT}")):
        try:
            result = json.loads(path.read_text("utf-8"))
            markdown([result])
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise BadInput(
                f"{path} is not a result of dse tasks run ({error!r}); remove it and run it again"
            ) from error
        results.append(result)
    if not results:
        raise BadInput(f"{runs} holds no finished task; run dse tasks run --output {runs}")
    return results


def relative_change(result: Result) -> float:
    """Percent by which the student's figure on test differs from its teacher's."""
    figure = result["claim"]["recipe"]["figure"]
    return 100 * (result["student"]["test"][figure] / result["teacher"]["test"][figure] - 1)


def markdown(results: Sequence[Result]) -> str:
    """The page."""
    inits = sorted({result["claim"]["recipe"]["teacher"]["init"] for result in results})
    mean = fmean(relative_change(result) for result in results)
    rows = [_row(result) for result in results]
    rows.append([f"**mean of {len(results)}**", "", "", "", f"**{mean:+.1f} %**"])
    rows.append(["the paper's mean of 5", "", "", "", f"{PAPER:+.1f} %"])
    lines = [
        "# The pair tasks of the DSE paper",
        "",
        "Written by `dse tasks table` from the runs of `dse tasks run`. Each task has its own teacher, a",
        "cross-encoder fine-tuned on the rows with gold, and its own student, an encoder with the DSE head that learns",
        "from gold and from the teacher's logits (arXiv 1908.05161). Both start from",
        f"`{', '.join(inits)}`. Everything was chosen on dev; the figures are those of test, in percent (F1,",
        "accuracy) or points (Pearson, Spearman). The paper's are of BERT-large and the whole GLUE sets: only the",
        "relative loss compares.",
        "",
        *table(COLUMNS, rows),
        "",
        "No sentence of a task's dev or test part is trained on (compared without case, accents and punctuation).",
        "",
        *(line for result in results for line in _data(result)),
        *(line for result in results if "shallow" in result for line in _shallow(result)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _row(result: Result) -> list[str]:
    recipe, teacher, student = result["claim"]["recipe"], result["teacher"], result["student"]
    figure = recipe["figure"]
    return [
        recipe["name"],
        NAMES[figure],
        f"{teacher['test'][figure]:.2f}",
        f"{student['test'][figure]:.2f}",
        f"{relative_change(result):+.1f} %",
        ", ".join(f"{NAMES[other]} {_both(result, 'test', other)}" for other in teacher["test"] if other != figure),
        f"{teacher['pairs']['gold']:,} / {student['pairs']['gold']:,}",
        f"{student['pairs']['teacher_only']:,}",
        f"{result['rows']['test']:,}",
        str(student["seed"]),
    ]


def _both(result: Result, split: str, figure: str) -> str:
    return " / ".join(f"{result[part][split][figure]:.2f}" for part in ("teacher", "student"))


def _data(result: Result) -> list[str]:
    """What a task was trained and judged on."""
    recipe, judged = result["claim"]["recipe"], result["judged_on"]
    figure = recipe["figure"]
    return [
        f"## {recipe['name']}",
        "",
        *([recipe["note"], ""] if recipe["note"] else []),
        f"- dev: {result['rows']['dev']:,} rows of {judged['dev']}; teacher / student: "
        f"{NAMES[figure]} {_both(result, 'dev', figure)}",
        f"- test: {result['rows']['test']:,} rows of {judged['test']}",
        *(f"- trained on {described}" for described in result["trained_on"]),
        "",
    ]


def _shallow(result: Result) -> list[str]:
    """The shallow network beside the teacher, by the measures of DistilBERT's paper."""
    recipe, shallow, teacher = result["claim"]["recipe"], result["shallow"], result["teacher"]
    name, seconds = recipe["name"], shallow["seconds"]
    full, kept = (facts["dev"][recipe["figure"]] for facts in (teacher, shallow))
    smaller = 1 - shallow["parameters"] / teacher["parameters"]
    rows = [
        [
            part,
            str(shallow["layers"][part]),
            f"{facts['parameters'] / 1e6:.1f} M",
            f"{figure:.2f}",
            f"{seconds[part]:.1f}",
        ]
        for part, facts, figure in (("teacher", teacher, full), ("shallow", shallow, kept))
    ]
    return [
        "## A shallow teacher, made as DistilBERT was",
        "",
        f"A cross-encoder of {shallow['layers']['shallow']} layers. First its body, which starts as layers of the",
        "initial weights, imitates these on plain texts with DistilBERT's three losses (arXiv 1910.01108); then it",
        f"learns the task from gold and the teacher's logits. Seconds are of one pass over {name} dev at batch 1, one",
        "order a pair: torch, fp32, one CPU thread, tokenising included, the two networks taking turns pair by pair.",
        "",
        *table([f"{name} dev", "layers", "parameters", NAMES[recipe["figure"]], "seconds"], rows),
        "",
        f"The shallow one keeps {kept / full:.1%} of the teacher's figure, is {smaller:.0%} smaller, and "
        f"{seconds['teacher'] / seconds['shallow']:.2f} times as fast.",
        "DistilBERT beside BERT-base: 97 % of the mean of GLUE dev, 40 % smaller (66 M against 110 M parameters), 1.63",
        "times as fast (410 s against 668 s for a pass over STS-B dev).",
        "",
    ]
