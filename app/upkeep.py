"""When are changes folded into a new generation? By itself, once enough of them wait, beside the requests."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from types import TracebackType
from typing import Self, TypeVar

from index.contract import Index
from index.live import OPENING
from index.manifest import IndexFault

log = logging.getLogger("dse")

T = TypeVar("T")

NAME = "upkeep"

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_AFTER_A_FAULT = 60.0


class Upkeep:
    """A thread that compacts an index whenever ``compact_after`` changes are pending, whoever made them."""

    def __init__(self, index: Index, compact_after: int, seconds: float = SECONDS_BETWEEN_LOOKS) -> None:
        self._index, self._compact_after, self._seconds = index, compact_after, seconds
        self._stop = threading.Event()
        # A daemon: a process that is told to end need not wait, since a compaction may be cut off at any moment.
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        wait = self._seconds
        while not self._stop.wait(wait):
            wait = self._seconds
            try:
                if self._index.view().pending >= self._compact_after:
                    view = self._index.compact()
                    log.info("compacted: generation %s holds %d documents", view.name, len(view))
            except IndexFault as fault:
                log.warning("not compacted: %s", fault)
                wait = SECONDS_AFTER_A_FAULT
            except Exception:
                log.exception("not compacted")
                wait = SECONDS_AFTER_A_FAULT


def goes_on() -> bool:
    """Whether some work on an index, which may be cut off at any moment, is still under way."""
    return any(thread.name.startswith((NAME, OPENING)) for thread in threading.enumerate())


async def abandonable(work: Callable[[], T]) -> T:
    """What some work on an index answers, in a daemon thread: the threads of requests are waited for when all ends."""
    done: Future[T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()  # from here on who waits may leave, and the work goes on
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), name=f"{NAME} on demand", daemon=True).start()
    return await asyncio.wrap_future(done)
