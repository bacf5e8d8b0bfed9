"""How does a build look to the person who waits for it?"""

import time

from rich.progress import Progress

from index.build import Watcher
from index.needs import Needs
from scripts.console import errors


class BuildProgress(Watcher):
    """A bar with documents, rate and time left, and a line for what must be known before."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("embedding", total=None)
        self._started: float | None = None
        self._first = 0  # documents when this run's embedding was first heard of

    def needs(self, needs: Needs) -> None:
        """Said once, where there is more than a shard of it."""
        if needs.seconds is None:
            return
        about = f"about {needs.documents:,} documents need" if needs.known else "a million documents would need"
        errors.print(
            f"{about} {needs.disk / 1e9:,.2f} GB of disk ({needs.free / 1e9:,.2f} GB are free), "
            f"{needs.memory / 1e9:,.2f} GB of memory and {duration(needs.seconds)} of embedding",
            markup=False,
        )

    def embedded(self, documents: int, resumed: int, expected: int | None) -> None:
        """Rate and time left are of what this run embeds."""
        if documents == resumed:
            self._bar.update(self._task, completed=documents, total=expected, description="comparing with the last run")
            return
        now = time.monotonic()
        if self._started is None:
            self._started, self._first = now, documents
            if resumed:
                errors.print(f"going on after {resumed:,} documents that are embedded already", markup=False)
        rate = (documents - self._first) / max(now - self._started, 1e-9)
        left = f", {duration((expected - documents) / rate)} left" if rate and expected and expected > documents else ""
        said = f"embedding, {rate:,.0f} a second{left}" if rate else "embedding"
        self._bar.update(self._task, completed=documents, total=expected, description=said)

    def finishing(self, step: str) -> None:
        """The bar is full; what is done now has no measure."""
        completed = self._bar.tasks[self._task].completed
        self._bar.update(self._task, total=completed, description=step)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(40), duration(400), duration(40_000)
    ('40 s', '7 min', '11.1 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
