"""A Hugging Face hub in a thread: what its client asks of it, for a handful of tiny files."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = re.compile(r"/datasets/(?P<repository>.+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class TinyHub:
    """Files by repository/path. As on the real hub, large files lie behind a redirect to another host."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, bool]] = field(default_factory=list)  # method, path, with a token
    large: bool = False
    cut: int = 0  # bytes that a body lacks of what its headers promised
    delay: float = 0.0  # seconds
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    hub: TinyHub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub = self.hub
        hub.asked.append((self.command, self.path, "Authorization" in self.headers))
        time.sleep(hub.delay)
        if self.path.startswith("/storage/"):
            return self.send_file(hub.files[unquote(self.path.removeprefix("/storage/"))])
        match = RESOLVE.fullmatch(self.path)
        name = f"{match['repository']}/{unquote(match['path'])}" if match else ""
        if name not in hub.files:
            return self.say(404, {"X-Error-Code": "EntryNotFound"})
        content = hub.files[name]
        if not hub.large:
            return self.send_file(content)
        linked = {"X-Linked-Etag": f'"{sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        return self.say(302, linked | {"Location": f"http://localhost:{hub.port}/storage/{name}"})

    def send_file(self, content: bytes) -> None:
        body = content if self.command == "HEAD" else content[: len(content) - self.hub.cut]
        self.say(200, {"ETag": f'"{sha256(content).hexdigest()}"', "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def say(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"X-Repo-Commit": COMMIT, "Content-Length": "0"} | headers).items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Tests read what was asked from the hub."""


@contextmanager
def serving(hub: TinyHub) -> Iterator[TinyHub]:
    """The hub at a free port, until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) as server:
        hub.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
