"""When is it on the disk? After fsync: of a file for its content, of a folder for the names in it."""

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
