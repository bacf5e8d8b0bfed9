"""What becomes of each request? It gets an id and a deadline; its end is logged and counted, its client's noticed."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterator, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission import ALWAYS
from app.calls import CALL, CLIENT_GONE, Call
from app.errors import ID_HEADER, REQUEST_ID, ServiceError, refusal_response
from app.logs import FACTS
from app.metrics import Metrics
from model.line import STILL_WANTED

log = logging.getLogger("dse.access")

_SANE_ID = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
PART = 2**16
"""Bytes of an answer that are given to the server at a time: it keeps what a client does not read."""
SECONDS_A_PART = 5.0
"""A client has the time of a request to read a part, or so many seconds if that is less."""
UNKNOWN = "unknown"
"""The route of a path that there is not, the method of a word that is none: bounded, whatever is asked."""


class Observer:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, metrics: Metrics, timeout: float, routes: Sequence[BaseRoute] = ()) -> None:
        self._app, self._metrics, self._timeout, self._routes = app, metrics, timeout, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = Call(_request_id(scope), self._timeout)
        scope.setdefault("state", {})[REQUEST_ID] = call.id
        STILL_WANTED.set(call.check)
        CALL.set(call)  # never reset: each request is a task of its own, and what is logged after it is its own too
        status, begun = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                MutableHeaders(scope=message)[ID_HEADER] = call.id
            try:
                for part in _parts(message):
                    async with asyncio.timeout(max(self._timeout, SECONDS_A_PART)):
                        await send(part)
            except TimeoutError:  # whoever does not read it need not be told; the server hangs up
                call.gone = True
                status = CLIENT_GONE

        watch = _Watch(receive, call)
        try:
            await self._app(scope, watch.receive, answer)
        except asyncio.CancelledError:
            call.gone = True  # what still waits for a model is dropped
            if not begun:
                message = "the service is stopping, and this took longer than it may (DSE_DRAIN); try again"
                await refusal_response(ServiceError(503, message, retry_after=1))(scope, receive, answer)
            raise
        finally:
            watch.end()
            self._note(scope, call, CLIENT_GONE if watch.body_cut else status)

    def _note(self, scope: Scope, call: Call, status: int) -> None:
        seconds = time.monotonic() - call.started
        method = scope["method"] if scope["method"] in _METHODS else UNKNOWN
        route = self._route(scope)
        self._metrics.answered(call, method, route, status, seconds)
        facts = {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 2)}
        if call.tokens:
            facts |= {"tokens": call.tokens, "batch_wait_ms": round(1000 * call.seconds.get("queue", 0.0), 2)}
        # What probes ask every second is counted, and not written down.
        level = logging.DEBUG if route in ALWAYS and status < 400 else logging.INFO
        log.log(level, "%s %s %d", method, route, status, extra={FACTS: facts})

    def _route(self, scope: Scope) -> str:
        """The path of the request's route as a label, also where it was refused before it came there."""
        known = scope.get("route") or next((r for r in self._routes if r.matches(scope)[0] is not Match.NONE), None)
        return getattr(known, "path", UNKNOWN)


def _parts(message: Message) -> Iterator[Message]:
    """A message of the application's, a long body in parts."""
    body, more = message.get("body", b""), message.get("more_body", False)
    if len(body) <= PART:
        yield message
        return
    for start in range(0, len(body), PART):
        end = start + PART
        yield {**message, "body": body[start:end], "more_body": more or end < len(body)}


class _Watch:
    """Notices when the client hangs up after it has sent its body."""

    def __init__(self, receive: Receive, call: Call) -> None:
        self._receive, self._call = receive, call
        self._after_body: asyncio.Task[Message] | None = None
        self.body_cut = False  # the client hung up while it sent its body

    async def receive(self) -> Message:
        """The next message of the server, as if nobody watched."""
        if self._after_body is not None:
            return await asyncio.shield(self._after_body)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._call.gone = self.body_cut = True
        elif not message.get("more_body"):
            self._after_body = asyncio.create_task(self._disconnect())
        return message

    def end(self) -> None:
        """Watch no longer."""
        if self._after_body is not None:
            self._after_body.cancel()

    async def _disconnect(self) -> Message:
        message = await self._receive()
        self._call.gone = message["type"] == "http.disconnect"
        return message


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(ID_HEADER, "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
