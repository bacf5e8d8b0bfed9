"""Do these parts belong together? Bundle, teacher and index are read and checked before anything is served."""

from dataclasses import dataclass, field
from pathlib import Path

from app.batching import Queues
from app.settings import Settings
from index.live import LiveIndex
from index.manifest import EncoderIdentity, HeadIdentity, Verify
from index.nearest import HeadVectors
from model.bundle import Student, Teacher, load_student, load_teacher
from model.head import QuadraticHead
from model.manifest import ArtifactError
from model.similarity import score_pairs


@dataclass(frozen=True)
class Service:
    """Everything a request may need, loaded, checked and warm."""

    student: Student
    teacher: Teacher | None
    index: LiveIndex | None
    queues: Queues = field(default_factory=Queues)
    """Where the texts of all requests wait for the models."""


def load(settings: Settings) -> Service:
    """Read all artifacts that the settings name, and run each model once.

    Raises:
        ArtifactError, IndexFault: a part is missing or altered, or the index was built with another encoder; the
            message says how to mend it.
    """
    queues = Queues(settings.batch_tokens, settings.max_queue_tokens)
    student = queues.student(load_student(settings.bundle, settings.threads))
    index = None
    if settings.index:
        index = open_index(settings.index, student, writable=not settings.read_only, verify=settings.verify)
    teacher = queues.teacher(load_teacher(settings.teacher, settings.threads)) if settings.teacher else None
    try:
        score_pairs(student.encoder, student.head, [("warm", "up")])
        if teacher is not None:
            teacher.scorer.score([("warm", "up")])
    except ValueError as error:  # shapes that do not fit, within files whose digests do
        raise ArtifactError(
            f"{settings.bundle} or {settings.teacher} does not work: {error}; export it again"
        ) from error
    return Service(student, teacher, index, queues)


def identity(student: Student) -> EncoderIdentity:
    """What an index remembers of the encoder it was built with."""
    return EncoderIdentity(name=student.name, digest=student.encoder_digest)


def open_index(folder: Path, student: Student, writable: bool = False, verify: Verify = "full") -> LiveIndex:
    """The index in a folder, which this student's encoder built, with all changes since.

    Raises:
        IndexFault: not an index, built with another encoder, ranked by another head, or a file of it is missing or
            altered.
    """
    return LiveIndex.open(folder, identity(student), writable, head=head_vectors(student), verify=verify)


def head_vectors(student: Student) -> HeadVectors | None:
    """How FAISS can rank by the student's head; None if it cannot."""
    head = student.head
    if not isinstance(head, QuadraticHead):
        return None
    identity = HeadIdentity(name=student.name, digest=head.digest())
    return HeadVectors(identity, head.query_vectors, head.candidate_vectors)
