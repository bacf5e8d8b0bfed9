"""A build in small, to be killed: ``python -m tests.index.crash_build INPUT FOLDER`` says what is safe as it goes."""

import os
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from index import build as job
from index.generations import FILES, current_name
from index.manifest import EncoderIdentity, GenerationManifest
from index.sources import Inputs

ENCODER = EncoderIdentity(name="letters", digest="d" * 64)
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


class Letters:
    """Counts letters, as :class:`tests.fakes.LetterEncoder` does without what makes a process start slowly."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        counts = np.array([[text.count(letter) for letter in ALPHABET] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class Aloud(job.Watcher):
    def embedded(self, documents: int, resumed: int, expected: int | None) -> None:
        os.write(1, f"{documents}\n".encode())


@contextmanager
def small_shards():
    names = {"DOCUMENTS_PER_SHARD": 4, "DOCUMENTS_PER_BATCH": 2, "SAMPLE": 1}
    before = {name: getattr(job, name) for name in names}
    for name, value in names.items():
        setattr(job, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(job, name, value)


def build(source: Path, folder: Path, encode: Letters, watcher: job.Watcher | None = None) -> GenerationManifest:
    with small_shards():
        inputs = Inputs([source])
        return job.build(inputs, encode, 26, ENCODER, folder, share_read=inputs.share_read, watcher=watcher)


def live_files(folder: Path) -> dict[str, bytes]:
    """What the live generation of an index holds, by name, its manifest left out."""
    home = folder / "generations" / current_name(folder)
    return {name: (home / name).read_bytes() for name in FILES}


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), Letters(), Aloud())
    os.write(1, b"published\n")
