"""Do these parts belong together? Bundle, teacher and index are read and checked before anything is served."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from app.answers import score
from app.batching import PATIENCE, Queues
from app.registry import Models
from app.settings import Settings
from index.contract import Index
from index.live import LiveIndex
from index.location import Location, MilvusAccess
from index.manifest import EncoderIdentity, HeadIdentity, Verify
from index.nearest import HeadVectors
from index.opening import DEFAULT_ACCESS, manifest_at, open_any
from model.bundle import Student, Teacher, load_student, load_teacher
from model.head import QuadraticHead
from model.line import Line
from model.manifest import ArtifactError


@dataclass(frozen=True)
class Service:
    """Everything a request may need, loaded, checked and warm."""

    models: Models
    index: Index | None
    searching: Student
    """Whose embeddings the index holds; without an index the default student."""
    queues: Queues = field(default_factory=Queues)
    """Where the texts of all requests wait for the models."""
    batches: Line = field(default_factory=lambda: Line(PATIENCE))
    """Whose turn it is to look for one of several queries."""

    @property
    def student(self) -> Student:
        """The default student."""
        return self.models.default

    @property
    def teacher(self) -> Teacher | None:
        """The one teacher."""
        return self.models.teacher


def load(settings: Settings) -> Service:
    """Read all artifacts that the settings name, and run each model once.

    Raises:
        ArtifactError, IndexFault: a part is missing or altered, or the index was built with another encoder; the
            message says how to mend it.
    """
    queues = Queues(settings.tokens_of_a_batch, settings.max_queue_tokens, settings.max_wait)
    folders = (settings.bundle, *settings.bundles)
    students = [
        queues.student(load_student(folder, settings.threads, long_text=settings.long_text)) for folder in folders
    ]
    index, searching = None, students[0]
    if settings.index:
        access = settings.milvus_access()
        searching = _encoder_of(settings.index, students, access)
        index = open_index(settings.index, searching, not settings.read_only, settings.verify, access)
    teacher = queues.teacher(load_teacher(settings.teacher, settings.threads)) if settings.teacher else None
    models = Models(students, teacher, settings.model_aliases)
    models.check()
    for model in models.all:
        _check_queue(settings, model)
        try:
            score(model, [("warm", "up")])
        except Exception as error:  # onnxruntime raises its own classes, with no common public base
            raise ArtifactError(f"{model.name} does not work: {error}; export it again") from error
    # Over a Milvus, searches wait for the network, and not for each other.
    at_once = settings.threads if isinstance(index, LiveIndex) else settings.max_requests
    return Service(models, index, searching, queues, Line(PATIENCE, at_once))


def _check_queue(settings: Settings, model: Student | Teacher) -> None:
    if settings.max_queue_tokens < 2 * model.max_tokens:  # two texts, or a pair in both orders
        raise ArtifactError(
            f"DSE_MAX_QUEUE_TOKENS ({settings.max_queue_tokens}) is too few for {model.name}, which may read "
            f"{2 * model.max_tokens} tokens of one pair; raise it"
        )


def _encoder_of(index: Location, students: Sequence[Student], access: MilvusAccess) -> Student:
    """The student that built an index; the default where none did, or there is nothing to read: opening it says why."""
    manifest = manifest_at(index, access)
    built = [student for student in students if manifest and student.encoder_digest == manifest.encoder.digest]
    return built[0] if built else students[0]


def identity(student: Student) -> EncoderIdentity:
    """What an index remembers of the encoder it was built with."""
    return EncoderIdentity(name=student.name, digest=student.encoder_digest)


@overload
def open_index(
    location: Path,
    student: Student,
    writable: bool = False,
    verify: Verify = "full",
    access: MilvusAccess = DEFAULT_ACCESS,
) -> LiveIndex: ...
@overload
def open_index(
    location: Location,
    student: Student,
    writable: bool = False,
    verify: Verify = "full",
    access: MilvusAccess = DEFAULT_ACCESS,
) -> Index: ...
def open_index(
    location: Location,
    student: Student,
    writable: bool = False,
    verify: Verify = "full",
    access: MilvusAccess = DEFAULT_ACCESS,
) -> Index:
    """The index at a location, which this student's encoder built, with all changes since.

    Raises:
        IndexFault: not an index, built with another encoder, ranked by another head, or a file of it is missing or
            altered.
    """
    return open_any(location, identity(student), writable, head_vectors(student), verify, access)


def head_vectors(student: Student) -> HeadVectors | None:
    """How FAISS can rank by the student's head; None if it cannot."""
    head = student.head
    if not isinstance(head, QuadraticHead):
        return None
    identity = HeadIdentity(name=student.name, digest=head.digest())
    return HeadVectors(identity, head.query_vectors, head.candidate_vectors)
