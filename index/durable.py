"""When is a file safe from a power cut? Once it, and the folder that names it, have been fsynced."""

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Make what a file holds, or which names a folder holds, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Put a file in its place in one step: even after a power cut it is all there, or as before."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    fsync(partial)
    partial.replace(path)
    fsync(path.parent)
