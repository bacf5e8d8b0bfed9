"""Which documents are embedded already? The finished shards of an unfinished build, each safe before the next."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from index.documents import Document
from index.durable import fsync, write_durably
from index.generations import (
    BUILD,
    GENERATIONS,
    dropped_through,
    last_change,
    live_manifest,
    locked,
    made,
    remove_if_empty,
)
from index.headers import write_embeddings_header
from index.manifest import EncoderIdentity, IndexFault

JOB = "job.json"
DIGEST_BYTES = 16


class Job(BaseModel):
    """What the vectors of an unfinished build depend on, beside the documents. Its recipe may still be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    build: str
    encoder: EncoderIdentity
    dims: int
    documents_per_shard: int
    changes_through: int
    """The last change to the index when the build began: of the documents that it replaces. What came later is kept,
    and stays in the log, even if it is folded into a generation, until the build is published or given up."""

    @classmethod
    def new(cls, encoder: EncoderIdentity, dims: int, documents_per_shard: int, changes_through: int = 0) -> "Job":
        """A job that no other build has."""
        return cls(
            build=uuid.uuid4().hex,
            encoder=encoder,
            dims=dims,
            documents_per_shard=documents_per_shard,
            changes_through=changes_through,
        )


@dataclass(frozen=True)
class Shard:
    """Consecutive documents, embedded. The fields are parallel."""

    digests: NDArray[np.uint8]  # (rows, 16) of each document's id and text
    embeddings: NDArray[np.float32]  # (rows, dim)

    def checksum(self) -> str:
        """Hex sha256 of both."""
        return sha256(self.digests.tobytes() + np.ascontiguousarray(self.embeddings).tobytes()).hexdigest()


def digests_of(documents: Sequence[Document]) -> NDArray[np.uint8]:
    """(documents, 16) a digest of each one's id and text: what it takes to notice that one has changed."""
    digests = np.empty((len(documents), DIGEST_BYTES), np.uint8)
    for row, document in enumerate(documents):
        id_ = document.id.encode()
        content = len(id_).to_bytes(8, "little") + id_ + document.text.encode()
        digests[row] = np.frombuffer(blake2b(content, digest_size=DIGEST_BYTES).digest(), np.uint8)
    return digests


class Work:
    """The folder of an unfinished build: its job, and a file for each shard that is finished."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder, self.job = folder, job

    def read(self, number: int) -> Shard | None:
        """A finished shard; None if it is not there, or not whole: then it is embedded again."""
        try:
            with safe_open(self._path(number), "np") as file:
                shard = Shard(file.get_tensor("digests"), file.get_tensor("embeddings"))
                expected = file.metadata()["checksum"]
        except (OSError, SafetensorError, KeyError, TypeError):
            return None
        return shard if shard.checksum() == expected else None

    def write(self, number: int, shard: Shard) -> None:
        """Keep a finished shard; when this returns, neither a kill nor a power cut takes it away."""
        tensors: dict[str, NDArray[Any]] = {
            "digests": shard.digests,
            "embeddings": np.ascontiguousarray(shard.embeddings, np.float32),
        }
        write_durably(self._path(number), save(tensors, {"checksum": shard.checksum()}))

    def finished(self) -> int:
        """How many shards there are."""
        return len(list(self.folder.glob("*.safetensors")))

    def gather(self, path: Path, shards: int, rows: int) -> None:
        """Write the embeddings of all shards, in order, as one .npy file.

        Raises:
            IndexFault: a shard has been lost since it was written.
        """
        with path.open("wb") as file:
            write_embeddings_header(file, rows, self.job.dims)
            for number in range(shards):
                shard = self.read(number)
                if shard is None:
                    raise IndexFault(
                        f"{self._path(number)} was damaged after it was written; run the same command again: "
                        "that shard alone is embedded anew"
                    )
                file.write(shard.embeddings.tobytes())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"


@contextmanager
def unfinished_build(folder: Path, wanted: Job, resume: bool) -> Iterator[Work]:
    """The work folder of the build of the index in ``folder``: the one a former run left, or a new one.

    It is removed when the build has succeeded, and after an error if no shard is finished; else it stays, and the next
    call goes on from there. A process that is killed changes nothing about that.

    Args:
        folder: the index, new or existing.
        wanted: the job to do.
        resume: go on from what a former run left; if not, that is removed.

    Raises:
        IndexFault: another build is under way, the unfinished one is of another job, or changes that were made since it
            began are gone.
    """
    generations = folder / GENERATIONS
    created = made(generations)
    try:
        with locked(generations, f"another build into {folder} is under way; wait for it to end"):
            home = generations / BUILD
            left = _left_by_a_former_run(folder, home, wanted) if resume else None
            work = left or Work(home, wanted)
            try:
                if left is None:
                    work = _begun(folder, work, created)
                yield work
            except BaseException:
                if not work.finished():
                    shutil.rmtree(home, ignore_errors=True)
                raise
            shutil.rmtree(home, ignore_errors=True)
    finally:
        remove_if_empty(created)


def _left_by_a_former_run(folder: Path, home: Path, wanted: Job) -> Work | None:
    try:
        job = Job.model_validate_json((home / JOB).read_bytes())
    except (FileNotFoundError, ValidationError):  # killed before it was written, or while it was removed
        return None
    live = live_manifest(folder)
    if live is not None and live.measured.get("build") == job.build:
        return None  # killed after it had published
    if job.model_copy(update={"build": wanted.build, "changes_through": wanted.changes_through}) != wanted:
        raise IndexFault(
            f"{home} holds an unfinished build with encoder {job.encoder.name} ({job.encoder.digest}), {job.dims} "
            f"dimensions, shards of {job.documents_per_shard}; this one is with {wanted.encoder.name} "
            f"({wanted.encoder.digest}), {wanted.dims}, {wanted.documents_per_shard}. Finish it with the bundle it was "
            "begun with (--bundle), or give it up with --fresh"
        )
    if (dropped := dropped_through(folder)) > job.changes_through:
        raise IndexFault(
            f"{home} holds an unfinished build that began after change {job.changes_through}, and the changes through "
            f"{dropped} are no longer in the log (a restored backup?): those between would be lost; give it up with "
            "--fresh"
        )
    return Work(home, job)


def replaced_through(folder: Path) -> int | None:
    """The last change that an unfinished build of an index replaces; None if none is unfinished."""
    try:
        job = Job.model_validate_json((folder / GENERATIONS / BUILD / JOB).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    live = live_manifest(folder)
    return None if live is not None and live.measured.get("build") == job.build else job.changes_through


def _begun(folder: Path, work: Work, created: Sequence[Path]) -> Work:
    shutil.rmtree(work.folder, ignore_errors=True)
    work.folder.mkdir()
    for path in (*created, work.folder):
        fsync(path.parent)
    while True:
        write_durably(work.folder / JOB, work.job.model_dump_json(indent=2).encode())
        # From here on the log keeps what comes after the job's last change; but it may have been dropped just before.
        if dropped_through(folder) <= work.job.changes_through:
            return work
        work = Work(work.folder, work.job.model_copy(update={"changes_through": last_change(folder)}))
