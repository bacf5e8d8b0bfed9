"""How large may a body be? Refused as soon as that is known, the limit named in the answer."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import error_response


class BodyLimit:
    """ASGI middleware: 413 for a body above ``max_bytes``, whether its length was declared or not."""

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
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                # Raised where the route reads its body, so it reaches the error table like any other refusal.
                raise HTTPException(413, self._message)
            return message

        await self._app(scope, counted, send)
