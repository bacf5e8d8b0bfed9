"""A Ray cluster for tests: one node of this machine, in processes of its own that can be killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

CPUS = 2
ATTEMPTS = 4
"""Ray gives its own parts fifteen seconds to begin: on a busy machine it may take more than one."""
SECONDS_TO_START = 120

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # else a token is written into the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # after which those who have lost the head give up
    "OMP_NUM_THREADS": "1",
}
_CODE = "from ray.scripts.scripts import main; raise SystemExit(main())"


class RayCluster:
    """A head with its node."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        for _ in range(ATTEMPTS):
            if self._start():
                return
            self.kill()
        raise RuntimeError(f"ray does not start: {(folder / 'log').read_text()}")

    @property
    def address(self) -> str:
        """For those who join."""
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """All of it, as when a machine is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _start(self) -> bool:
        command = [sys.executable, "-W", "ignore", "-c", _CODE, "start", "--head", "--block", "--disable-usage-stats"]
        options = [f"--port={self.port}", f"--num-cpus={CPUS}", "--object-store-memory=100000000"]
        fewer = ["--include-dashboard=false", "--include-log-monitor=false", "--node-ip-address=127.0.0.1"]
        begun = (self._folder / "log").stat().st_size if (self._folder / "log").exists() else 0
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options, *fewer, f"--temp-dir={self._folder}"],
                stdout=log,
                stderr=log,
                env=os.environ | ENVIRONMENT,
                process_group=0,
            )
        give_up = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < give_up and self._process.poll() is None:
            if b"Ray runtime started" in (self._folder / "log").read_bytes()[begun:]:
                return True
            time.sleep(0.1)
        return False


@contextlib.contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster, and the environment that those who join it need."""
    with (
        TemporaryDirectory(prefix="ray", dir="/tmp") as folder,  # short: sockets are in it
        _environment(ENVIRONMENT),
        RayCluster(Path(folder)) as cluster,
    ):
        yield cluster


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
