"""How do people read the results? One table a kind of set, then agreement, speed, and the guard."""

from collections.abc import Iterable, Sequence

from scripts.evaluation.bootstrap import Estimate
from scripts.evaluation.results import MAIN, Mean, Results, Row
from scripts.evaluation.sets import KINDS, Kind

Table = tuple[list[str], list[list[str]]]
"""Columns and rows."""

HEADINGS: dict[Kind, dict[str, str]] = {
    "sts": {"pearson": "P", "spearman": "S"},
    "classification": {"average_precision": "AP", "f1": "F1", "accuracy": "accuracy"},
    "retrieval": {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "recall@10": "R@10", "recall@100": "R@100"},
}
WITH_INTERVAL = {"pearson", "spearman", "average_precision", "ndcg@10"}


def tables(results: Results) -> list[Table]:
    """The tables that have something in them."""
    found = [_figures(results, kind) for kind in KINDS if any(row.kind == kind for row in results.rows)]
    if results.agreement:
        rows = [
            [one.set, one.model, one.by, one.teacher, _number(one.spearman), _number(one.kendall)]
            for one in results.agreement
        ]
        found.append((["agreement", "model", "by", "teacher", "S", "Kendall"], rows))
    found.append(_models(results))
    return found


def _figures(results: Results, kind: Kind) -> Table:
    names = HEADINGS[kind]
    rows = [row for row in results.rows if row.kind == kind]
    compared = any(row.over_baseline for row in rows)
    over = [f"{names[MAIN[kind]]} over {results.baseline}"] if compared else []
    body = [
        [row.set, row.model, row.by]
        + [
            _estimate(row.figures[name]) if name in WITH_INTERVAL else _number(row.figures[name].value)
            for name in names
        ]
        + ([_over(row)] if compared else [])
        for row in rows
    ]
    if len({row.set for row in rows}) > 1:
        body += [_mean(one, list(names), compared) for one in results.means if one.kind == kind]
    return [kind, "model", "by", *names.values(), *over], _once(body)


def _mean(one: Mean, names: Sequence[str], compared: bool) -> list[str]:
    cells = [_number(one.value) if name == MAIN[one.kind] else "" for name in names]
    return [f"mean of {one.sets}", one.model, one.by, *cells, *([""] if compared else [])]


def _models(results: Results) -> Table:
    paces = {(pace.model, pace.unit): pace for pace in results.speed.paces} if results.speed else {}
    rows = []
    for name in dict.fromkeys([*(model.name for model in results.models), *(model for model, _ in paces)]):
        size = next((model.megabytes for model in results.models if model.name == name), None)
        row = [name, "" if size is None else f"{size:.1f}"]
        for unit in ("sentence", "pair"):
            pace = paces.get((name, unit))
            row += [f"{pace.per_second:,.0f}", f"{pace.milliseconds:.2f}", f"{pace.to_first:.2f}"] if pace else [""] * 3
            if unit == "sentence":
                row.append("" if pace is None or pace.to_tokenising is None else f"{pace.to_tokenising:.3f}")
        rows.append(row)
    timed = ["sentences/s", "ms for one", "to first", "to tokenising", "pairs/s", "ms for a pair", "to first"]
    columns = ["model", "MB", *timed]
    return (columns, rows) if paces else (columns[:2], [row[:2] for row in rows])


def notes(results: Results) -> list[str]:
    """What has to be known of some sets, a line each."""
    said = {facts.name: [facts.remark, "left out of means" if facts.apart else None] for facts in results.sets}
    return [f"{name}: {'; '.join(filter(None, parts))}" for name, parts in said.items() if any(parts)]


def verdict(results: Results) -> list[str]:
    """What the guard says, a line each; the first says it all."""
    if (guard := results.guard) is None:
        return []
    within = f"within {guard.margin:g} points of {guard.baseline}"
    if not guard.checked:
        return ["the guard has nothing to go by: no other model answers any of the guarded sets"]
    if not guard.behind:
        return [f"the guard holds: all {guard.checked} answers on guarded sets are {within}"]
    lines = [f"{len(guard.behind)} of {guard.checked} answers on guarded sets are not {within}:"]
    return lines + [
        f"  {one.set}: {one.model} by {one.by} has {_number(one.value)} ({_number(one.difference, '+')})"
        for one in guard.behind
    ]


def _over(row: Row) -> str:
    return _estimate(row.over_baseline[MAIN[row.kind]], "+") if row.over_baseline else ""


def _estimate(figure: Estimate, sign: str = "") -> str:
    if figure.low is None or figure.high is None:
        return _number(figure.value, sign)
    return f"{_number(figure.value, sign)} [{figure.low:{sign}.1f}, {figure.high:{sign}.1f}]"


def _number(value: float | None, sign: str = "") -> str:
    return "undefined" if value is None else f"{value:{sign}.2f}"


def _once(rows: Iterable[list[str]]) -> list[list[str]]:
    """The rows without a set's name where the row above has it."""
    found, above = [], ""
    for row in rows:
        found.append(["" if row[0] == above else row[0], *row[1:]])
        above = row[0]
    return found
