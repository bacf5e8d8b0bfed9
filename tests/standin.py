"""A Milvus for tests: milvus-lite's server, in a process of its own that can be killed and started again."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from index.location import MilvusAccess, MilvusAddress

SECONDS_TO_START = 180
ACCESS = MilvusAccess(timeout=60.0)
"""A slow machine is no failure."""

_CODE = "from milvus_lite.cmdline import main; raise SystemExit(main())"


class StandIn:
    """The server. What it has acknowledged is there again after :meth:`kill` and :meth:`start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = iter(range(1_000_000))
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-W", "ignore", "-c", _CODE, "server"]
        options = ["--data-dir", str(self._folder / "data"), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
        give_up = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < give_up and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"milvus-lite does not listen: {(self._folder / 'log').read_text()}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def address(self) -> MilvusAddress:
        """Of an index that is not there yet."""
        return MilvusAddress("127.0.0.1", self.port, f"index{next(self._numbers)}")


def access(**changes: object) -> MilvusAccess:
    return replace(ACCESS, **changes)  # type: ignore[arg-type]
