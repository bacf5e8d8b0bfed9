"""Who is asking, until when, and where does the time go? One call a request, known wherever its work is done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry.trace import get_current_span, get_tracer

from app.errors import ServiceError

TRACER = get_tracer("dse")
"""Does nothing until an exporter is set up, by the OTEL_* variables or whoever made the application."""

CLIENT_GONE = 499
"""The status in log and metrics of a request whose client did not wait; nobody receives it."""


@dataclass
class Call:
    """A request under way."""

    id: str
    timeout: float  # seconds it may take
    started: float = field(default_factory=time.monotonic)
    gone: bool = False  # its client has hung up
    tokens: int = 0  # that were given to models
    seconds: dict[str, float] = field(default_factory=dict)  # by stage

    @property
    def left(self) -> float:
        """Seconds to its deadline; negative beyond."""
        return self.started + self.timeout - time.monotonic()

    def refusal(self) -> ServiceError | None:
        """Why no more work should be done for it, if so."""
        if self.gone:
            return ServiceError(CLIENT_GONE, "the client has hung up")
        return self.late() if self.left <= 0 else None

    def check(self) -> None:
        """See that somebody waits for the answer.

        Raises:
            ServiceError: the client has hung up, or the deadline has passed.
        """
        if refusal := self.refusal():
            raise refusal

    def late(self) -> ServiceError:
        """That its deadline has passed."""
        return ServiceError(504, f"not answered within {self.timeout:g} seconds (DSE_TIMEOUT); ask for less at once")

    def add(self, stage: str, seconds: float) -> None:
        """Note that a stage took some time."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


CALL: ContextVar[Call | None] = ContextVar("call", default=None)
"""The request that the present thread or task works for; worker threads inherit it."""


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a stage of the present call, which is not begun if nobody waits for it any more.

    Raises:
        ServiceError: the client has hung up, or the deadline has passed.
    """
    call = CALL.get()
    if call is None:
        yield
        return
    call.check()
    started = time.monotonic()
    try:
        yield
    finally:
        ended = time.monotonic()
        call.add(name, ended - started)
        trace_past(name, started, ended)


def trace_past(name: str, began: float, ended: float) -> None:
    """A span of a stage that is over, and was timed by ``time.monotonic()``; of a request that is traced."""
    if not get_current_span().is_recording():  # a span that nobody keeps would cost more than to ask
        return
    ahead = time.time_ns() - time.monotonic_ns()
    span = TRACER.start_span(name, start_time=round(1e9 * began) + ahead)
    span.end(ahead + round(1e9 * ended))
