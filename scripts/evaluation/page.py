"""What does a run of dse evaluate look like as a page of the documentation?"""

from scripts.evaluation.results import Results
from scripts.evaluation.tables import notes, tables, verdict
from scripts.markdown import table


def markdown(results: Results, command: str, plot: str | None = None) -> str:
    """The page: the command, every table, what the guard says, and what has to be known of the sets.

    Args:
        results: what was measured.
        command: as it was called.
        plot: the plot's place beside the page.
    """
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    lines = ["# Results", "", "Written by", "", "```console", f"$ {command}", "```", ""]
    lines += [f"with {versions}. What the columns mean: [evaluation.md](evaluation.md).", ""]
    if plot is not None:
        lines += [f"![quality against speed]({plot})", ""]
    for columns, rows in tables(results):
        lines += [*table(columns, rows), ""]
    if said := verdict(results):
        lines += ["```", *said, "```", ""]
    lines += [f"- {note}" for note in notes(results)]
    return "\n".join(lines).rstrip() + "\n"
