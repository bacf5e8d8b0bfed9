"""How can hundreds of processes be killed in minutes? One that has imported everything forks a child for each.

A child runs one operation of :mod:`tests.index.crash_operations`, once it is told to; what it writes to its standard
output is what it has acknowledged. It has one thread.
"""

import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
_PR_SET_PTRACER = 0x59616D61
_SECONDS = 120.0


@dataclass(frozen=True)
class Ended:
    """What a process had said before it died; ``signal`` is 0 if it came to its end."""

    said: list[str]
    signal: int


class Child:
    """A process that waits to be told to begin."""

    def __init__(self, nursery: socket.socket, pid: int, said: int, go: int) -> None:
        self.pid = pid
        self._nursery, self._said, self._go = nursery, said, go

    def go(self) -> None:
        os.write(self._go, b"!")
        os.close(self._go)

    def ended(self, seconds: float | None = None) -> Ended:
        """Wait for its end; with ``seconds``, kill it after so many."""
        until = time.monotonic() + (_SECONDS if seconds is None else seconds)
        parts: list[bytes] = []
        alive = True
        with selectors.DefaultSelector() as selector:
            selector.register(self._said, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, until - time.monotonic()) if alive else None):
                    with suppress(ProcessLookupError):
                        os.kill(self.pid, signal.SIGKILL)
                    assert seconds is not None, "it does not end"
                    alive = False
                    continue
                if not (part := os.read(self._said, 65536)):
                    break
                parts.append(part)
        os.close(self._said)
        status = int(self._nursery.recv(64))
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        assert ended_by in (0, signal.SIGKILL), f"died of signal {ended_by}"
        assert ended_by or status == 0, "it failed; its traceback is on standard error"
        whole = b"".join(parts).decode()
        return Ended(whole[: whole.rfind("\n") + 1].splitlines(), ended_by)


class Nursery:
    """The process that forks; one child at a time."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-B", "-m", "tests.index.nursery", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=ENVIRONMENT)
        theirs.close()

    def child(self, operation: str, *arguments: object) -> Child:
        """A child that will run an operation."""
        said, saying = os.pipe()
        waiting, go = os.pipe()
        request = json.dumps([operation, *map(str, arguments)]).encode()
        socket.send_fds(self._ours, [request], [saying, waiting])
        os.close(saying)
        os.close(waiting)
        return Child(self._ours, int(self._ours.recv(64)), said, go)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ours.close()
        self._process.wait(_SECONDS)


def _serve(descriptor: int) -> None:
    from tests.index.crash_operations import OPERATIONS

    with socket.socket(fileno=descriptor) as theirs:
        while True:
            request, descriptors, _, _ = socket.recv_fds(theirs, 65536, 2)
            if not request:
                return
            pid = os.fork()
            if not pid:
                try:
                    theirs.close()
                    saying, waiting = descriptors
                    os.dup2(saying, 1)
                    os.close(saying)
                    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, -1, 0, 0, 0)  # strace is no ancestor of this process
                    os.read(waiting, 1)
                    os.close(waiting)
                    operation, *arguments = json.loads(request)
                    OPERATIONS[operation](*arguments)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            for opened in descriptors:
                os.close(opened)
            theirs.send(str(pid).encode())
            theirs.send(str(os.waitpid(pid, 0)[1]).encode())


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
