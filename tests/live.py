"""The program itself, serving in a process of its own: what a client meets."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS_TO_START = 120


@contextlib.contextmanager
def served(log: Path, *options: object, **variables: str) -> Iterator[str]:
    """The address of ``dse serve`` with some options; what it says goes to ``log``.

    Raises:
        RuntimeError: it ended before it listened, or did not listen in time.
    """
    command = [sys.executable, "-c", "from scripts.dse import main; main()", "serve", "--port", "0"]
    with log.open("w") as output:  # a file, not a pipe: a pipe that nobody reads fills up, and the service stands still
        process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | variables | {"PYTHONUNBUFFERED": "1"},
        )
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where it listens, once it answers there."""
    give_up = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < give_up:
        said = log.read_text()
        if "Application startup complete" in said and (found := re.search(r"^open +(\S+?)/$", said, re.MULTILINE)):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"dse serve (exit code {process.poll()}) does not listen: {log.read_text()}")
