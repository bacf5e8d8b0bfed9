"""How large may a body be, and how slow? Refused as soon as that is known, the limit named in the answer."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.calls import CALL
from app.errors import error_response


class BodyLimit:
    """ASGI middleware: 413 for a body above ``max_bytes``, whether its length was declared or not; 504 for a late one.

    Who sends slowly, or stops, would else hold a place among the requests in progress for as long as he likes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes
        self._message = f"the body is larger than {max_bytes} bytes (DSE_MAX_BODY_BYTES); send it in parts"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await error_response(413, self._message)(scope, receive, send)
            return
        read, whole = 0, False

        async def counted() -> Message:
            nonlocal read, whole
            message = await receive() if whole else await _in_time(receive)
            whole = not message.get("more_body")
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                # Raised where the route reads its body, so it reaches the error table like any other refusal.
                raise HTTPException(413, self._message)
            return message

        await self._app(scope, counted, send)


async def _in_time(receive: Receive) -> Message:
    """The next part of a body, unless the present call's deadline passes first."""
    call = CALL.get()
    if call is None:
        return await receive()
    try:
        return await asyncio.wait_for(receive(), max(0.0, call.left))
    except TimeoutError as error:
        message = f"the body had not arrived within {call.timeout:g} seconds (DSE_TIMEOUT); send it in parts"
        raise HTTPException(504, message, {"Connection": "close"}) from error
