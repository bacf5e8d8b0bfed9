"""Do these parts belong together? Bundle, teacher and index are read and checked before anything is served."""

from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from index.generations import Generation
from index.manifest import EncoderIdentity
from model.bundle import Student, Teacher, load_student, load_teacher
from model.manifest import ArtifactError


@dataclass(frozen=True)
class Service:
    """Everything a request may need, loaded, checked and warm."""

    student: Student
    teacher: Teacher | None
    index: Generation | None


def load(settings: Settings) -> Service:
    """Read all artifacts that the settings name, and run each model once.

    Raises:
        ArtifactError, IndexFault: a part is missing or altered, or the index was built with another encoder; the
            message says how to mend it.
    """
    student = load_student(settings.bundle, settings.threads)
    index = open_index(settings.index, student) if settings.index else None
    teacher = load_teacher(settings.teacher, settings.threads) if settings.teacher else None
    student.encoder.encode(["warm up"])
    if teacher is not None:
        teacher.cross_encoder.score([("warm", "up")])
    return Service(student, teacher, index)


def identity(student: Student) -> EncoderIdentity:
    """What an index remembers of the encoder it was built with."""
    return EncoderIdentity(name=student.name, digest=student.encoder_digest)


def open_index(folder: Path, student: Student) -> Generation:
    """The live generation of an index that this student's encoder built.

    Raises:
        IndexFault: not an index, or a file of it is missing or altered.
        ArtifactError: another encoder built it.
    """
    generation = Generation.open(folder)
    built_with, serving = generation.manifest.encoder, identity(student)
    if built_with.digest != serving.digest:
        raise ArtifactError(
            f"{folder} was built with encoder {built_with.name} ({built_with.digest}), not with {serving.name} "
            f"({serving.digest}); give the bundle it was built with (--bundle), or build it again: "
            f"dse index build INPUT --output {folder} --bundle BUNDLE"
        )
    return generation
