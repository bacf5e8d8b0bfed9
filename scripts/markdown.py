"""What does a table look like in a page of Markdown?"""

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Its lines. Rows may be short: what they lack is empty."""
    padded = [[*map(str, row), *[""] * (len(columns) - len(row))] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *padded]]
