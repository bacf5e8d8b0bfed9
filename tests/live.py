"""The program itself, serving in a process of its own: what a client meets."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def served(log: Path, *options: object, **variables: str) -> Iterator[str]:
    """The address of ``dse serve`` with some options; what it says goes to ``log``.

    Raises:
        RuntimeError: it ended before it listened.
    """
    command = [sys.executable, "-c", "from scripts.dse import main; main()", "serve", "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=os.environ | variables | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("open "):
                    yield line.split()[1].rstrip("/")
                    return
            raise RuntimeError(f"dse serve ended with {process.wait()}: {log.read_text()}")
        finally:
            process.terminate()
            process.stdout.close()
            process.wait(timeout=30)
