"""What can the client do alone? A service that answers the same to everything, at once: ``python -m`` this module."""

import asyncio
import sys

from scripts.benchmarks.client import length_of

BODY = b'{"results": []}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Nobody(asyncio.Protocol):
    """Answers each request as soon as it is whole."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody asks."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        assert self._transport is not None
        self._buffer += data
        while (end := length_of(self._buffer)) is not None and len(self._buffer) >= end:
            self._buffer = self._buffer[end:]
            self._transport.write(ANSWER)


async def main() -> None:
    """Listen on a free port, and say which."""
    server = await asyncio.get_running_loop().create_server(Nobody, "127.0.0.1", 0)
    sys.stdout.write(f"open http://127.0.0.1:{server.sockets[0].getsockname()[1]}/\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
