"""How many requests at once? As many as have a thread; the others are told when to come back."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth import PROBES
from app.batching import Queues, retry_after
from app.errors import ServiceError, refusal_response

ALWAYS = PROBES | {"/metrics"}
"""Answered at any load."""


class Admission:
    """ASGI middleware: 429 beyond ``most`` requests in progress, before anything of a body is read."""

    def __init__(self, app: ASGIApp, most: int, queues: Queues) -> None:
        self._app, self._most, self._queues = app, most, queues
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, if there is room."""
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._inside >= self._most:
            message = f"{self._inside} requests are in progress, as many as may be (DSE_MAX_REQUESTS); try again"
            later = retry_after(self._queues.seconds_to_empty)
            await refusal_response(ServiceError(429, message, retry_after=later))(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1
